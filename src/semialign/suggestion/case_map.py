"""A map of the cases: the plane in which their features spread most, so that what is alike lies together."""

from collections.abc import Mapping
from html import escape

import numpy as np

from semialign.evaluation.report_charts import svg_image
from semialign.suggestion.results import Suggestion

_WIDTH, _HEIGHT, _EDGE = 540, 340, 26
_KINDS = (("unlabelled", "--muted", 3.0), ("labelled", "--c1", 6.0), ("chosen", "--c4", 6.0))


def map_of_cases(found: Suggestion, places: Mapping[str, np.ndarray]) -> str:
    """Return the map as HTML; '' for fewer than three cases. ``places``: (D,) by id, ``labelled/ID`` the labelled."""
    if len(places) < 3:
        return ""
    at, share = plane(np.stack(list(places.values())))
    low, high = at.min(0), at.max(0)
    room = np.array([_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE])
    scale = float((room / np.maximum(high - low, 1e-12)).min())  # one for both axes: distances stay distances
    spots = np.array([_WIDTH, _HEIGHT]) / 2 + (at - (low + high) / 2) * scale * [1, -1]
    order = {one.case: one.order for one in found.chosen}
    drawn: dict[str, list[str]] = {kind: [] for kind, _, _ in _KINDS}
    for name, (x, y) in zip(places, spots, strict=True):
        kind = "labelled" if name.startswith("labelled/") else "chosen" if name in order else "unlabelled"
        drawn[kind].append(_dot(kind, name.removeprefix("labelled/"), x, y, order.get(name)))
    stands = {case: one.case for one in found.chosen for case in one.stands_for}  # the last to be nearer
    spot = dict(zip(places, spots, strict=True))
    lines = [_line(spot[case], spot[by]) for case, by in stands.items() if case != by]
    parts = lines + [part for kind, _, _ in _KINDS for part in drawn[kind]]
    spoken = ", ".join(f"{len(drawn[kind])} {kind}" for kind, _, _ in _KINDS)
    legend = "".join(
        f'<li><svg viewBox="0 0 22 8" aria-hidden="true"><circle cx="11" cy="4" r="{min(radius, 4):g}" '
        f'style="fill:var({colour})"/></svg>{kind}</li>'
        for kind, colour, radius in _KINDS
    )
    return (
        f'<figure class="chart"><figcaption>A dot a case, a line to the chosen case that stands for it; '
        f"the plane holds {share:.0%} of the variance</figcaption>"
        f'{svg_image((_WIDTH, _HEIGHT), f"Map of cases: {spoken}", parts)}</figure><ul class="legend">{legend}</ul>'
    )


def plane(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return points (N, D) on their first two principal axes (N, 2), and the share of the variance these hold."""
    centred = points - points.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    at = np.zeros((len(points), 2))
    kept = min(2, len(sizes))
    at[:, :kept] = left[:, :kept] * sizes[:kept]
    total = float((sizes**2).sum())
    return at, float((sizes[:kept] ** 2).sum()) / total if total > 0 else 1.0


def _line(start: np.ndarray, stop: np.ndarray) -> str:
    (x1, y1), (x2, y2) = start, stop
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="stroke:var(--c4)" stroke-opacity=".4"/>'
    )


def _dot(kind: str, case: str, x: float, y: float, order: int | None) -> str:
    colour, radius = next((colour, radius) for name, colour, radius in _KINDS if name == kind)
    dot = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" style="fill:var({colour})" fill-opacity=".8">'
        f"<title>{escape(case)}, {kind}</title></circle>"
    )
    return dot + (f'<text class="told" x="{x + 9:.1f}" y="{y + 4:.1f}">{order}</text>' if order is not None else "")
