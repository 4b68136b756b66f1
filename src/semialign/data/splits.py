"""Splits: which cases are labelled, unlabelled, for validation and for the test."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError, closest
from semialign.common.files import read_json, write_json
from semialign.common.seeding import numpy_rng
from semialign.data.dataset import Dataset

PARTS = ("labelled", "unlabelled", "validation", "test")
_PUBLISHED = resources.files("semialign.data") / "published_splits"


@dataclass(frozen=True)
class Split:
    """Four disjoint lists of case ids. Labels of ``unlabelled`` are never opened; ``test`` chooses nothing."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    protocol: str = ""

    @property
    def training(self) -> tuple[str, ...]:
        """Labelled and unlabelled cases: all whose images training may see."""
        return self.labelled + self.unlabelled

    def all_labelled(self) -> "Split":
        """Return the ceiling's split: what was unlabelled counts as labelled; validation and test stay."""
        return Split(self.training, (), self.validation, self.test, f"{self.protocol}, all labels")


def default_split(dataset: Dataset) -> Split:
    """The stated rule where there is no split file: cases with a label are labelled, the others unlabelled.

    Nothing is set aside, so the last checkpoint is the one to use.
    """
    labelled = tuple(dataset.with_label)
    return Split(labelled, tuple(c for c in dataset.cases if c not in set(labelled)), protocol="every label trains")


def published_splits() -> list[str]:
    """Return the names of the published splits that are shipped; each can be given instead of a split file."""
    return sorted(entry.name.removesuffix(".json") for entry in _PUBLISHED.iterdir() if entry.name.endswith(".json"))


def is_published_split(path: Path) -> bool:
    """Whether ``path`` is no file but the name of a published split."""
    return not Path(path).exists() and str(path) in published_splits()


def read_split_file(path: Path) -> Any:
    """Return what a split file holds, unchecked; ``path`` may be the name of a published split.

    Raises :class:`UserError` for a missing or broken file; for a bare name, the nearest published one is suggested.
    """
    path = Path(path)
    if is_published_split(path):
        return json.loads((_PUBLISHED / f"{path}.json").read_text(encoding="utf-8"))
    if not path.exists() and path.name == str(path) and not path.suffix:
        raise UserError(
            f"{path}: no such file, and no published split has this name{closest(path.name, published_splits())}"
        )
    return read_json(path)


def load_split(path: Path, dataset: Dataset) -> Split:
    """Read a split file, or a published split by its name, and check it against the data set.

    Raises :class:`UserError` for unknown cases, cases in two lists, no labelled case, a labelled case without label.
    """
    value = read_split_file(path)
    if not isinstance(value, dict) or "labelled" not in value:
        raise UserError(f'{path}: a split file holds lists of case ids under "labelled", "unlabelled", ...')
    parts = {part: value.get(part, []) for part in PARTS}
    for part, ids in parts.items():
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise UserError(f'{path}: "{part}" must be a list of case ids')
    for key, ids in value.items():
        if key not in PARTS and isinstance(ids, list) and ids and all(case in dataset.cases for case in map(str, ids)):
            known = {"val": "validation", "train": "labelled"}.get(key)
            mend = f"; did you mean '{known}'?" if known else closest(key, PARTS)
            raise UserError(f'{path}: "{key}" names cases of the data set, but is no part of a split{mend}')
    split = Split(**{part: tuple(ids) for part, ids in parts.items()}, protocol=str(value.get("protocol", path)))
    check_split(split, dataset, Path(path))
    return split


def check_split(split: Split, dataset: Dataset, path: Path) -> None:
    """Raise :class:`UserError` where ``split`` cannot be used with ``dataset``; see :func:`load_split`."""
    where: dict[str, str] = {}
    for part in PARTS:
        for case in getattr(split, part):
            if case not in dataset.cases:
                raise UserError(
                    f'{path}: "{part}" names case {case}, which the data set lacks{closest(case, dataset.cases)}'
                )
            if case in where:
                raise UserError(f"{path}: case {case} stands in both {where[case]} and {part}; leave it in one")
            where[case] = part
    if not split.labelled:
        raise UserError(f"{path}: no labelled case; at least one is needed")
    for part in ("labelled", "validation"):
        for case in getattr(split, part):
            if dataset.cases[case].label is None:
                raise UserError(f"{path}: case {case} is listed as {part} but has no file in labelsTr")


