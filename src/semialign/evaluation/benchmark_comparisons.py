"""The tables of a benchmark beside its scores: verdicts on pairs, costs, and Dice against the number of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from semialign.evaluation.benchmark_cases import CHECKPOINTS
from semialign.evaluation.benchmark_pairs import ALIKE, BETTER, WORSE
from semialign.evaluation.benchmark_words import NONE, Table, duration, median, p_text

Rows = Sequence[Mapping[str, Any]]
_OPPOSITE = {BETTER: WORSE, WORSE: BETTER, ALIKE: ALIKE}


def pair_tables(value: Mapping[str, Any], dataset: str) -> list[Table]:
    """Return a matrix of verdicts a checkpoint, the row's entry against the column's."""
    return [table for which in CHECKPOINTS if (table := _matrix(value, dataset, which)).rows]


def _matrix(value: Mapping[str, Any], dataset: str, which: str) -> Table:
    pairs = [p for p in value["pairs"] if p["dataset"] == dataset and p["checkpoint"] == which]
    names = [name for name in value["entries"] if any(name in (p["a"], p["b"]) for p in pairs)]
    cells = {}
    for pair in pairs:
        mean, p = pair["difference"]["mean"], p_text(pair["p_holm"])
        cells[pair["a"], pair["b"]] = f"{pair['verdict']} ({mean:+.3f}, {p})"
        cells[pair["b"], pair["a"]] = f"{_OPPOSITE[pair['verdict']]} ({-mean:+.3f}, {p})"
    rows = tuple((row, *(cells.get((row, column), NONE) for column in names)) for row in names)
    title = f"Verdict on every pair, {which} checkpoint: the row's entry against the column's (Dice, corrected p)"
    return Table(title, ("entry", *(f"against {name}" for name in names)), rows, aside=which != CHECKPOINTS[0])


def cost_table(value: Mapping[str, Any], rows: Rows) -> Table:
    """Return the table of costs: medians over seeds."""
    body = []
    for row in rows:
        if not row["checkpoints"]:
            continue
        done, asked = len(row["seeds"]), len(row["seeds"]) + len(row["failed"])
        asked = max(asked, len(value["seeds"])) if not row.get("given") else asked
        time, steps, case, parameters = (
            row[key]["median"] for key in ("training_seconds", "steps", "predict_seconds", "parameters")
        )
        cells = [row["entry"], NONE if time is None else duration(time), NONE if steps is None else f"{steps:.0f}"]
        cells += [NONE if case is None else f"{case:.2f} s", _memory(row), _millions(parameters)]
        body.append((*cells, str(done) if done == asked else f"{done} of {asked}"))
    columns = ("entry", "training time a run", "steps a run", "prediction a case", "peak memory", "parameters", "seeds")
    return Table("Cost, medians over seeds", columns, tuple(body))


def series_of(value: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the data sets of every series, in the order of the file."""
    found: dict[str, list[str]] = {}
    for dataset, series in value.get("series", {}).items():
        found.setdefault(series, []).append(dataset)
    return found


def label_figures(value: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Return by entry the number of labelled cases and the Dice (last checkpoint), fewest labels first.

    Entries on all labels are left out: what they train on is no choice of the series.
    """
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for row in value["results"]:
        if row["dataset"] in datasets and row["labels"] == "split" and "last" in row["checkpoints"]:
            point = (row["cases"]["labelled"], row["checkpoints"]["last"]["dice"])
            found.setdefault(row["entry"], []).append(point)
    return {entry: sorted(points, key=lambda point: point[0]) for entry, points in found.items()}


def series_table(value: Mapping[str, Any], series: str, datasets: Sequence[str]) -> Table:
    """Return the table of Dice by number of labelled cases."""
    figures = label_figures(value, datasets)
    counts = sorted({count for points in figures.values() for count, _ in points})
    rows = []
    for entry, points in figures.items():
        told: dict[int, str] = {}
        for count, dice in points:  # several splits may have as many labels
            told[count] = f"{told[count]}; {median(dice)}" if count in told else median(dice)
        rows.append((entry, *(told.get(count, NONE) for count in counts)))
    title = f"Series {series}: test Dice by number of labelled cases, last checkpoint, median [lowest to highest]"
    return Table(title, ("entry", *(f"{count} labelled" for count in counts)), tuple(rows))


def _memory(row: Mapping[str, Any]) -> str:
    for key, where in (("peak_gpu_bytes", " on the GPU"), ("peak_memory_bytes", "")):
        if row[key]["median"] is not None:
            return f"{row[key]['median'] / 2**30:.2f} GiB{where}"
    return NONE


def _millions(count: float | None) -> str:
    if count is None:
        return NONE
    return f"{count / 1e6:.2f} M" if count >= 1e4 else f"{count:.0f}"
