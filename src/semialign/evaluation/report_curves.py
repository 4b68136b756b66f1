"""The curves of the report page, from a run's ``log.csv`` and ``validation.csv``."""

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from semialign.evaluation.report_charts import Series, line_chart
from semialign.evaluation.report_tables import human, number

_NO_VALUE = ("step", "seconds", "stage", "loss", "epoch")
_SMALL = (270, 165)


def read_columns(path: Path | None) -> dict[str, np.ndarray]:
    """Return the numeric columns of a CSV file with a ``step`` column, steps rising; {} where there is nothing to read.

    What is no number becomes NaN. Where steps fall back, a stage began anew (the ``stage`` column changes; its steps
    are counted on from the last) or training was resumed (the later rows hold; the earlier ones are dropped).
    """
    rows = _rows(path)
    if not rows or "step" not in rows[0]:
        return {}
    kept: list[dict[str, float]] = []
    offset, stage = 0.0, rows[0].get("stage")
    for row in rows:
        values = {key: _float(text) for key, text in row.items() if key}
        if not np.isfinite(values["step"]):
            continue
        if row.get("stage") != stage:
            stage = row.get("stage")
            if kept and values["step"] + offset <= kept[-1]["step"]:
                offset = kept[-1]["step"] + 1
        values["step"] += offset
        while kept and kept[-1]["step"] >= values["step"]:
            kept.pop()
        kept.append(values)
    columns = {key: np.array([row.get(key, np.nan) for row in kept]) for key in rows[0] if key}
    return columns if kept else {}


def loss_terms(columns: Mapping[str, np.ndarray]) -> list[str]:
    """Return the columns that sum up to ``loss``: the terms; the values logged beside them are the rest.

    The terms stand first, so the shortest run of columns whose sum is the loss is sought; where none is, names decide.
    """
    names = [name for name in columns if name not in _NO_VALUE and not _is_rate(name)]
    total = columns.get("loss", np.array([]))
    good = np.isfinite(total)
    if names and good.any():
        values = np.stack([np.nan_to_num(columns[name][good], posinf=0.0, neginf=0.0) for name in names])
        apart = np.median(np.abs(values.cumsum(0) - total[good]), axis=1)
        # Rounding in the file leaves a little even for the right run; a small term left out leaves more.
        if apart.min() <= 2e-3 * np.median(np.abs(total[good])):
            return names[: 1 + int(np.argmax(apart <= 2 * apart.min() + 1e-9))]
    return [name for name in names if "loss" in name.lower()]


def training_curves(log: Path | None) -> tuple[str, str]:
    """Return the chart of losses and the charts of learning rate and other logged values; '' where there is no log."""
    columns = read_columns(log)
    if not columns:
        return "", ""
    steps = columns["step"]
    terms = loss_terms(columns)
    lines = [Series("total", steps, columns["loss"])] if "loss" in columns else []
    if not lines or len(terms) > 1:
        lines += [Series(heading, steps, columns[name], i + 1) for i, (name, heading) in enumerate(_shortened(terms))]
    log_scale = wide(lines)
    title = "Training loss" + (" and its terms" if len(lines) > 1 else "") + (" (log scale)" if log_scale else "")
    large = line_chart(lines, title=title, log=log_scale) + _broken(lines)
    rates = [name for name in columns if _is_rate(name)]
    rest = [name for name in columns if name not in (*terms, *rates, *_NO_VALUE)]
    small = line_chart(
        [Series(name, steps, columns[name], i + 1) for i, name in enumerate(rates)], title="Learning rate", size=_SMALL
    )
    others = [line_chart([Series(name, steps, columns[name], 1)], title=name, size=_SMALL) for name in rest]
    others = [chart for chart in others if chart]
    few = f'<div class="charts small">{small}{"".join(others[:5])}</div>' if small or others else ""
    many = (
        f'<details><summary>{len(others) - 5} more logged values</summary><div class="charts small">'
        f"{''.join(others[5:])}</div></details>"
        if len(others) > 5
        else ""
    )
    return large, few + many


def validation_curves(validation: Path | None, names: Sequence[str]) -> str:
    """Return the chart of validation Dice, mean and per class of ``names`` (foreground), or '' where there is none."""
    columns = read_columns(validation)
    if not columns:
        return ""
    steps = columns["step"]
    classes = {name[5:]: values for name, values in columns.items() if name.startswith("dice ")}
    slots = {name: i + 1 for i, name in enumerate(names)}
    lines = [Series(name, steps, values, slots.get(name, len(slots) + 1)) for name, values in classes.items()]
    mean = columns.get("mean_dice")
    if len(lines) == 1 and mean is not None:
        lines = []
    marked = None
    if mean is not None and np.isfinite(mean).any():
        best = int(np.nanargmax(np.where(np.isfinite(mean), mean, np.nan)))
        marked = (float(steps[best]), f"best {number(mean[best])}, step {human(round(float(steps[best])))}")
        lines.append(Series("mean", steps, mean))
    return line_chart(lines, title="Validation Dice", bounds=(0.0, 1.0), marked=marked)


def _rows(path: Path | None) -> list[dict[str, str]]:
    if path is None or not Path(path).is_file():
        return []
    with open(path, encoding="utf-8", errors="replace", newline="") as handle:
        return [row for row in csv.DictReader(handle, restval="") if any(row.values())]


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except (TypeError, ValueError):
        return float("nan")


def _is_rate(name: str) -> bool:
    return name.lower() in ("lr", "learning_rate") or name.lower().startswith("lr ")


def _shortened(terms: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, name.removeprefix("loss").strip(" _/.") or name) for name in terms]


def wide(lines: Sequence[Series]) -> bool:
    """Tell whether some line would lie flat on a linear axis: typical values or peaks some 30 times apart."""
    middles, peaks = [], []
    for line in lines:
        good = line.y[np.isfinite(line.y) & (line.y != 0)]
        if len(good):
            if (good < 0).any():
                return False
            middles.append(float(np.median(good)))
            peaks.append(float(good.max()))
    return bool(middles) and max(peaks) / min(middles) > 30


def _broken(lines: Sequence[Series]) -> str:
    total = next((line for line in lines if line.name == "total"), None)
    count = int((~np.isfinite(total.y)).sum()) if total is not None else 0
    if not count:
        return ""
    return f'<p class="bad">{escape(human(count))} logged losses are not finite (NaN or infinite).</p>'
