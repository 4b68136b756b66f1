"""Averages over cases and classes, with the rule for classes that a case lacks stated beside them.

Four rules circulate in the literature and move the same predictions by points of Dice. Ours leaves absent classes out
and counts infinite distances; the published ones are here to read older tables by, never for our own figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semialign.common.errors import require_known
from semialign.evaluation.metrics import ABSENT, DISTANCES, OVERLAPS, SCORED, STATUSES, ClassScore
from semialign.evaluation.statistics import standard_error

METRICS = ("dice", "iou", "hd95", "asd", "nsd")


@dataclass(frozen=True)
class Rule:
    """What a class counts where label, prediction or both lack it: (Dice, IoU and NSD; HD95 and ASD).

    ``None`` leaves the figure out of the average. ``blank_is_zero``: a case whose whole prediction is background counts
    0 in everything, distances and absent classes too.
    """

    text: str
    absent: tuple[float | None, float | None]
    one_sided: tuple[float, float | None]
    blank_is_zero: bool = False


RULES = {
    "default": Rule(
        "absent classes left out; missed or spurious: Dice 0, distance infinite: counted, not averaged",
        absent=(None, None),
        one_sided=(0.0, None),
    ),
    # github.com/cicailalala/GALoss, utils/test_util.py: cal_metric and validation_all_case.
    "ga": Rule(
        "as GALoss scores: absent Dice 1, distance 0; missed or spurious Dice 0, distance 128; empty prediction all 0",
        absent=(1.0, 0.0),
        one_sided=(0.0, 128.0),
        blank_is_zero=True,
    ),
    # github.com/DeepMed-Lab-ECNU/MagicNet, code/utils/test_util.py: cal_metric.
    "magicnet": Rule(
        "as MagicNet scores: absent, missed or spurious Dice 0, distance 0", absent=(0.0, 0.0), one_sided=(0.0, 0.0)
    ),
    # github.com/xmed-lab/DHC, code/evaluate_Ntimes.py, and GenericSSL's: Dice is in percent there, but an absent class
    # is set to 1, so it counts one percent.
    "dhc": Rule(
        "as DHC scores: absent Dice 0.01, distance 0; missed or spurious Dice 0, distance 128",
        absent=(0.01, 0.0),
        one_sided=(0.0, 128.0),
    ),
}


def aggregate(cases: Mapping[str, Sequence[ClassScore]], rule: str = "default") -> dict[str, Any]:
    """Average the scores of many cases; every case lists the same classes.

    Returns a JSON-ready tree: ``rule``, ``rule_text``, ``cases`` (their number); ``classes``: by name, the ``value``,
    the numbers of cases ``scored``, ``absent``, ``missed``, ``spurious`` (they add up to all) and ``infinite``
    distances, and for each metric ``mean``, sample ``std``, ``median`` and ``count`` over cases (of finite distances);
    ``mean``: for each metric the mean over classes of those means; ``infinite`` in all; ``case_dice``: the spread of
    the cases' mean Dice with its ``standard_error``. ``None`` stands where nothing is averaged. The published rules
    replace the figures of lacking classes alone: surfaces, units and grid stay ours. :class:`UserError` for an unknown
    rule.
    """
    require_known(rule, RULES, "rule")
    counted = {case: _counted(scores, RULES[rule]) for case, scores in cases.items()}
    classes: dict[str, Any] = {}
    for place, score in enumerate(next(iter(cases.values()), ())):
        statuses = [scores[place].status for scores in cases.values()]
        figures = [rows[place] for rows in counted.values()]
        classes[score.name] = {
            "value": score.value,
            **{status: statuses.count(status) for status in STATUSES},
            "infinite": sum(status not in (SCORED, ABSENT) for status in statuses),
            **{metric: _moments([row[metric] for row in figures]) for metric in METRICS},
        }
    means = {metric: _mean([entry[metric]["mean"] for entry in classes.values()]) for metric in METRICS}
    return {
        "rule": rule,
        "rule_text": RULES[rule].text,
        "cases": len(cases),
        "classes": classes,
        "mean": means,
        "infinite": sum(entry["infinite"] for entry in classes.values()),
        "case_dice": _case_spread(list(case_dice(cases, rule).values())),
    }


def case_dice(
    cases: Mapping[str, Sequence[ClassScore]], rule: str = "default", *, nothing: float | None = None
) -> dict[str, float]:
    """Mean Dice over the classes of every case, under ``rule``.

    ``nothing``: what a case counts in which no class does (label and prediction rightly empty); ``None`` leaves it out.
    Give 1.0 to compare two methods case by case, since one may predict something where the other rightly does not.
    """
    require_known(rule, RULES, "rule")
    means = {case: _mean([row["dice"] for row in _counted(scores, RULES[rule])]) for case, scores in cases.items()}
    filled = {case: nothing if mean is None else mean for case, mean in means.items()}
    return {case: mean for case, mean in filled.items() if mean is not None}


def _counted(scores: Sequence[ClassScore], rule: Rule) -> list[dict[str, float | None]]:
    # The figures a rule averages, a row per class.
    if rule.blank_is_zero and not any(score.voxels_prediction for score in scores):
        return [dict.fromkeys(METRICS, 0.0) for _ in scores]
    rows: list[dict[str, float | None]] = []
    for score in scores:
        if score.status == SCORED:
            rows.append({metric: getattr(score, metric) for metric in METRICS})
        else:
            overlap, distance = rule.absent if score.status == ABSENT else rule.one_sided
            rows.append({**dict.fromkeys(OVERLAPS, overlap), **dict.fromkeys(DISTANCES, distance)})
    return rows


def _moments(values: Sequence[float | None]) -> dict[str, Any]:
    kept = [value for value in values if value is not None]
    return {
        "mean": _mean(kept),
        "std": float(np.std(kept, ddof=1)) if len(kept) > 1 else None,
        "median": float(np.median(kept)) if kept else None,
        "count": len(kept),
    }


def _case_spread(values: Sequence[float]) -> dict[str, Any]:
    ends = {"min": min(values, default=None), "max": max(values, default=None)}
    return {**_moments(values), **ends, "standard_error": standard_error(values)}


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return float(np.mean(kept)) if kept else None
