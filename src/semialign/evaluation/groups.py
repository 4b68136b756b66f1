"""Figures of groups: of classes by how much of the labelled training cases they fill (head, middle, tail); of cases."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data.splits import cases_by_match
from semialign.evaluation.aggregate import METRICS, aggregate
from semialign.evaluation.metrics import ClassScore

HEAD, MIDDLE, TAIL = "head", "middle", "tail"
COUNTS = ("scored", "absent", "missed", "spurious")
FINGERPRINT = "fingerprint.json"
RULE = (
    "groups by the classes' share of the voxels of the labelled training cases, cut at the widest gaps of its "
    "logarithm; a group's figure is the mean over its classes of their means"
)
_DIGITS = 9  # gaps of the natural logarithm that differ by less are equal: rounding must not decide


def class_groups(frequencies: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Group foreground classes by frequency: ``head``, ``middle``, ``tail``, each from frequent to rare.

    ``frequencies``: share of the labelled training cases' voxels, 0..1, background left out. The frequencies are sorted
    and cut at the two widest gaps of their logarithm; of equally wide gaps the one between rarer classes cuts. Equally
    frequent classes are never parted: two different frequencies give head and tail, one gives no groups. A class of
    frequency 0 is in no labelled case; it belongs to the tail, which is then never empty. The order of ``frequencies``
    decides nothing but the order of equally frequent classes within their group. ``ValueError`` for a frequency that is
    negative or no number.
    """
    wrong = [name for name, value in frequencies.items() if not (math.isfinite(value) and value >= 0)]
    if wrong:
        raise ValueError(f"frequency of {wrong[0]}: {frequencies[wrong[0]]} is no share of the voxels")
    order = sorted(frequencies, key=lambda name: -frequencies[name])
    present = [name for name in order if frequencies[name] > 0]
    logs = np.log([frequencies[name] for name in present])
    gaps = [round(float(gap), _DIGITS) for gap in logs[:-1] - logs[1:]]
    widest = sorted((place for place, gap in enumerate(gaps) if gap > 0), key=lambda place: (-gaps[place], -place))
    cuts = sorted(place + 1 for place in widest[:2])
    if not cuts and 0 < len(present) < len(order):
        cuts = [len(present)]
    if not cuts:
        return {}
    names = (HEAD, TAIL) if len(cuts) == 1 else (HEAD, MIDDLE, TAIL)
    ends = zip([0, *cuts], [*cuts, len(order)], strict=True)
    return {name: tuple(order[start:end]) for name, (start, end) in zip(names, ends, strict=True)}


def read_frequencies(path: Path) -> dict[str, float]:
    """Return the foreground classes' frequencies from a fingerprint, or from the run or prepared folder that holds one.

    Raises :class:`UserError` for a file that is missing or no fingerprint.
    """
    path = Path(path) / FINGERPRINT if Path(path).is_dir() else Path(path)
    value = read_json(path)
    found = value.get("class_frequencies") if isinstance(value, dict) else None
    shares = list(found.values()) if isinstance(found, dict) else []
    if not shares or not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares):
        raise UserError(f"{path}: holds no class frequencies; name a run's folder or its {FINGERPRINT}")
    assert isinstance(found, dict)
    return dict(list(found.items())[1:])  # the background is the first class of every data set


def group_figures(
    classes: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], *, metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the figures of every group from those of its classes, as :func:`aggregate` gives them.

    By group: ``classes`` (names, those that ``classes`` lacks left out; a group without any is left out too), for each
    of ``metrics`` the mean over classes of their means (``None`` where no class has one) and in ``averaged`` how many
    classes that took in, the sums of the numbers of cases ``scored``, ``absent``, ``missed``, ``spurious``, and of
    ``infinite`` distances, which no mean holds.
    """
    found: dict[str, dict[str, Any]] = {}
    for group, members in groups.items():
        entries = {name: classes[name] for name in members if name in classes}
        if not entries:
            continue
        means = {m: [e[m]["mean"] for e in entries.values() if e[m]["mean"] is not None] for m in metrics}
        counts = {key: sum(entry[key] for entry in entries.values()) for key in COUNTS}
        found[group] = {
            "classes": list(entries),
            **{metric: float(np.mean(values)) if values else None for metric, values in means.items()},
            "averaged": {metric: len(values) for metric, values in means.items()},
            **counts,
            "infinite": counts["missed"] + counts["spurious"],
        }
    return found


def case_group_figures(
    scores: Mapping[str, Sequence[ClassScore]], group_by: str | None, rule: str
) -> dict[str, dict[str, Any]]:
    """Return by group of cases (a source, a centre) their number as ``cases``, and what :func:`group_figures` gives.

    ``group_by``: a regular expression, see :func:`splits.cases_by_match`; none makes no groups.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, members in cases_by_match(scores, group_by).items() if group_by else ():
        classes = aggregate({case: scores[case] for case in members}, rule)["classes"]
        found[name] = {"cases": len(members), **group_figures(classes, {name: list(classes)}, metrics=METRICS)[name]}
    return found


def members_text(groups: Mapping[str, Sequence[str]]) -> str:
    """Return the groups in words: ``head: liver, spleen; tail: duodenum``."""
    return "; ".join(f"{group}: {', '.join(members)}" for group, members in groups.items())
