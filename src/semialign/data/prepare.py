"""Preparing a data set: check, fingerprint, plan, store. Restartable; a second run does nothing."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError, require_known
from semialign.common.files import make_folder, read_json, write_json
from semialign.config import to_mapping
from semialign.data.case_keys import case_key, digest
from semialign.data.checked import Checked
from semialign.data.dataset import Case, Dataset, load_dataset
from semialign.data.fingerprint import fingerprint_case, summarise
from semialign.data.formats import PICTURES, ending_of
from semialign.data.leaks import CONTENT, copies, remember, require_no_leak
from semialign.data.parallel import parallel
from semialign.data.plan import Plan, load_plan, write_plan
from semialign.data.plan_overlay import asked_dimensions, laid_over, require_agreement, require_fields
from semialign.data.planning import ACCELERATORS, budget_at_hand, make_plan
from semialign.data.preprocess import preprocess_image, preprocess_label
from semialign.data.splits import PARTS, Split, check_split, default_split, load_split
from semialign.data.store import Store
from semialign.recipes.load import load_recipe, recipe_slug

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
    recipe: str | None = None,
    output: Path | None = None,
    workers: int | None = None,
    accelerator: str = "auto",
    dimensions: int | None = None,
    accept: Callable[[Plan], None] | None = None,
    progress: Say | None = None,
) -> Prepared:
    """Check ``data``, take its fingerprint, write plan and store; whatever is already done is not done again.

    ``split``: a split file or a published split's name; without one the recipe's, and without that every labelled case
    trains. Labels are opened for labelled and validation cases alone. ``recipe``: its ``plan`` lies over the plan that
    is made. ``output``: default ``DATA/prepared/SPLIT``, or ``SPLIT-RECIPE`` for a recipe with a plan. A ``plan.yaml``
    that stands there is used as it is; it may not contradict the recipe. ``dimensions``: 2 makes a plan for the slices
    of volumes, 3 for volumes (default: as the plan finds it better); the default folder's name then ends in ``-2d`` or
    ``-3d``. ``accept`` is shown the plan before the store is filled,
    and may raise. ``workers``: processes; by default one a core, once
    enough work is left to pay for starting them. ``progress`` is called with (what, done, of). Raises
    :class:`UserError` for a faulty file or split.
    """
    require_known(accelerator, ACCELERATORS, "accelerator")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    asked = load_recipe(recipe) if recipe else {}
    said, where = asked.get("plan") or {}, f"plan of recipe {recipe}"
    require_fields(said, where)
    dataset = load_dataset(data)
    name, parts = _split(dataset, asked.get("split") if split is None else split)
    name += f"-{recipe_slug(recipe)}" if recipe and said else ""
    pictures = ending_of(next(iter(dataset.cases.values())).images[0]) in PICTURES
    fields, where, suffix = asked_dimensions(said, where, dimensions=dimensions, pictures=pictures, root=dataset.root)
    folder = make_folder(Path(output) if output else Path(data) / "prepared" / (name + suffix))
    say = progress or (lambda what, done, of: None)
    fingerprint = _fingerprint(dataset, parts, folder, workers, say)
    of = f"{parts.protocol or 'the split'}" if split is None or isinstance(split, Split) else str(split)
    require_no_leak(dataset, parts, folder / CONTENT, where=of, workers=workers, progress=say)
    plan_path = folder / "plan.yaml"
    if not plan_path.exists():
        plan = _made_plan(dataset, fingerprint, accelerator, fields)
        if fields:
            made_for = f"{plan.made_for}, {where}" if said else plan.made_for
            plan = laid_over(plan, {**fields, "made_for": made_for}, where)
            _require_fit(plan, dataset, fingerprint, f"{where}: for", "choose another recipe")
        write_plan(plan_path, plan)
    plan = load_plan(plan_path)
    _require_fit(plan, dataset, fingerprint, f"{plan_path}: made for", "delete it and prepare again")
    require_agreement(plan, fields, plan_path, where)
    if accept is not None:
        accept(plan)
    done = Prepared(folder, dataset, parts, plan, fingerprint)
    make_folder(folder / "store")
    _fill_store(done, workers, say)
    return done


def _made_plan(dataset: Dataset, fingerprint: dict[str, Any], accelerator: str, asked: Mapping[str, Any]) -> Plan:
    return make_plan(
        fingerprint,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        budget=budget_at_hand(accelerator),
        dimensions=asked.get("dimensions"),
        slice_axis=asked.get("slice_axis"),
    )


def _require_fit(plan: Plan, dataset: Dataset, fingerprint: dict[str, Any], made: str, mend: str) -> None:
    if len(plan.normalisation) != len(dataset.channel_names):
        raise UserError(f"{made} {len(plan.normalisation)} channels, not {len(dataset.channel_names)}; {mend}")
    pictures = plan.for_pictures
    if pictures != fingerprint["picture"]:
        kinds = "pictures, not volumes" if pictures else "volumes, not pictures"
        raise UserError(f"{made} {kinds}{' (whose slices need a slice_axis)' if pictures else ''}; {mend}")


def _split(dataset: Dataset, split: Path | str | Split | None) -> tuple[str, Split]:
    if isinstance(split, Split):
        check_split(split, dataset, Path("split"))
        return f"split-{digest(to_mapping(split), 4)}", split
    if split is not None:
        return Path(split).stem, load_split(Path(split), dataset)
    parts = default_split(dataset)
    if not parts.labelled:
        raise UserError(f"{dataset.root / 'labelsTr'}: no labelled case; at least one label is needed")
    return "no-split", parts


def _fingerprint(dataset: Dataset, parts: Split, folder: Path, workers: int | None, say: Say) -> dict[str, Any]:
    path = folder / "fingerprint.json"
    opened = set(parts.labelled + parts.validation)
    cases = [dataset.cases[c] for c in parts.training + parts.validation]
    files = [case_key(case, case.id in opened) for case in cases]
    which = [getattr(parts, part) for part in PARTS]
    key = digest([files, which, dataset.channel_names, dataset.labels, dataset.ignore])
    if (old := _old_fingerprint(path)) is not None and old["key"] == key:
        return old
    if old is not None and (plan := folder / "plan.yaml").exists():
        warnings.warn(
            f"{plan}: was made from other cases, files or parts of the split; it is used as it stands; delete it to "
            "have it made anew, or prepare into another --output",
            stacklevel=2,
        )
    # Statistics come from training cases; validation cases are checked, and counted by nothing.
    bare = replace(dataset, cases={})  # a task is sent to a process: without the list of all cases
    kept = Checked(folder / "checked.jsonl")
    keys = [digest([key, dataset.channel_names, dataset.labels, dataset.ignore]) for key in files]
    due = [(key, case) for key, case in zip(keys, cases, strict=True) if key not in kept]
    tasks = [(bare, case, case.id in opened) for _, case in due]
    for done, described in enumerate(parallel(_fingerprint_case, tasks, workers), 1):
        kept.add(due[done - 1][0], described)
        say("check", done, len(tasks))
    found = [kept[key] for key in keys]
    kinds = {c["picture"] for c in found}
    if len(kinds) > 1:
        raise UserError(f"{dataset.root}: holds both pictures and volumes; make a data set of each")
    summary = summarise(dataset, [c for c in found if c["case"] in parts.training])
    for name, voxels in list(summary["class_voxels"].items())[1:]:
        if not voxels:
            summary["warnings"].append(f"class '{name}' is in no labelled case: it cannot be learned")
    checked = [c for c in found if c["case"] not in parts.training]
    summary["warnings"] += [w for c in checked for w in c["warnings"]]
    contents = {c["case"]: c["content"] for c in found if "content" in c}
    remember(folder / CONTENT, {dataset.cases[case]: of for case, of in contents.items()})
    summary["warnings"] += copies(dataset, parts, contents)
    summary["parts"] = {part: len(ids) for part, ids in to_mapping(parts).items() if part != "protocol"}
    summary["key"] = key
    write_json(path, summary)
    kept.remove()
    return dict(summary)


def _fingerprint_case(task: tuple[Dataset, Case, bool]) -> dict[str, Any]:
    return fingerprint_case(*task)


def _old_fingerprint(path: Path) -> dict[str, Any] | None:
    try:
        old = read_json(path)
    except UserError:
        return None  # missing or damaged: it is made again
    return old if isinstance(old, dict) and "key" in old else None


def _fill_store(done: Prepared, workers: int | None, say: Say) -> None:
    dataset, plan, parts, store = done.dataset, done.plan, done.split, done.store
    bare = replace(dataset, cases={})
    opened = set(parts.labelled + parts.validation)
    # What preprocessing reads: another patch size or batch changes nothing in the store.
    means: list[Any] = [plan.dimensions, plan.spacing, plan.picture_size, [to_mapping(n) for n in plan.normalisation]]
    means += [dataset.num_classes, dataset.ignore, *([plan.volume_size] if plan.volume_size else [])]
    means += [] if plan.slice_axis is None else [{"slice_axis": plan.slice_axis}]  # keys from before stay as they were
    tasks = []
    for case in (dataset.cases[c] for c in parts.training + parts.validation):
        key = digest([case_key(case, case.id in opened), means])
        if not store.has(case.id, key):
            tasks.append((bare, case, plan, store, case.id in opened, key))
    for count, _ in enumerate(parallel(_store_case, tasks, workers), 1):
        say("store", count, len(tasks))


def _store_case(task: tuple[Dataset, Case, Plan, Store, bool, str]) -> None:
    dataset, case, plan, store, labelled, key = task
    image = preprocess_image(case, plan)
    label = preprocess_label(case, plan, dataset) if labelled else None
    store.write(case.id, image, label, key, slice_axis=plan.slice_axis)
