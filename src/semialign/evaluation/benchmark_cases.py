"""Test cases of a benchmark's runs, paired over entries and averaged over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semialign.data.splits import cases_by_match
from semialign.evaluation.statistics import mean_over_seeds

Record = Mapping[str, Any]
CHECKPOINTS = ("last", "best")


def checkpoint_of(record: Record, which: str) -> Mapping[str, Any] | None:
    """Return what a run scored with a checkpoint; another tool's predictions stand beside either."""
    found = record["checkpoints"].get("last" if record.get("given") else which)
    return found if found is None else dict(found)


def drawn_figures(
    runs: Sequence[Record], which: str, pattern: str | None, classes: Sequence[str] | None = None
) -> dict[str, float]:
    """Return the mean Dice of every case (of every patient under ``pattern``), averaged over the seeds of an entry.

    ``classes``: of these alone. Raises :class:`UserError` where the runs are not on the same cases.
    """
    found = [_paired_dice(of, classes) for run in runs if (of := checkpoint_of(run, which)) is not None]
    return patients(mean_over_seeds(found), pattern)


def case_means(runs: Sequence[Record], which: str) -> dict[str, float]:
    """Every case's mean over the seeds of an entry, for the cases that count in all of its runs; there may be none."""
    dice = [run["checkpoints"][which]["case_dice"] for run in runs]
    common = sorted(set.intersection(*(set(of) for of in dice)))
    return mean_over_seeds([{case: of[case] for case in common} for of in dice]) if common else {}


def patients(cases: Mapping[str, float], pattern: str | None) -> dict[str, float]:
    """Return the means over the cases of each patient; the cases themselves without ``pattern``.

    Raises :class:`UserError` for a case that ``pattern`` does not match.
    """
    if pattern is None:
        return dict(cases)
    groups = cases_by_match(cases, pattern)
    return {group: float(np.mean([cases[case] for case in of])) for group, of in groups.items()}


def _paired_dice(of: Mapping[str, Any], classes: Sequence[str] | None) -> dict[str, float]:
    """Every case's mean Dice over ``classes``; 1 where it holds none and none is predicted.

    Were such a case left out, a run that rightly finds nothing would not differ from one that finds what is not there.
    """
    cases: dict[str, list[float]] = {}
    for row in of["scores"]:
        if classes is None or row["class"] in classes:
            cases.setdefault(row["case"], []).extend([] if row["dice"] is None else [row["dice"]])
    return {case: float(np.mean(values)) if values else 1.0 for case, values in cases.items()}
