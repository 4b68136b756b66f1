"""What a plug-in learned of the classes, from a run's ``proxies.csv``: curves per class and their similarity."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from semialign.evaluation.report_charts import Series, legend, line_chart, svg_image
from semialign.evaluation.report_curves import wide
from semialign.evaluation.report_tables import human, number

_FIGURES = ("norm", "spread", "share")
_COSINE = "cos "
_CELL, _LABELS, _SHOWN = (46, 26), 132, 18  # a cell's size, the room for class names, and their letters
# Purple, white, orange: told apart with any colour vision (ColorBrewer's PuOr).
_COLOURS = np.array([[84, 39, 136], [247, 247, 247], [179, 88, 6]], float)
_LISTED = 5


@dataclass(frozen=True)
class Proxies:
    """One network's classes over training; NaN stands where a figure is lacking.

    ``steps`` (T,), ``figures``: ``norm``, ``spread`` and ``share``, each (T, C); ``last``: the step of ``similarity``
    (C, C), the latest one that holds every class.
    """

    network: str
    classes: tuple[str, ...]
    steps: np.ndarray
    figures: Mapping[str, np.ndarray]
    last: float
    similarity: np.ndarray


def read_proxies(path: Path | None) -> Proxies | None:
    """Return what ``path`` says of its first network; ``None`` where there is nothing to read.

    Lines that lack columns or whose step is no number are skipped. Where steps fall back, training was resumed: the
    later rows hold.
    """
    rows = _rows(path)
    if not rows:
        return None
    network = rows[0]["network"]
    at: dict[float, dict[str, dict[str, str]]] = {}
    classes: list[str] = []
    for row in (row for row in rows if row["network"] == network):
        step = float(row["step"])
        if at and step < max(at):
            at = {earlier: of for earlier, of in at.items() if earlier < step}
        at.setdefault(step, {})[row["class"]] = row
        if row["class"] not in classes:
            classes.append(row["class"])
    steps = sorted(at)
    figures = {
        key: np.array([[_float(at[step].get(name, {}).get(key)) for name in classes] for step in steps])
        for key in _FIGURES
    }
    last = max((step for step in steps if len(at[step]) == len(classes)), default=steps[-1])
    cosines = [[_float(at[last].get(a, {}).get(_COSINE + b)) for b in classes] for a in classes]
    return Proxies(network, tuple(classes), np.array(steps), figures, last, np.array(cosines))


def proxy_charts(path: Path | None, names: Sequence[str]) -> str:
    """Return charts and matrix as HTML, or '' where there is nothing to draw.

    ``names``: the foreground classes in the order of their values, which gives them the colours of the other charts.
    """
    proxies = read_proxies(path)
    if proxies is None:
        return ""
    slots = {name: i + 1 for i, name in enumerate(names)}
    colours = [slots.get(name, len(slots) + 1) for name in proxies.classes]

    def lines(key: str) -> list[Series]:
        values = proxies.figures[key].T
        named = zip(proxies.classes, values, colours, strict=True)
        return [Series(name, proxies.steps, of_class, slot) for name, of_class, slot in named]

    shares, log = lines("share"), wide(lines("share"))
    charts = [
        line_chart(lines("norm"), title="Norm of each class's proxy", keyed=False),
        line_chart(lines("spread"), title="Spread of each class's proxy", keyed=False),
        line_chart(
            shares,
            title="Share of tokens each class attracts" + (" (log scale)" if log else ""),
            log=log,
            bounds=None if log else (0.0, 1.0),
            keyed=False,
        ),
    ]
    drawn = "".join(charts)
    keys = legend(lines("norm")) if drawn else ""
    about = (
        '<p class="hint">A proxy is the distribution of embeddings that stands for a class: the norm of its mean, and '
        f"the mean of its standard deviations. Network: {escape(proxies.network)}.</p>"
    )
    body = (f'<div class="charts">{drawn}</div>{keys}' if drawn else "") + _unwanted(proxies) + _matrix(proxies)
    return about + body if body else ""


def _unwanted(proxies: Proxies) -> str:
    # On a logarithmic axis a class without any token would only be missing.
    shares = proxies.figures["share"][proxies.steps == proxies.last][0]
    none = [escape(name) for name, share in zip(proxies.classes, shares, strict=True) if share == 0]
    if not none:
        return ""
    return f'<p class="bad">No token at step {human(int(proxies.last))}: {", ".join(none)}.</p>'


def _matrix(proxies: Proxies) -> str:
    """Return the similarity of the proxies as a heat map with its numbers."""
    if not np.isfinite(proxies.similarity).any():
        return ""
    count = len(proxies.classes)
    # Names stand slanted above their columns; the last one needs as much room to the right.
    top = 14 + round(0.72 * 6.6 * min(max(map(len, proxies.classes)), _SHOWN))
    size = _LABELS + _CELL[0] * count + top, top + _CELL[1] * count + 4
    parts = _names(proxies.classes, top)
    parts += [_cell(proxies, i, j, top) for i, j in np.ndindex(count, count)]
    title = f"Similarity of the proxies at step {human(int(proxies.last))}"
    svg = svg_image(size, f"{title}, cosines. {_spoken(proxies)}", parts)
    return (
        f'<figure class="chart heat" style="max-width:{size[0]}px"><figcaption>{title}</figcaption>'
        f'<div class="scroll"><div style="min-width:{round(0.85 * size[0])}px">{svg}</div></div>'
        '<p class="hint">Cosine of the proxies\' means: 1 alike (orange), 0 unrelated (white), −1 opposed (purple).'
        "</p></figure>"
    )


def _names(classes: Sequence[str], top: int) -> list[str]:
    parts = []
    for i, name in enumerate(classes):
        told = f"{escape(name if len(name) <= _SHOWN else name[: _SHOWN - 1] + '…')}<title>{escape(name)}</title>"
        x, y = _LABELS + _CELL[0] * (i + 0.5), top + _CELL[1] * (i + 0.5)
        parts.append(f'<text class="end told" x="{_LABELS - 8}" y="{y + 4:.1f}">{told}</text>')
        parts.append(f'<text class="told" transform="translate({x:.1f} {top - 6}) rotate(-45)">{told}</text>')
    return parts


def _cell(proxies: Proxies, i: int, j: int, top: int) -> str:
    value, (width, height) = float(proxies.similarity[i, j]), _CELL
    x, y = _LABELS + width * j, top + height * i
    fill, ink = _colours(value)
    told = f"{escape(proxies.classes[i])} and {escape(proxies.classes[j])}: {number(value)}"
    return (
        f'<rect x="{x}" y="{y}" width="{width - 1}" height="{height - 1}" fill="{fill}"><title>{told}</title></rect>'
        f'<text class="mid {ink}" x="{x + width / 2 - 0.5}" y="{y + height / 2 + 4}">{number(value, 2)}</text>'
    )


def _spoken(proxies: Proxies) -> str:
    values, classes = proxies.similarity, proxies.classes
    pairs = [(values[i, j], classes[i], classes[j]) for i in range(len(classes)) for j in range(i)]
    pairs = sorted((pair for pair in pairs if math.isfinite(pair[0])), reverse=True)
    if not pairs:
        return "No pair of classes has one."
    alike = "; ".join(f"{a} and {b} {number(value, 2)}" for value, b, a in pairs[:_LISTED])
    return f"Most alike: {alike}. Least: {pairs[-1][2]} and {pairs[-1][1]} {number(pairs[-1][0], 2)}"


def _colours(value: float) -> tuple[str, str]:
    """Return the fill of a cell, and the class of the text on it, which is dark on light and light on dark."""
    if not math.isfinite(value):
        return "var(--grid)", "told"
    share = min(max(value, -1.0), 1.0)
    end = _COLOURS[2] if share > 0 else _COLOURS[0]
    colour = _COLOURS[1] + abs(share) * (end - _COLOURS[1])
    linear = np.where(colour <= 10.31, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))  # WCAG 2: black and white contrast alike at 0.179
    return "#" + "".join(f"{round(v):02x}" for v in colour), "on-light" if luminance > 0.179 else "on-dark"


def _rows(path: Path | None) -> list[dict[str, str]]:
    if path is None or not Path(path).is_file():
        return []
    text = Path(path).read_text(encoding="utf-8", errors="replace").replace("\0", "")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a killed process may leave half a line
    whole = [row for row in reader if None not in row and None not in row.values()]
    wanted = {"step", "network", "class"}
    return [row for row in whole if wanted <= row.keys() and row["class"] and math.isfinite(_float(row["step"]))]


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
