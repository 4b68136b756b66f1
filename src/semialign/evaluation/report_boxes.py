"""Box plots of the report page as inline SVG: how a score spreads over cases, a row per class or entry."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from semialign.evaluation.report_bars import stacked
from semialign.evaluation.report_charts import svg_image, ticks
from semialign.evaluation.report_tables import INFINITY, distance, number

Cases = Sequence[tuple[str, float]]
_WIDTH, _ROW, _LEFT, _RIGHT = 480, 36, 118, 50
_HALF = 9.0  # of a box's height
_DOTS = 80  # more would be a smear: then only what lies outside the whiskers is drawn
_LETTERS = 16


def box_plot(
    groups: Mapping[str, Cases],
    *,
    title: str,
    slots: Mapping[str, int],
    limits: tuple[float, float] | None = None,
    hint: str = "A dot a case",
) -> str:
    """Return a row of box and dots a group; ``groups`` maps a name to (case, value) pairs.

    Box: quartiles and median; whiskers: the furthest value within 1.5 times the box (Tukey). Infinite values are
    counted at the right. ``slots``: the groups' colours, counted from 1. ``limits``: of the axis; without any it runs
    from 0 to the largest. '' where no value is finite.
    """
    finite = {name: [(case, v) for case, v in cases if math.isfinite(v)] for name, cases in groups.items()}
    every = [value for cases in finite.values() for _, value in cases]
    if not every:
        return ""
    low, high = limits or (0.0, max(every) or 1.0)
    low = low if limits is None else max(low, math.floor(min(every) * 10 - 0.2) / 10)
    low = min(low, high - 0.1 * abs(high))
    height = _ROW * len(groups) + 30

    def at(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (min(max(value, low), high) - low) / (high - low)

    parts = []
    for tick in ticks(low, high, 6):
        parts.append(f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="4" y2="{height - 24}"/>')
        parts.append(f'<text class="mid" x="{at(tick):.1f}" y="{height - 8}">{tick:g}</text>')
    spoken = []
    show = number if limits else distance
    for i, (name, cases) in enumerate(finite.items()):
        middle = 4 + _ROW * (i + 0.5)
        shown = name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
        parts.append(
            f'<text class="end" x="{_LEFT - 8}" y="{middle + 4}">{escape(shown)}<title>{escape(name)}</title></text>'
        )
        infinite = sum(math.isinf(value) for _, value in groups[name])
        if infinite:
            parts.append(f'<text x="{_WIDTH - _RIGHT + 6}" y="{middle + 4}">+{infinite} × {INFINITY}</text>')
        colour = f"var(--c{(slots[name] - 1) % 16 + 1})" if slots.get(name) else "var(--accent)"
        parts += _row(cases, middle, colour, at, show) if cases else []
        spoken.append(_spoken(name, [value for _, value in cases], infinite, show))
    svg = svg_image((_WIDTH, height), f"{title}. " + "; ".join(spoken), parts)
    told = f'<p class="hint">{escape(hint)}; box: quartiles and median; whiskers: within 1.5 boxes.</p>'
    return f'<figure class="chart boxes"><figcaption>{escape(title)}</figcaption>{svg}{told}</figure>'


def quartiles(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Return lower whisker, lower quartile, median, upper quartile and upper whisker."""
    array = np.asarray(values, float)
    lower, middle, upper = (float(v) for v in np.percentile(array, (25, 50, 75)))
    reach = 1.5 * (upper - lower)
    inside = array[(array >= lower - reach) & (array <= upper + reach)]
    # A quartile between two values may lie beyond every value within reach.
    return min(float(inside.min()), lower), lower, middle, upper, max(float(inside.max()), upper)


def _row(cases: Cases, middle: float, colour: str, at: Callable[[float], float], show: Callable[..., str]) -> list[str]:
    least, lower, median, upper, most = quartiles([value for _, value in cases])
    parts = []
    if len(cases) > 2:
        parts.append(
            f'<g stroke="{colour}" fill="none"><path class="whisker" d="M{at(least):.1f} {middle}H{at(lower):.1f}'
            f"M{at(upper):.1f} {middle}H{at(most):.1f}M{at(least):.1f} {middle - 4}v8M{at(most):.1f} {middle - 4}v8"
            f'"/><rect class="box" x="{at(lower):.1f}" y="{middle - _HALF}" '
            f'width="{max(at(upper) - at(lower), 1):.1f}" height="{2 * _HALF}" fill="{colour}"/></g>'
        )
    chosen = [(c, v) for c, v in cases if len(cases) <= _DOTS or not least <= v <= most]
    offsets = stacked([at(value) for _, value in chosen], room=_HALF + 3)
    parts += [
        f'<circle class="case-dot" fill="{colour}" cx="{at(value):.1f}" cy="{middle + offset:.1f}" r="2.4">'
        f"<title>{escape(case)}: {show(value)}</title></circle>"
        for (case, value), offset in zip(chosen, offsets, strict=True)
    ]
    ends = f'x1="{at(median):.1f}" x2="{at(median):.1f}" y1="{middle - _HALF - 2}" y2="{middle + _HALF + 2}"'
    return [*parts, f'<line class="median" {ends}><title>median {show(median)}</title></line>']


def _spoken(name: str, values: Sequence[float], infinite: int, show: Callable[..., str]) -> str:
    more = f", {infinite} infinite" if infinite else ""
    if not values:
        return f"{name}: no value{more}"
    _, lower, median, upper, _ = quartiles(values)
    return (
        f"{name}: median {show(median)}, quartiles {show(lower)} to {show(upper)}, "
        f"from {show(min(values))} to {show(max(values))}, {len(values)} cases{more}"
    )
