"""The figures of a benchmark's page: Dice over seeds, cases and classes, against time and number of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semialign.evaluation.benchmark_comparisons import label_figures
from semialign.evaluation.report_bars import strip_chart
from semialign.evaluation.report_boxes import box_plot
from semialign.evaluation.report_charts import Series, line_chart
from semialign.evaluation.report_curves import read_columns
from semialign.evaluation.report_page import folded
from semialign.evaluation.statistics import mean_over_seeds

Record = Mapping[str, Any]
_UNLIKE = 1.1  # times as long in training as another entry


def dice_charts(runs: Sequence[Record], slots: Mapping[str, int]) -> str:
    """Return the figures of how test Dice spreads over seeds, cases and classes."""
    which = "last"  # every run has it, whether or not anything was set aside to choose by
    by_entry = {name: [run for run in runs if run["entry"] == name and which in run["checkpoints"]] for name in slots}
    by_entry = {name: of for name, of in by_entry.items() if of}
    seeds = {
        name: [(f"seed {run['seed']}", dice) for run in of if (dice := mean_dice(run, which)) is not None]
        for name, of in by_entry.items()
    }
    cases = {name: _over_seeds([run["checkpoints"][which]["case_dice"] for run in of]) for name, of in by_entry.items()}
    charts = (
        strip_chart(
            {name: found for name, found in seeds.items() if found},
            title="Mean test Dice of each seed, last checkpoint",
            each="seed",
        )
        if any(seeds.values())
        else ""
    )
    charts += box_plot(
        cases,
        title="Dice of each test case, mean over seeds, last checkpoint",
        slots=slots,
        limits=(0.0, 1.0),
    )
    return f'<div class="charts spaced">{charts}</div>{_class_charts(by_entry, slots, which)}' if charts else ""


def _class_charts(by_entry: Mapping[str, Sequence[Record]], slots: Mapping[str, int], which: str) -> str:
    names = dict.fromkeys(
        row["class"] for of in by_entry.values() for run in of for row in run["checkpoints"][which]["scores"]
    )
    charts = ""
    for name in names if len(names) > 1 else ():
        groups = {entry: _over_seeds([_class_dice(run, which, name) for run in of]) for entry, of in by_entry.items()}
        charts += box_plot(groups, title=f"Dice of {name}, mean over seeds", slots=slots, limits=(0.0, 1.0))
    return folded("Dice of each class", f'<div class="charts">{charts}</div>') if charts else ""


def _class_dice(run: Record, which: str, name: str) -> dict[str, float]:
    rows = run["checkpoints"][which]["scores"]
    return {row["case"]: row["dice"] for row in rows if row["class"] == name and row["dice"] is not None}


def _over_seeds(found: Sequence[Mapping[str, float]]) -> list[tuple[str, float]]:
    # A case that one seed leaves out (rightly empty) cannot be averaged over all of them.
    common = set.intersection(*(set(of) for of in found)) if found else set()
    means = mean_over_seeds([{case: of[case] for case in sorted(common)} for of in found]) if common else {}
    return list(means.items())


def mean_dice(run: Record, which: str) -> float | None:
    """Return a run's mean Dice over the test cases with the checkpoint ``which``; ``None`` where no class counts."""
    value = run["checkpoints"][which]["summary"]["mean"]["dice"]
    return None if value is None else float(value)


def time_charts(runs: Sequence[Record], slots: Mapping[str, int], output: Path) -> str:
    """Return the figures of Dice against training time: of validation cases as training went, of test cases at its end.

    The latter where training took unlike times: at equal time it would show the seeds once more.
    """
    return f'<div class="charts spaced">{charts}</div>' if (charts := _curves(runs, slots, output)) else ""


def _curves(runs: Sequence[Record], slots: Mapping[str, int], output: Path) -> str:
    lines = []
    for run in runs:
        columns = read_columns(output / run["folder"] / "validation.csv")
        if "mean_dice" in columns and "seconds" in columns:
            name = f"{run['entry']}, seed {run['seed']}"
            lines.append(Series(name, columns["seconds"] / 60, columns["mean_dice"], slots[run["entry"]]))
    chart = line_chart(
        lines,
        title="Validation Dice over training time (not the test cases'), a line a run",
        bounds=(0.0, 1.0),
        across="minute",
        keys=_keys(lines, slots),
    )
    return chart + _test_dice_over_time(runs, slots)


def _test_dice_over_time(runs: Sequence[Record], slots: Mapping[str, int]) -> str:
    took = {run["entry"]: run["training_seconds"] for run in runs if run.get("training_seconds")}
    if not took or max(took.values()) < _UNLIKE * min(took.values()):
        return ""
    dots = []
    for run in runs:
        dice, seconds = mean_dice(run, "last"), run.get("training_seconds")
        if dice is not None and seconds:
            told = run["entry"] if run.get("given") else f"{run['entry']}, seed {run['seed']}"
            dots.append(Series(told, np.array([seconds / 60]), np.array([dice]), slots[run["entry"]]))
    return line_chart(
        dots,
        title="Test Dice (last checkpoint) over training time, a dot a run",
        bounds=(0.0, 1.0),
        across="minute",
        keys=_keys(dots, slots),
    )


def _keys(lines: Sequence[Series], slots: Mapping[str, int]) -> list[Series]:
    """Return a line an entry for the legend, of the entries that have any."""
    drawn = {line.slot: line for line in lines}
    return [replace(drawn[slot], name=name) for name, slot in slots.items() if slot in drawn]


def label_chart(value: Mapping[str, Any], datasets: Sequence[str], slots: Mapping[str, int]) -> str:
    """Return the figure of test Dice against the number of labels, over the data sets of a series."""
    lines = []
    for entry, points in label_figures(value, datasets).items():
        known = [(count, dice["median"]) for count, dice in points if dice["median"] is not None]
        if known:
            x, y = (np.asarray(axis, float) for axis in zip(*known, strict=True))
            lines.append(Series(entry, x, y, slots[entry]))
    title = "Test Dice against the number of labels, last checkpoint, median over seeds"
    chart = line_chart(lines, title=title, bounds=(0.0, 1.0), across="labelled case")
    return f'<div class="charts spaced">{chart}</div>' if chart else ""
