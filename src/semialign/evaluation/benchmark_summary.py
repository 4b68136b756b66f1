"""From the records of runs to figures: spread over seeds, difference to the baseline, share of the gap closed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from semialign.evaluation.benchmark_cases import (
    CHECKPOINTS,
    Record,
    case_means,
    checkpoint_of,
    drawn_figures,
    patients,
)
from semialign.evaluation.groups import class_groups, group_figures
from semialign.evaluation.statistics import gap_closed, paired_bootstrap, spread, standard_error

AVERAGED = ("hd95", "asd")
COSTS = ("training_seconds", "predict_seconds", "steps", "parameters", "peak_memory_bytes", "peak_gpu_bytes")
COUNTED = ("scored", "absent", "missed", "spurious")


def summarise(
    records: Sequence[Record], *, entries: Sequence[str], baseline: str | None, ceiling: str | None
) -> list[dict[str, Any]]:
    """Return a JSON-ready row per data set and entry that has a finished or failed run, in the order given.

    A row holds ``seeds`` and ``failed`` (seed to reason), ``training_seconds``, ``predict_seconds`` (a case),
    ``steps``, ``parameters``, ``peak_memory_bytes`` (of the process) and ``peak_gpu_bytes``, each as median, minimum,
    maximum and mean over seeds, ``given`` (another tool's predictions), and for each of ``checkpoints`` (last, best):
    ``dice`` (the same, of each run's mean over classes and cases), ``classes``, ``hd95`` and ``asd`` (mean over seeds
    of the means of finite distances; ``spread`` holds the rest) with ``infinite`` (how many distances that leaves out,
    over all seeds), ``counts`` of scored, absent, missed and spurious, ``standard_error`` of the mean Dice over the
    ``drawn`` cases (patients under ``group_by``), ``difference`` to the baseline and
    ``gap_closed``; ``None`` where there is nothing to compare with.

    ``groups``, beside these: head, middle and tail of the classes with figures of the same names, ``classes`` their
    members, ``averaged`` the least number of them that the distances of a run could be averaged over. They follow the
    labelled cases of the baseline's run, the same for all entries of a data set.
    """
    rows = []
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        of_entry = {e: [r for r in records if r["dataset"] == dataset and r["entry"] == e] for e in entries}
        done = {entry: [r for r in of if r["state"] == "finished"] for entry, of in of_entry.items()}
        groups = _groups(done, baseline)
        floor, top = done.get(baseline or "", []), done.get(ceiling or "", [])
        for entry in (entry for entry, of in of_entry.items() if of):
            row = _row(of_entry[entry], done[entry])
            for which, figures in row["checkpoints"].items():
                compared = [] if entry == baseline else [r for r in floor if checkpoint_of(r, which)]
                figures["difference"] = _difference(done[entry], compared, which)
                figures["gap_closed"] = None if entry in (baseline, ceiling) else _gap(done[entry], floor, top, which)
                figures["groups"] = _grouped(done[entry], compared, which, groups)
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
        "given": bool(first.get("given")),
        "commits": sorted({r["commit"] for r in finished if r.get("commit") and not r.get("given")}),
        "machines": sorted({r["machine"] for r in finished if r["machine"]}),
        "side_by_side": max((r.get("side_by_side") or 1 for r in finished), default=1),
        **{key: _spread([r.get(key) for r in finished]) for key in COSTS},
    }
    everywhere = [w for w in CHECKPOINTS if finished and all(w in r["checkpoints"] for r in finished)]
    return kept | {"checkpoints": {which: _figures(finished, which) for which in everywhere}}


def _figures(finished: Sequence[Record], which: str) -> dict[str, Any]:
    summaries = [r["checkpoints"][which]["summary"] for r in finished]
    means = [summary["mean"] for summary in summaries]
    drawn = patients(case_means(finished, which), finished[0]["group_by"])
    classes = [of for summary in summaries for of in summary["classes"].values()]
    return {
        "dice": _spread([mean["dice"] for mean in means]),
        **{metric: _mean([mean[metric] for mean in means]) for metric in AVERAGED},
        "spread": {metric: _spread([mean[metric] for mean in means]) for metric in AVERAGED},
        "counts": {status: sum(of[status] for of in classes) for status in COUNTED},
        "infinite": sum(summary["infinite"] for summary in summaries),
        "standard_error": standard_error(list(drawn.values())),
        "drawn": len(drawn),
        "classes": {name: _class([s["classes"][name] for s in summaries]) for name in summaries[0]["classes"]},
        **{key: summaries[0][key] for key in ("units", "rule", "rule_text")},
    }


def _class(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = ("dice", *AVERAGED)
    figures: dict[str, Any] = {m: _mean([entry[m]["mean"] for entry in entries]) for m in metrics}
    figures["spread"] = {m: _spread([entry[m]["mean"] for entry in entries]) for m in metrics}
    return figures | {status: sum(entry[status] for entry in entries) for status in COUNTED}


def _gap(ours: Sequence[Record], floor: Sequence[Record], ceiling: Sequence[Record], which: str) -> float | None:
    method, low, high = (
        _mean([found["summary"]["mean"]["dice"] for r in of if (found := checkpoint_of(r, which))])
        for of in (ours, floor, ceiling)
    )
    return None if method is None or low is None or high is None else gap_closed(method, low, high)


def _groups(done: Mapping[str, Sequence[Record]], baseline: str | None) -> dict[str, tuple[str, ...]]:
    # Every entry on the split's labels has the baseline's fingerprint; the ceiling has seen labels that they have not.
    runs = [*done.get(baseline or "", ()), *(r for of in done.values() for r in of if r["labels"] == "split")]
    known = (r["class_frequencies"] for r in runs if r.get("class_frequencies"))
    return class_groups(next(known, {}))


def _grouped(
    ours: Sequence[Record], floor: Sequence[Record], which: str, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    metrics = ("dice", *AVERAGED)
    runs = [group_figures(r["checkpoints"][which]["summary"]["classes"], groups, metrics=metrics) for r in ours]
    found: dict[str, Any] = {}
    for group in runs[0]:
        of = [run[group] for run in runs]
        found[group] = {
            "classes": of[0]["classes"],
            "dice": _spread([figures["dice"] for figures in of]),
            **{metric: _mean([figures[metric] for figures in of]) for metric in AVERAGED},
            "spread": {metric: _spread([figures[metric] for figures in of]) for metric in AVERAGED},
            "averaged": {metric: min(figures["averaged"][metric] for figures in of) for metric in AVERAGED},
            **{key: sum(figures[key] for figures in of) for key in (*COUNTED, "infinite")},
            "difference": _difference(ours, floor, which, of[0]["classes"]),
        }
    return found


def _difference(
    ours: Sequence[Record], floor: Sequence[Record], which: str, classes: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Mean difference with its interval over cases, every case averaged over seeds first; ``None`` without ``floor``.

    ``classes``: of these alone. ``drawn``: cases or, under ``group_by``, patients.
    """
    if not floor:
        return None
    pattern = ours[0]["group_by"]
    found = paired_bootstrap(*(drawn_figures(of, which, pattern, classes) for of in (ours, floor)))
    return asdict(found) | {"drawn": "patients" if pattern else "cases"}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    kept = [value for value in values if value is not None]
    if not kept:
        return dict.fromkeys(("median", "minimum", "maximum", "mean")) | {"runs": 0}
    return asdict(spread(kept)) | {"mean": float(np.mean(kept))}


def _mean(values: Sequence[float | None]) -> float | None:
    return _spread(values)["mean"]  # type: ignore[no-any-return]
