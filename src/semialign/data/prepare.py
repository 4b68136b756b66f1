"""Preparing a data set: check, fingerprint, plan, store. Restartable; a second run does nothing."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from semialign.common.errors import UserError
from semialign.common.files import make_folder, read_json, write_json
from semialign.config import to_mapping
from semialign.data.dataset import Case, Dataset, load_dataset
from semialign.data.fingerprint import fingerprint_case, summarise
from semialign.data.plan import Plan, budget_at_hand, load_plan, make_plan, write_plan
from semialign.data.preprocess import preprocess_image, preprocess_label
from semialign.data.splits import Split, default_split, load_split
from semialign.data.store import Store

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: what training needs, and nothing of the raw files."""

    folder: Path
    dataset: Dataset
    split: Split
    plan: Plan
    fingerprint: dict[str, Any]

    @property
    def store(self) -> Store:
        """The stored cases."""
        return Store(self.folder / "store")


def prepare(
    data: Path,
    split: Path | Split | None = None,
    *,
    output: Path | None = None,
    workers: int | None = None,
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Prepared:
    """Check ``data``, take its fingerprint, write plan and store; whatever is already done is not done again.

    ``split``: a split file; without one every labelled case trains. Labels are opened for labelled and validation
    cases alone. ``output``: default ``DATA/prepared/SPLIT``. A ``plan.yaml`` that stands there is used as it is.
    ``progress`` is called with (what, done, of). Raises :class:`UserError` for a faulty file or split.
    """
    dataset = load_dataset(data)
    name, parts = _split(dataset, split)
    folder = make_folder(Path(output) if output else Path(data) / "prepared" / name)
    say = progress or (lambda what, done, of: None)
    fingerprint = _fingerprint(dataset, parts, folder, workers, say)
    plan_path = folder / "plan.yaml"
    if not plan_path.exists():
        budget = budget_at_hand(accelerator)
        write_plan(
            plan_path,
            make_plan(fingerprint, channel_names=dataset.channel_names, class_names=dataset.class_names, budget=budget),
        )
    plan = load_plan(plan_path)
    if len(plan.normalisation) != len(dataset.channel_names):
        raise UserError(f"{plan_path}: made for {len(plan.normalisation)} channels; delete it and prepare again")
    store = make_folder(folder / "store")
    tasks = [
        (dataset, dataset.cases[c], plan, store, c in parts.labelled + parts.validation)
        for c in parts.training + parts.validation
    ]
    for done, _ in enumerate(_parallel(_store_case, tasks, workers), 1):
        say("store", done, len(tasks))
    return Prepared(folder, dataset, parts, plan, fingerprint)


def _split(dataset: Dataset, split: Path | Split | None) -> tuple[str, Split]:
    if isinstance(split, Split):
        digest = hashlib.blake2b(json.dumps(to_mapping(split)).encode(), digest_size=4).hexdigest()
        return f"split-{digest}", split
    if split is not None:
        return Path(split).stem, load_split(split, dataset)
    parts = default_split(dataset)
    if not parts.labelled:
        raise UserError(f"{dataset.root / 'labelsTr'}: no labelled case; at least one label is needed")
    return "no-split", parts


def _fingerprint(dataset: Dataset, parts: Split, folder: Path, workers: int | None, say: Say) -> dict[str, Any]:
    path = folder / "fingerprint.json"
    opened = parts.labelled + parts.validation
    key = [_case_key(dataset.cases[c], c in opened) for c in parts.training + parts.validation]
    key = [hashlib.blake2b("".join(key).encode() + json.dumps(dataset.labels).encode(), digest_size=8).hexdigest()]
    if path.exists() and (old := read_json(path)).get("key") == key:
        return dict(old)
    # Statistics come from training cases; validation cases are checked, and counted by nothing.
    tasks = [(dataset, dataset.cases[c], c in opened) for c in parts.training + parts.validation]
    found = []
    for done, described in enumerate(_parallel(_fingerprint_case, tasks, workers), 1):
        found.append(described)
        say("check", done, len(tasks))
    kinds = {c["picture"] for c in found}
    if len(kinds) > 1:
        raise UserError(f"{dataset.root}: holds both pictures and volumes; make a data set of each")
    summary = summarise(dataset, [c for c in found if c["case"] in parts.training])
    for name, voxels in list(summary["class_voxels"].items())[1:]:
        if not voxels:
            summary["warnings"].append(f"class '{name}' is in no labelled case: it cannot be learned")
    checked = [c for c in found if c["case"] not in parts.training]
    summary["warnings"] += [w for c in checked for w in c["warnings"]]
    summary["parts"] = {part: len(ids) for part, ids in to_mapping(parts).items() if part != "protocol"}
    summary["key"] = key
    write_json(path, summary)
    return dict(summary)


def _fingerprint_case(task: tuple[Dataset, Case, bool]) -> dict[str, Any]:
    return fingerprint_case(*task)


def _store_case(task: tuple[Dataset, Case, Plan, Path, bool]) -> None:
    dataset, case, plan, folder, labelled = task
    store = Store(folder)
    key = _case_key(case, labelled) + json.dumps(to_mapping(plan), sort_keys=True) + json.dumps(dataset.labels)
    key = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    if store.has(case.id, key):
        return
    image = preprocess_image(case, plan)
    store.write(case.id, image, preprocess_label(case, plan, dataset) if labelled else None, key)


def _case_key(case: Case, labelled: bool) -> str:
    files = [*case.images, *([case.label] if labelled and case.label else [])]
    found = [f"{p.name} {s.st_size} {s.st_mtime_ns}" for p in files for s in [os.stat(p)]]
    return "|".join([case.id, *found])


def _parallel(function: Callable[[T], R], tasks: list[T], workers: int | None) -> Iterator[R]:
    """Yield results in order; processes only where there is enough to do to pay for starting them."""
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1 or len(tasks) < 8:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        yield from _ordered(pool, function, tasks)


def _ordered(pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    try:
        yield from pool.map(function, tasks, chunksize=4)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
