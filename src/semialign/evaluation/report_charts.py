"""Accessible line charts of the report page as inline SVG.

Colours are CSS variables, so that light, dark and paper each get readable ones; text alternatives name the values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from semialign.evaluation.report_tables import human

POINTS = 400  # more cannot be told apart at this width
_DASHES = ("", "7 3", "2 3")
_DIVISIBLE = ("minute",)  # what a chart may run over in parts
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 38


@dataclass(frozen=True)
class Series:
    """One line: its name, values ``y`` at ``x`` (NaN leaves a gap) and its colour; ``slot`` counts classes from 1."""

    name: str
    x: np.ndarray
    y: np.ndarray
    slot: int = 0

    @property
    def colour(self) -> str:
        """The line's colour as CSS; slot 0 is the colour of the text."""
        return f"var(--c{(self.slot - 1) % 16 + 1})" if self.slot else "currentColor"

    @property
    def dash(self) -> str:
        """The line's dashes, so that neighbours in colour differ in more than colour."""
        return _DASHES[(self.slot - 1) // 3 % 3] if self.slot else ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    log: bool = False,
    bounds: tuple[float, float] | None = None,
    marked: tuple[float, str] | None = None,
    size: tuple[int, int] = (420, 250),
    keyed: bool = True,
    across: str = "step",
    keys: Sequence[Series] | None = None,
) -> str:
    """Return a figure with the series over training steps, or '' where no value is finite.

    ``log``: logarithmic values (those not above 0 are left out). ``bounds``: limits the value axis is clipped to.
    ``marked``: a step to mark with a dashed line, and its words. ``keyed``: with a legend, where there are several, of
    ``keys`` if given. ``across``: what is counted along the other axis, in a word.
    """
    series = [downsampled(_finite(line, log)) for line in series]
    series = [line for line in series if np.isfinite(line.y).any()]
    if not series:
        return ""
    width, height = size
    xs = np.concatenate([line.x for line in series])
    ys = np.concatenate([line.y for line in series])
    x_low, x_high = _widened(float(np.nanmin(xs)), float(np.nanmax(xs)), whole=True)
    y_ticks, y_low, y_high = _value_axis(float(np.nanmin(ys)), float(np.nanmax(ys)), log, bounds)
    to_y = np.log10 if log else np.asarray
    series = [replace(line, y=np.clip(line.y, y_low, y_high)) for line in series] if bounds else series

    def at_x(value: float) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (value - x_low) / (x_high - x_low)

    def at_y(value: float) -> float:
        share = (to_y(value) - to_y(y_low)) / (to_y(y_high) - to_y(y_low))
        return float(_TOP + (height - _TOP - _BOTTOM) * (1 - share))

    x_ticks = [t for t in ticks(x_low, x_high, 6) if across in _DIVISIBLE or t == int(t)]
    parts = _axes(size, y_ticks, at_y, x_ticks, at_x, across)
    if marked is not None and x_low <= marked[0] <= x_high:
        parts.append(_mark(marked[1], at_x(marked[0]), size))
    parts += [_line(line, at_x, at_y, across) for line in series]
    spoken = f"{title}, {human(x_low)} to {human(x_high)} {across}s. " + "; ".join(_spoken(line) for line in series)
    svg = svg_image(size, spoken, parts)
    told = legend(keys or series) if keyed and len(series) > 1 else ""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{svg}{told}</figure>'


def downsampled(line: Series, points: int = POINTS) -> Series:
    """Return the line with at most ``points`` points, each the mean of its neighbours (NaN left out of the mean)."""
    if len(line.x) <= points:
        return line
    edges = np.linspace(0, len(line.x), points + 1).astype(int)[:-1]
    good = np.isfinite(line.y)
    count = np.add.reduceat(good, edges).astype(float)
    total = np.add.reduceat(np.where(good, line.y, 0.0), edges)
    y = np.divide(total, count, out=np.full(points, np.nan), where=count > 0)
    x = np.add.reduceat(line.x, edges) / np.diff(np.append(edges, len(line.x)))
    return Series(line.name, x, y, line.slot)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, some ``about`` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= about), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _finite(line: Series, log: bool) -> Series:
    y = np.asarray(line.y, float)
    keep = np.isfinite(y) & ((y > 0) | (not log))
    return Series(line.name, np.asarray(line.x, float), np.where(keep, y, np.nan), line.slot)


def _widened(low: float, high: float, whole: bool = False) -> tuple[float, float]:
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    spare = 1.0 if whole else (abs(low) * 0.1 or 0.5)
    return low - spare, high + spare


