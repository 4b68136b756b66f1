"""Calibration on the report page: a reliability diagram per class, and a table of calibration errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from semialign.evaluation.calibration import EDGES, IN_QUESTION, Calibration
from semialign.evaluation.report_charts import svg_image, ticks
from semialign.evaluation.report_page import folded
from semialign.evaluation.report_tables import number, table

_SIZE, _LEFT, _TOP, _BOTTOM = 200, 34, 8, 36
_PLOT = _SIZE - _LEFT - 10
_FEWEST = 20  # voxels; a bin with fewer shows chance
_OPEN = 8  # more diagrams are folded


def calibration_section(found: Calibration, names: Sequence[str], *, swatch: Callable[[int], str], cases: str) -> str:
    """Return diagrams and table as HTML; ``names`` by class value, background first; ``cases``: which were counted."""
    values = [v for v in range(1, min(len(names), len(found.voxels))) if found.voxels[v, 1:].sum()]
    if not values:
        return ""
    diagrams = [_diagram(found, value, names[value]) for value in values]
    hint = (
        f'<p class="hint">Of the voxels to which the model gives a class with some probability (across), the share '
        f"that truly is of that class (up), {escape(cases)}. On the dashed diagonal the probability can be taken at "
        "its word; below it the model is too sure, above it not sure enough. Grey bars: voxels in each bin (log "
        f"scale); bins with fewer than {_FEWEST} are left out.</p>"
    )
    rest = diagrams[_OPEN:]
    more = folded(f"{len(rest)} more classes", f'<div class="charts dials">{"".join(rest)}</div>') if rest else ""
    return f'{hint}<div class="charts dials">{"".join(diagrams[:_OPEN])}</div>{more}{_table(found, names, swatch)}'


def _table(found: Calibration, names: Sequence[str], swatch: Callable[[int], str]) -> str:
    rows = []
    for value in range(1, min(len(names), len(found.voxels))):
        mean = found.mean(value)
        said, true = mean if mean is not None else (None, None)
        cells = [found.error(value), found.error(value, everywhere=True), said, true]
        digits = (3, 5, 3, 3)
        shown = [number(cell, places) for cell, places in zip(cells, digits, strict=True)]
        rows.append([f"{swatch(value)}{escape(names[value])}", *shown, _tendency(mean)])
    place = f"where the class has a probability of {IN_QUESTION:g} or more"
    head = [
        "Class",
        f'<abbr title="Expected calibration error {place}: mean gap between probability and truth">ECE</abbr>',
        '<abbr title="The same over all voxels, most of them easy background">ECE, all voxels</abbr>',
        f'<abbr title="Mean probability {place}">Probability</abbr>',
        '<abbr title="Share of these voxels that truly is of the class">True share</abbr>',
        "On the whole",
    ]
    return table(head, rows, css="numbers", sortable=len(rows) > 1)


def _tendency(mean: tuple[float, float] | None) -> str:
    if mean is None:
        return "–"
    gap = mean[0] - mean[1]
    return "even" if abs(gap) < 0.01 else "too sure" if gap > 0 else "not sure enough"


def _diagram(found: Calibration, value: int, name: str) -> str:
    voxels, colour = found.voxels[value, 1:], f"var(--c{(value - 1) % 16 + 1})"
    good = voxels >= _FEWEST
    said = found.probability[value, 1:][good] / voxels[good]
    true = found.hits[value, 1:][good] / voxels[good]
    base = _TOP + _PLOT

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + _PLOT * x, base - _PLOT * y

    parts = []
    for tick in (0.0, 0.5, 1.0):
        x, y = at(tick, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 5}" y="{y + 4:.1f}">{tick:g}</text>')
        parts.append(f'<text class="mid" x="{x:.1f}" y="{base + 14}">{tick:g}</text>')
    parts.append(f'<text class="mid" x="{_LEFT + _PLOT / 2}" y="{base + 29}">probability</text>')
    top = math.log10(max(int(voxels.max()), 10))
    for low, high, count in zip(EDGES[1:-1], EDGES[2:], voxels, strict=True):
        if count:
            tall = 0.25 * _PLOT * math.log10(count + 1) / top
            (x0, _), (x1, _) = at(low, 0), at(high, 0)
            size = f'width="{x1 - x0 - 0.6:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="amount" x="{x0:.1f}" y="{base - tall:.1f}" {size}/>')
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    parts.append(f'<path class="mark" fill="none" d="M{x0} {y0}L{x1} {y1}"/>')
    points = [at(float(x), float(y)) for x, y in zip(said, true, strict=True)]
    if points:
        parts.append(f'<path class="line" stroke="{colour}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
    for (x, y), p, share in zip(points, said, true, strict=True):
        told = f"probability {number(p, 2)}: {number(share, 2)} true"
        parts.append(f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{told}</title></circle>')
    error = found.error(value)
    svg = svg_image((_SIZE, base + _BOTTOM), _spoken(name, error, said, true), parts)
    return (
        f'<figure class="chart dial"><figcaption>{escape(name)} <small>ECE {number(error)}</small></figcaption>'
        f"{svg}</figure>"
    )


def _spoken(name: str, error: float | None, said: np.ndarray, true: np.ndarray) -> str:
    told = f"Reliability of {name}: expected calibration error {number(error)}"
    chosen = range(0, len(said), max(len(said) // 5, 1))
    points = ", ".join(f"at probability {number(said[i], 2)} {number(true[i], 2)} true" for i in chosen)
    return f"{told}; {points}" if points else told


def doubt_chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a chart of each case's Dice over its ``entropy`` (bits), or '' for fewer than three cases with both."""
    cases = [
        (str(row["id"]), float(row["entropy"]), float(row["dice"]))
        for row in rows
        if row.get("entropy") is not None and row.get("dice") is not None
    ]
    if len(cases) < 3:
        return ""
    width, height, left, base = 420, 230, 46, 188
    top = max(entropy for _, entropy, _ in cases) * 1.05 or 1.0
    low = max(math.floor(min(dice for *_, dice in cases) * 10 - 0.2) / 10, 0.0)

    def at(entropy: float, dice: float) -> tuple[float, float]:
        return left + (width - left - 14) * entropy / top, base - (base - 12) * (dice - low) / (1 - low)

    parts = []
    for tick in ticks(low, 1.0, 5):
        y = at(0, tick)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{left - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in ticks(0, top, 6):
        parts.append(f'<text class="mid" x="{at(tick, low)[0]:.1f}" y="{base + 17}">{tick:g}</text>')
    parts.append(
        f'<text class="mid" x="{(left + width) / 2}" y="{height - 5}">mean entropy of what is predicted, bits</text>'
    )
    for case, entropy, dice in cases:
        x, y = at(entropy, dice)
        told = f"<title>{escape(case)}: Dice {number(dice)}, {number(entropy)} bits</title>"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{told}</circle>')
    rank = _rank_correlation([entropy for _, entropy, _ in cases], [dice for *_, dice in cases])
    words = "" if rank is None else f"Rank correlation {number(rank, 2)} over {len(cases)} cases. "
    svg = svg_image((width, height), f"Dice over the model's uncertainty, a dot a case. {words}".strip(), parts)
    hint = (
        f"{words}A model that knows where it fails has its worst cases on the right. "
        "1 bit is a coin between two classes."
    )
    return (
        f'<div class="charts"><figure class="chart"><figcaption>Dice over uncertainty</figcaption>{svg}'
        f'<p class="hint">{hint}</p></figure></div>'
    )


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    from scipy.stats import spearmanr

    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)