def make_split(
    dataset: Dataset,
    *,
    labelled: int,
    validation: int = 0,
    test: int = 0,
    seed: int = 0,
    group_by: str | None = None,
    together: Sequence[Sequence[str]] = (),
    test_match: str | None = None,
) -> Split:
    """Draw a split: whole groups in random order to test, validation, then labelled; the rest is unlabelled.

    ``group_by``: a regular expression; cases whose first group (or whole match) is equal stay on one side, and so do
    those listed ``together`` (near-copies). Groups are taken while they fit, so a part may fall short by less than a
    group, never exceed its number. ``labelled`` counts cases too. ``test_match``: a regular expression; groups with a
    case that matches go to the test too, beside the ``test`` cases that are drawn from the others. Raises
    :class:`UserError` where the labelled cases do not suffice.
    """
    if together and not any(case in dataset.cases for group in together for case in group):
        raise UserError(f"--group-file: none of its cases is in {dataset.root}; name the file of this data set")
    groups = _joined(_groups(dataset.cases, group_by), together)
    set_apart = _matching(dataset, groups, test_match)
    groups = [group for group in groups if not set_apart & set(group)]
    have = [case for case in dataset.with_label if case not in set_apart]
    if labelled < 1:
        raise UserError("--labelled must be at least 1")
    if validation < 0 or test < 0:
        raise UserError("--validation and --test must be at least 0")
    if labelled + validation + test > len(have):
        beside = " beside those of --test-match" if set_apart else ""
        raise UserError(
            f"{dataset.root}: {len(have)} cases{beside} have a label, but {labelled} + {validation} + {test} are "
            "asked for; ask for fewer"
        )
    order = numpy_rng(seed, "split").permutation(len(groups))
    left, wanted = set(have), {"test": test, "validation": validation, "labelled": labelled}
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    shuffled = [groups[i] for i in order]
    for part, count in wanted.items():
        for group in list(shuffled):
            # A group enters test or validation only if all of it can be scored.
            scored = [c for c in group if c in left]
            if scored and len(parts[part]) + len(scored) <= count and (part == "labelled" or len(scored) == len(group)):
                parts[part] += scored
                parts["unlabelled"] += [c for c in group if c not in left]
                shuffled.remove(group)
    parts["unlabelled"] += [c for group in shuffled for c in group]
    for part, count in wanted.items():
        if count and not parts[part]:
            by = f"--group-by {group_by}" if group_by else str(dataset.root)
            raise UserError(f"{by}: no group is small enough for {count} {part} cases; ask for more")
    parts["test"] += set_apart
    rule = f"semialign split --labelled {labelled} --validation {validation} --test {test} --seed {seed}"
    rule += f" --group-by '{group_by}'" if group_by else ""
    rule += f" --test-match '{test_match}'" if test_match else ""
    if together:
        rule += f", {sum(len(dataset.cases.keys() & set(group)) > 1 for group in together)} groups kept together"
    return Split(**{part: tuple(sorted(ids)) for part, ids in parts.items()}, protocol=rule)


def write_split(path: Path, split: Split) -> None:
    """Write ``split`` as JSON, whole or not at all."""
    value = asdict(split)
    write_json(path, {"protocol": value.pop("protocol"), **{part: list(ids) for part, ids in value.items()}})


def load_groups(path: Path) -> list[list[str]]:
    """Return the groups of case ids in a file such as an importer's ``near-copies.json``.

    Raises :class:`UserError` where it holds no ``groups``.
    """
    value = read_json(path)
    groups = value.get("groups") if isinstance(value, dict) else None
    if not isinstance(groups, list) or not all(
        isinstance(g, list) and all(isinstance(c, str) for c in g) for g in groups
    ):
        raise UserError(f'{path}: must hold lists of case ids under "groups"')
    return groups


def _joined(groups: list[list[str]], together: Sequence[Sequence[str]]) -> list[list[str]]:
    """Join groups that share a case with one of ``together``."""
    home = {case: i for i, group in enumerate(groups) for case in group}
    for cases in together:
        places = sorted({home[case] for case in cases if case in home})
        for place in places[1:]:
            for case in groups[place]:
                home[case] = places[0]
            groups[places[0]] += groups[place]
            groups[place] = []
    return [sorted(group) for group in groups if group]


def _matching(dataset: Dataset, groups: Sequence[Sequence[str]], test_match: str | None) -> set[str]:
    """Return the cases of all groups in which one matches; each needs a label."""
    if test_match is None:
        return set()
    pattern = _compiled(test_match, "--test-match")
    found = {case for group in groups if any(map(pattern.search, group)) for case in group}
    if not found:
        raise UserError(f"--test-match {test_match}: no case of {dataset.root} matches; mind upper and lower case")
    lacking = sorted(case for case in found if dataset.cases[case].label is None)
    if lacking:
        raise UserError(f"--test-match {test_match}: case {lacking[0]} has no label to score it by; match others")
    return found


def _compiled(pattern: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{option} {pattern}: not a regular expression ({error})") from error


def _groups(cases: Iterable[str], group_by: str | None) -> list[list[str]]:
    if group_by is None:
        return [[case] for case in sorted(cases)]
    return list(cases_by_match(cases, group_by).values())


def cases_by_match(cases: Iterable[str], group_by: str, *, option: str = "--group-by") -> dict[str, list[str]]:
    """Return the cases by the first group of their match with a regular expression, or by the whole of it, in order.

    ``option``: what errors call it. Raises :class:`UserError` where it is none, and for a case that does not match.
    """
    pattern = _compiled(group_by, option)
    groups: dict[str, list[str]] = {}
    for case in sorted(cases):
        match = pattern.search(case)
        key = match.group(1 if pattern.groups else 0) if match else None
        if key is None:
            raise UserError(f"{option} {group_by}: does not match case {case}; write one that matches every case")
        groups.setdefault(key, []).append(case)
    return {key: groups[key] for key in sorted(groups)}
