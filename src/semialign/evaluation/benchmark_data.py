"""The data sets of a benchmark: found or made, told apart, checked, and prepared once for all entries."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import make_folder, read_json, write_json
from semialign.data.dataset import Dataset, load_dataset
from semialign.data.leaks import require_no_leak
from semialign.data.splits import Split, cases_by_match, load_split
from semialign.evaluation.benchmark_file import BenchData, BenchEntry, slug
from semialign.evaluation.benchmark_identity import digest

Say = Callable[[str, int, int], None]
MADE_FOR = "bench-data.json"  # in a folder of prepared data: which data set and split it was made from


@dataclass(frozen=True)
class Opened:
    """A data set that is there, with its split."""

    data: BenchData
    dataset: Dataset
    split: Split

    def split_for(self, entry: BenchEntry) -> Split:
        """Return the split that ``entry`` trains on."""
        return self.split.all_labelled() if entry.labels == "all" else self.split


def open_data(data: BenchData, output: Path, *, progress: Say | None = None) -> Opened:
    """Return a data set with its split; a phantom is made under ``output`` where it is not there yet."""
    if data.phantom is None:
        assert data.data is not None
        assert data.split is not None
        dataset = load_dataset(data.data)
        return Opened(data, dataset, load_split(data.split, dataset))
    from semialign.data.phantom import phantom

    settings = asdict(data.phantom)
    root = output / "data" / f"{slug(data.name)}-{digest(settings)[:6]}"
    if not (root / "dataset.json").exists():
        unfinished = root.with_name(f".making-{root.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(root.parent)
        phantom(unfinished, **settings, progress=progress)
        os.replace(unfinished, root)
    dataset = load_dataset(root)
    return Opened(data, dataset, load_split(root / "split.json", dataset))


def require_fitting(opened: Opened, entries: Sequence[BenchEntry]) -> None:
    """Raise :class:`UserError` where test cases, their patients, or labels that some entry needs, are lacking.

    Opens no file.
    """
    data, cases, where = opened.data, opened.dataset.cases, opened.data.split or opened.dataset.root / "split.json"
    if not opened.split.test:
        raise UserError(f'{where}: no test cases; list some under "test", a benchmark scores nothing else')
    if data.group_by is not None:
        cases_by_match(opened.split.test, data.group_by, option=f"data set {data.name}: group_by")
    wanted = {"test": opened.split.test}
    if any(entry.labels == "all" for entry in entries):
        wanted["unlabelled"] = opened.split.unlabelled
    for part, ids in wanted.items():
        for case in ids:
            if cases[case].label is None:
                why = "it cannot be scored" if part == "test" else "no entry can have labels: all"
                raise UserError(f"{where}: {part} case {case} of {data.name} has no file in labelsTr; {why}")


def refuse_leaks(opened: Opened, output: Path, *, progress: Say | None = None) -> None:
    """Raise :class:`UserError` where a test case is a copy of one for training or validation; reads images alone.

    A phantom is not looked through: every case of it is drawn apart.
    """
    if opened.data.phantom is None:
        kept_in = output / "content" / f"{slug(opened.data.name)}.jsonl"
        require_no_leak(opened.dataset, opened.split, kept_in, where=str(opened.data.split), progress=progress)


def prepared_folder(data: BenchData, entry: BenchEntry, output: Path) -> Path:
    """Return where the prepared data of ``data`` go: for all entries on the same labels with the same recipe's plan."""
    plan = entry.resolved.get("plan")
    ending = ("-all-labels" if entry.labels == "all" else "") + (f"-plan-{digest(plan)[:6]}" if plan else "")
    return output / "prepared" / (slug(data.name) + ending)


def delete_whole(folder: Path) -> None:
    """Delete ``folder`` so that it is there whole or not at all, whenever this is killed."""
    going = folder.with_name(f".deleting-{folder.name}")
    shutil.rmtree(going, ignore_errors=True)  # what an earlier call left
    os.replace(folder, going)
    shutil.rmtree(going, ignore_errors=True)


def renew_prepared(folder: Path, made_for: str) -> bool:
    """Delete prepared data of another data set or split, mark ``folder``; returns whether any were deleted.

    Raises :class:`UserError` where the folder was not made by a benchmark.
    """
    mark = folder / MADE_FOR
    stale = mark.exists() and read_json(mark) != made_for
    if stale:
        delete_whole(folder)
    elif not mark.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: was not made by a benchmark; move it or choose another --output")
    write_json(mark, made_for)
    return stale
