"""Bars and dots of the report page as inline SVG: class frequencies on a log axis, the Dice of single cases."""

import math
from html import escape

import numpy as np

from semialign.evaluation.report_charts import svg_image, ticks
from semialign.evaluation.report_tables import number

_RADIUS = 3.2  # of a dot
_ROOM = 21.0  # a dot may move so far from the middle of its row


def bar_chart(values: dict[str, float], *, title: str, slots: dict[str, int]) -> str:
    """Return horizontal bars of fractions on a log axis, so that rare classes stay visible; zeros get no bar."""
    positive = [v for v in values.values() if math.isfinite(v) and v > 0]
    low = 10.0 ** min(math.floor(math.log10(min(positive, default=0.1)) - 1e-9), -1)
    names, plot, row = 132, 206, 24
    height = row * len(values) + 30
    decades = [10.0**e for e in range(round(math.log10(low)), 1)]

    def at(value: float) -> float:
        return names + plot * (math.log10(min(value, 1.0)) - math.log10(low)) / -math.log10(low)

    parts = []
    for decade in decades[:: -(-len(decades) // 5)]:
        parts.append(f'<line class="grid" x1="{at(decade):.1f}" x2="{at(decade):.1f}" y1="4" y2="{height - 24}"/>')
        parts.append(f'<text class="mid" x="{at(decade):.1f}" y="{height - 9}">{percent(decade)}</text>')
    for i, (name, value) in enumerate(values.items()):
        shown = name if len(name) <= 18 else name[:17] + "…"
        colour = f"var(--c{(slots[name] - 1) % 16 + 1})" if slots.get(name) else "var(--muted)"
        y = 6 + i * row
        parts.append(
            f'<text class="end" x="{names - 8}" y="{y + 13}">{escape(shown)}<title>{escape(name)}</title></text>'
        )
        if math.isfinite(value) and value > 0:
            size = f'width="{max(at(value) - names, 1):.1f}" height="{row - 7}"'
            parts.append(f'<rect x="{names}" y="{y}" {size} fill="{colour}"/>')
        parts.append(f'<text x="{names + plot + 8}" y="{y + 13}">{percent(value)}</text>')
    spoken = f"{title}: " + "; ".join(f"{name} {percent(value)}" for name, value in values.items())
    svg = svg_image((420, height), spoken, parts)
    return f'<figure class="chart">{svg}<p class="hint">Logarithmic scale.</p></figure>'


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with two to three telling digits."""
    return f"{100 * fraction:.{2 if fraction < 0.01 else 3}g} %" if math.isfinite(fraction) else number(fraction)


def strip_chart(groups: dict[str, list[tuple[str, float]]], *, title: str, each: str = "case") -> str:
    """Return a row of dots a group along its Dice, with the median; ``groups`` maps a name to (case, Dice) pairs.

    ``each``: what a dot is, in a word.
    """
    width, row, left = 480, 54, 112
    height = row * len(groups) + 30
    lowest = min(dice for cases in groups.values() for _, dice in cases)
    low = min(max(math.floor(lowest * 10 - 0.2) / 10, 0.0), 0.8)

    def at(value: float) -> float:
        return left + (width - left - 16) * (min(max(value, low), 1.0) - low) / (1 - low)

    parts = []
    for tick in ticks(low, 1, 6):
        parts.append(f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="4" y2="{height - 24}"/>')
        parts.append(f'<text class="mid" x="{at(tick):.1f}" y="{height - 8}">{tick:g}</text>')
    spoken = []
    for i, (name, cases) in enumerate(groups.items()):
        middle = 4 + row * i + row / 2
        median = float(np.median([dice for _, dice in cases]))
        shown = name if len(name) <= 13 else name[:12] + "…"
        offsets = stacked([at(dice) for _, dice in cases])
        parts.append(
            f'<text class="end" x="{left - 10}" y="{middle + 4}">{escape(shown)}<title>{escape(name)}</title></text>'
        )
        parts += [
            f'<circle class="dot" cx="{at(dice):.1f}" cy="{middle + offset:.1f}" r="{_RADIUS}">'
            f"<title>{escape(case)}: {number(dice)}</title></circle>"
            for (case, dice), offset in zip(cases, offsets, strict=True)
        ]
        ends = f'x1="{at(median):.1f}" x2="{at(median):.1f}" y1="{middle - 22}" y2="{middle + 22}"'
        parts.append(f'<line class="median" {ends}><title>median {number(median)}</title></line>')
        spoken.append(f"{name}: {len(cases)} {each}s, median {number(median)}")
    svg = svg_image((width, height), f"{title}. " + "; ".join(spoken), parts)
    hint = f'<p class="hint">A dot a {each}, the line their median; hold the pointer over a dot for its name.</p>'
    return f'<figure class="chart strip"><figcaption>{escape(title)}</figcaption>{svg}{hint}</figure>'


def stacked(positions: list[float], *, room: float = _ROOM) -> list[float]:
    """Return how far each dot moves up or down, less than ``room``, so that neighbours cover one another little."""
    offsets = [0.0] * len(positions)
    seen: dict[int, int] = {}
    for i in sorted(range(len(positions)), key=positions.__getitem__):
        column = int(positions[i] // (2 * _RADIUS))
        rank = seen[column] = seen.get(column, -1) + 1
        up = (rank + 1) // 2 * 2 * _RADIUS % room
        offsets[i] = up if rank % 2 else -up
    return offsets
