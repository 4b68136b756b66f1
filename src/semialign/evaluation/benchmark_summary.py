"""From the records of runs to figures: spread over seeds, difference to the baseline, share of the gap closed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from semialign.evaluation.statistics import gap_closed, mean_over_seeds, paired_bootstrap, spread, standard_error

Record = Mapping[str, Any]
CHECKPOINTS = ("last", "best")
AVERAGED = ("hd95", "asd")
COUNTED = ("scored", "absent", "missed", "spurious")


def summarise(
    records: Sequence[Record], *, entries: Sequence[str], baseline: str | None, ceiling: str | None
) -> list[dict[str, Any]]:
    """Return a JSON-ready row per data set and entry that has a finished or failed run, in the order given.

    A row holds ``seeds`` and ``failed`` (seed to reason), ``training_seconds`` and ``steps`` (median, minimum, maximum,
    mean over seeds), and for each of ``checkpoints`` (last, best): ``dice`` (the same, of each run's mean over classes
    and cases), ``classes``, ``hd95`` and ``asd`` (mean over seeds of the means of finite distances) with ``infinite``
    (how many distances that leaves out, over all seeds), ``standard_error`` of the mean Dice over the ``drawn`` cases
    (patients under ``group_by``), ``difference`` to the baseline and ``gap_closed``; ``None`` where there is nothing
    to compare with.
    """
    rows = []
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        of_entry = {e: [r for r in records if r["dataset"] == dataset and r["entry"] == e] for e in entries}
        done = {entry: [r for r in of if r["state"] == "finished"] for entry, of in of_entry.items()}
        floor, top = done.get(baseline or "", []), done.get(ceiling or "", [])
        for entry in (entry for entry, of in of_entry.items() if of):
            row = _row(of_entry[entry], done[entry])
            for which, figures in row["checkpoints"].items():
                figures["difference"] = None if entry == baseline else _difference(done[entry], floor, which)
                figures["gap_closed"] = None if entry in (baseline, ceiling) else _gap(done[entry], floor, top, which)
            rows.append(row)
    return rows


def _row(records: Sequence[Record], finished: Sequence[Record]) -> dict[str, Any]:
    first = records[0]
    same = ("dataset", "entry", "labels", "protocol", "cases", "group_by")
    kept = {key: first[key] for key in same} | {
        "method": first["settings"]["method"],
        "plugins": first["settings"]["training"]["plugins"],
        "seeds": [r["seed"] for r in finished],
        "failed": {str(r["seed"]): r["reason"] for r in records if r["state"] == "failed"},
        "machines": sorted({r["machine"] for r in finished}),
        "training_seconds": _spread([r["training_seconds"] for r in finished]),
        "steps": _spread([r["steps"] for r in finished]),
    }
    everywhere = [w for w in CHECKPOINTS if finished and all(w in r["checkpoints"] for r in finished)]
    return kept | {"checkpoints": {which: _figures(finished, which) for which in everywhere}}


def _figures(finished: Sequence[Record], which: str) -> dict[str, Any]:
    summaries = [r["checkpoints"][which]["summary"] for r in finished]
    means = [summary["mean"] for summary in summaries]
    drawn = _patients(_case_means([finished], which)[0], finished[0]["group_by"])
    return {
        "dice": _spread([mean["dice"] for mean in means]),
        **{metric: _mean([mean[metric] for mean in means]) for metric in AVERAGED},
        "infinite": sum(summary["infinite"] for summary in summaries),
        "standard_error": standard_error(list(drawn.values())),
        "drawn": len(drawn),
        "classes": {name: _class([s["classes"][name] for s in summaries]) for name in summaries[0]["classes"]},
        **{key: summaries[0][key] for key in ("units", "rule", "rule_text")},
    }


def _class(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {m: _mean([entry[m]["mean"] for entry in entries]) for m in ("dice", *AVERAGED)}
    return figures | {status: sum(entry[status] for entry in entries) for status in COUNTED}


def _gap(ours: Sequence[Record], floor: Sequence[Record], ceiling: Sequence[Record], which: str) -> float | None:
    method, low, high = (
        _mean([r["checkpoints"][which]["summary"]["mean"]["dice"] for r in of if which in r["checkpoints"]])
        for of in (ours, floor, ceiling)
    )
    return None if method is None or low is None or high is None else gap_closed(method, low, high)


def _difference(ours: Sequence[Record], floor: Sequence[Record], which: str) -> dict[str, Any] | None:
    """Mean difference with its interval over cases, every case averaged over seeds first.

    A case that lacks every class counts only where something is predicted on it; only cases that count in all runs of
    both entries are compared, ``left_out`` says how many are not. ``drawn``: cases or, under ``group_by``, patients.
    """
    floor = [record for record in floor if which in record["checkpoints"]]
    first, second = _case_means([ours, floor], which)
    if not first or not second:
        return None
    pattern = ours[0]["group_by"]
    found = paired_bootstrap(_patients(first, pattern), _patients(second, pattern))
    left_out = len({c for r in (*ours, *floor) for c in r["checkpoints"][which]["case_dice"]}) - len(first)
    return asdict(found) | {"drawn": "patients" if pattern else "cases", "left_out": left_out}


def _case_means(entries: Sequence[Sequence[Record]], which: str) -> list[dict[str, float]]:
    """Every case's mean over the seeds of each entry, for the cases that count in all runs of all entries."""
    runs = [[r["checkpoints"][which]["case_dice"] for r in of] for of in entries]
    common = sorted(set.intersection(*(set(run) for of in runs for run in of)))
    return [mean_over_seeds([{c: run[c] for c in common} for run in of]) if common else {} for of in runs]


def _patients(cases: Mapping[str, float], pattern: str | None) -> dict[str, float]:
    if pattern is None:
        return dict(cases)
    groups: dict[str, list[float]] = {}
    for case, value in cases.items():
        match = re.search(pattern, case)
        found = case if match is None else match.group(1) if match.groups() else match.group(0)
        groups.setdefault(found, []).append(value)
    return {group: float(np.mean(values)) for group, values in groups.items()}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    kept = [value for value in values if value is not None]
    if not kept:
        return dict.fromkeys(("median", "minimum", "maximum", "mean")) | {"runs": 0}
    return asdict(spread(kept)) | {"mean": float(np.mean(kept))}


def _mean(values: Sequence[float | None]) -> float | None:
    return _spread(values)["mean"]  # type: ignore[no-any-return]