def _value_axis(
    low: float, high: float, log: bool, bounds: tuple[float, float] | None
) -> tuple[list[float], float, float]:
    """Return the ticks and limits of the value axis; limits fall on ticks where the scale is linear."""
    low, high = _widened(low, high)
    if log:
        low = max(low, 1e-300)
        decades = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        if len(decades) > 3:
            return decades[:: -(-len(decades) // 6)], decades[0], decades[-1]
        fine = [d * f for d in decades for f in (1, 2, 5)]
        bottom = max((t for t in fine if t <= low), default=low)
        top = min((t for t in fine if t >= high), default=high)
        return [t for t in fine if bottom <= t <= top], bottom, top
    apart = np.diff(ticks(low, high, 5))
    step = float(apart[0]) if len(apart) else high - low
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if bounds is not None and low < bounds[1] and high > bounds[0]:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return ticks(low, high, 6), low, high


def _axes(
    size: tuple[int, int],
    y_ticks: list[float],
    at_y: Callable[[float], float],
    x_ticks: list[float],
    at_x: Callable[[float], float],
    across: str,
) -> list[str]:
    width, height = size
    parts = []
    for tick in y_ticks:
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{_tick_text(tick)}</text>')
    for tick in x_ticks:
        x = at_x(tick)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{height - _BOTTOM}" y2="{height - _BOTTOM + 4}"/>'
        )
        parts.append(f'<text class="mid" x="{x:.1f}" y="{height - _BOTTOM + 17}">{_tick_text(tick)}</text>')
    parts.append(f'<text class="mid" x="{(_LEFT + width - _RIGHT) / 2}" y="{height - 5}">{across}</text>')
    base = height - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{base}" y2="{base}"/>')
    return parts


def _tick_text(value: float) -> str:
    size = abs(value)
    if size >= 1e9:
        return f"{value:.0e}".replace("e+", "e").replace("-", "−")
    if size >= 1000:
        scale, letter = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return f"{value / scale:g}{letter}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2g}".split("e") if "e" in f"{value:.2g}" else f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def _line(line: Series, at_x: Callable[[float], float], at_y: Callable[[float], float], across: str) -> str:
    good = np.isfinite(line.y)
    points = [(at_x(x), at_y(y)) if ok else None for x, y, ok in zip(line.x, line.y, good, strict=True)]
    path, alone = [], []
    for i, point in enumerate(points):
        if point is None:
            continue
        begins = i == 0 or points[i - 1] is None
        if begins and (i == len(points) - 1 or points[i + 1] is None):
            alone.append(i)
        path.append(f"{'M' if begins else 'L'}{point[0]:.1f} {point[1]:.1f}")
    style = f'stroke="{line.colour}"' + (f' stroke-dasharray="{line.dash}"' if line.dash else "")
    drawn = f'<path class="line{"" if line.slot else " main"}" {style} d="{"".join(path)}"/>'
    dots = range(len(points)) if len(points) <= 40 else alone
    for i in dots:
        if points[i] is not None:
            x, y = points[i] or (0.0, 0.0)
            where = round(float(line.x[i]), 0 if across == "step" else 1)
            told = f"{escape(line.name)}, {across} {human(where)}: {human(float(line.y[i]))}"
            drawn += f'<circle fill="{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{told}</title></circle>'
    return drawn


def _mark(words: str, x: float, size: tuple[int, int]) -> str:
    width, height = size
    side, shift = ("end", -5) if x > (_LEFT + width) / 2 else ("start", 5)
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        f'<text class="{side} told" x="{x + shift:.1f}" y="{height - _BOTTOM - 7}">{escape(words)}</text>'
    )


def _spoken(line: Series) -> str:
    good = line.y[np.isfinite(line.y)]
    return f"{line.name} from {human(float(good[0]))} to {human(float(good[-1]))}"


def svg_image(size: tuple[int, int], spoken: str, parts: Sequence[str]) -> str:
    """Return ``parts`` as an SVG image of that size; ``spoken`` is its text alternative."""
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(spoken)}">{"".join(parts)}</svg>'


def legend(series: Sequence[Series]) -> str:
    """Return the names of the series beside their lines."""
    items = "".join(
        f'<li><svg viewBox="0 0 22 8" aria-hidden="true"><path class="line{"" if line.slot else " main"}" '
        f'stroke="{line.colour}" stroke-dasharray="{line.dash or "none"}" d="M0 4H22"/></svg>{escape(line.name)}</li>'
        for line in sorted(series, key=lambda line: line.slot > 0)
    )
    return f'<ul class="legend">{items}</ul>'
