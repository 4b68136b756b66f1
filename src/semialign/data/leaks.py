"""Leaks: a test case whose voxels a case for training or validation holds too, under another name.

Voxels are compared by a hash of their values, whatever the file's format, type of number and place in space. Only
images are read, never a label.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import make_folder
from semialign.data.case_keys import case_key, digest
from semialign.data.checked import Checked
from semialign.data.dataset import Case, Dataset, read_case
from semialign.data.grid import Image
from semialign.data.image_io import read_grid
from semialign.data.parallel import parallel
from semialign.data.splits import PARTS, Split

Say = Callable[[str, int, int], None]
Content = dict[str, Any]
CONTENT = "content.jsonl"
"""In a folder of prepared data: what tells copies of its cases' images."""


def content_of(image: Image) -> Content:
    """Return the spatial ``shape`` of an image and a ``hash`` of its values (as float32), which copies share."""
    found = hashlib.blake2b(repr(image.array.shape).encode(), digest_size=16)
    for plane in image.array.T:  # as volumes lie in memory: no second volume is made
        found.update((np.ascontiguousarray(plane, np.float32) + np.float32(0)).data)  # -0.0 becomes 0.0
    return {"shape": list(image.array.shape[1:]), "hash": found.hexdigest()}


def remember(path: Path, contents: Mapping[Case, Content]) -> None:
    """Keep contents in the file ``path``, so that these cases need not be read for them again."""
    kept = Checked(path)
    for case, content in contents.items():
        if _key(case) not in kept:
            kept.add(_key(case), content)


def copies(dataset: Dataset, split: Split, contents: Mapping[str, Content]) -> list[str]:
    """Return warnings on cases for training and validation that are copies of one another."""
    return [
        f"{_file(dataset, other)}: holds the same voxels as {_file(dataset, first)}; it counts twice"
        for first, *others in _alike(contents, split.training + split.validation)
        for other in others
    ]


def require_no_leak(
    dataset: Dataset,
    split: Split,
    kept_in: Path,
    *,
    where: str,
    workers: int | None = None,
    progress: Say | None = None,
) -> None:
    """Raise :class:`UserError` where a test case is a copy of one for training or validation.

    ``kept_in``: file of contents known already, and that found ones are added to (one that is stopped goes on).
    ``where``: what the error calls the split. Headers are read first, and voxels only of cases that have the size of
    one on the other side; a damaged file is nobody's copy. ``progress`` is called with (what, done, of).
    """
    ours, test = split.training + split.validation, split.test
    if not test:
        return
    make_folder(kept_in.parent)
    kept = Checked(kept_in)
    keys = {case: _key(dataset.cases[case]) for case in ours + test}
    shapes = {case: _shape(dataset.cases[case], kept, key) for case, key in keys.items()}
    either = {shapes[case] for case in ours} & {shapes[case] for case in test} - {None}
    due = [case for case, key in keys.items() if key not in kept and shapes[case] in either]
    tasks = [(replace(dataset, cases={}), dataset.cases[case]) for case in due]
    for done, content in enumerate(parallel(_content, tasks, workers), 1):
        if content is not None:
            kept.add(keys[due[done - 1]], content)
        if progress is not None:
            progress("compare", done, len(due))
    found = {case: kept[key] for case, key in keys.items() if key in kept}
    of = {case: part for part in PARTS for case in getattr(split, part)}
    leaks = [(b, a) for a, *others in _alike(found, ours + test) for b in others if of[b] == "test" != of[a]]
    if leaks:
        (leaked, seen), more = leaks[0], len(leaks) - 1
        raise UserError(
            f"{_file(dataset, leaked)}: a test case with the same voxels as {_file(dataset, seen)}, a case for "
            f"{'validation' if of[seen] == 'validation' else 'training'} ({of[seen]})"
            f"{f', and {more} more such' if more else ''}; leave one of the two out of {where}"
        )


def _content(task: tuple[Dataset, Case]) -> Content | None:
    dataset, case = task
    try:
        return content_of(read_case(case, len(dataset.channel_names)))
    except UserError:
        return None


def _shape(case: Case, kept: Checked, key: str) -> tuple[int, ...] | None:
    try:
        return tuple(kept[key]["shape"]) if key in kept else read_grid(case.images[0]).shape
    except UserError:
        return None


def _alike(contents: Mapping[str, Content], order: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for case in order:
        if case in contents:
            groups.setdefault(contents[case]["hash"], []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def _key(case: Case) -> str:
    return digest(case_key(case, False))


def _file(dataset: Dataset, case: str) -> Path:
    return dataset.cases[case].images[0]
