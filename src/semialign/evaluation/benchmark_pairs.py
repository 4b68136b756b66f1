"""A verdict for every pair of entries of a benchmark: better, worse or not told apart, corrected for their number.

The test is Wilcoxon's signed-rank test on the paired cases, corrected by Holm, as challenges in the field compare
algorithms (Wiesenfarth et al., Scientific Reports 2021, challengeR): no distribution of Dice is assumed, and one case
that fails cannot carry a verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from semialign.evaluation.benchmark_cases import CHECKPOINTS, Record, checkpoint_of, drawn_figures
from semialign.evaluation.statistics import differing, holm, paired_bootstrap, wilcoxon_p_value

LEVEL = 0.05
BETTER, WORSE, ALIKE = "better", "worse", "not told apart"
TEST = (
    "Wilcoxon's signed-rank test (two-sided) on the Dice of the test cases, each averaged over seeds, Holm-corrected "
    "over all pairs of the data set"
)


def compare_pairs(records: Sequence[Record], *, entries: Sequence[str]) -> list[dict[str, Any]]:
    """Return a JSON-ready comparison for every data set, checkpoint and pair of entries that have finished runs.

    ``a``, ``b``: the entries, in the order given; ``difference``: mean of Dice of ``a`` less that of ``b`` over cases
    (patients under ``group_by``) with its bootstrap interval; ``p``; ``p_holm``, corrected over the pairs of the data
    set and checkpoint; ``verdict`` on ``a``: ``better`` or ``worse`` where ``p_holm`` is at most 0.05 and mean and
    interval agree, else ``not told apart``; ``differing``: the
    cases that are not alike, and ``least_p``: the least ``p`` that so many can give. Another tool's
    predictions are compared with both checkpoints. Raises :class:`UserError` where cases are not the same.
    """
    found: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        done = [r for r in records if r["dataset"] == dataset and r["state"] == "finished"]
        for which in CHECKPOINTS:
            found += _of_checkpoint(done, which, entries, dataset)
    return found


def _of_checkpoint(records: Sequence[Record], which: str, entries: Sequence[str], dataset: str) -> list[dict[str, Any]]:
    runs = {entry: [r for r in records if r["entry"] == entry] for entry in entries}
    runs = {e: of for e, of in runs.items() if of and all(checkpoint_of(r, which) is not None for r in of)}
    if which != "last" and all(run.get("given") for of in runs.values() for run in of):
        return []  # predictions that were given stand among the last checkpoints already
    figures = {entry: drawn_figures(of, which, of[0]["group_by"]) for entry, of in runs.items()}
    pairs = list(combinations(figures, 2))
    p_values = {str(place): wilcoxon_p_value(figures[a], figures[b]) for place, (a, b) in enumerate(pairs)}
    corrected = holm(p_values)
    rows = []
    for place, (a, b) in enumerate(pairs):
        difference = asdict(paired_bootstrap(figures[a], figures[b]))
        unlike = len(differing(figures[a], figures[b]))
        p = corrected[str(place)]
        rows.append(
            {
                "dataset": dataset,
                "checkpoint": which,
                "a": a,
                "b": b,
                "difference": difference,
                "p": p_values[str(place)],
                "p_holm": p,
                "differing": unlike,
                "least_p": min(1.0, 2.0 ** (1 - unlike)),
                "verdict": _verdict(difference, p),
            }
        )
    return rows


def _verdict(difference: Mapping[str, Any], p: float) -> str:
    if p > LEVEL or difference["low"] <= 0 <= difference["high"]:
        return ALIKE
    return BETTER if difference["mean"] > 0 else WORSE
