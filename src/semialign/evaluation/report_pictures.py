"""Pictures of a case for the report page: image, label, prediction and difference, seen as a radiologist sees them.

The image of a view is stored once, as a PNG; overlays are transparent palette PNGs laid over it in SVG.
"""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

from semialign.evaluation.report_tables import human, number
from semialign.evaluation.report_views import (
    AGREED,
    CONFUSED,
    FALSE,
    MISSED,
    UNKNOWN,
    PictureCase,
    View,
    compared,
    views,
)

# Okabe and Ito's colours, brightened for grey images, and further ones; class 1 is the first.
PALETTE = (
    "#56b4e9", "#e69f00", "#00b585", "#e8590c", "#cc79a7", "#f0e442", "#4c7dff", "#e8e8e8",
    "#8dd35f", "#b25cff", "#ffb3a7", "#00d5d5", "#b8860b", "#ff4fa3", "#9fa8c9", "#7a9a01",
)  # fmt: skip
DIFFERENCE = {
    AGREED: ("#00b585", "agreement"),
    MISSED: ("#f0e442", "missed"),
    FALSE: ("#4f86ff", "false"),
    CONFUSED: ("#e8590c", "wrong class"),
    UNKNOWN: ("#808080", "not annotated"),
}


def case_figures(case: PictureCase, *, names: Sequence[str], number_of_case: int) -> str:
    """Return the pictures of a case as HTML; ``names`` of all classes, background first."""
    shown: set[int] = set()
    found: set[int] = set()
    rows = ""
    for i, view in enumerate(views(case, len(names))):
        difference = compared(view.label, view.prediction, len(names))
        shown |= {int(v) for mask in (view.label, view.prediction) for v in np.unique(mask) if 0 < v < len(names)}
        found |= {int(v) for v in np.unique(difference)} - {0}
        rows += _row(view, difference, f"p{number_of_case}-{i}", case, len(names))
    classes = "".join(f"<li>{swatch(value)}{escape(str(names[value]))}</li>" for value in sorted(shown))
    kinds = "".join(f"<li>{mark(colour)}{words}</li>" for kind, (colour, words) in DIFFERENCE.items() if kind in found)
    size = " × ".join(human(n) for n in case.image.shape[1:])
    spacing = " × ".join(human(float(s)) for s in case.spacing)
    grid = (
        f"{size} voxels of {spacing} mm"
        if case.label.ndim == 3
        else f"{case.image.shape[2]} × {case.image.shape[1]} pixels"
    )
    return (
        f'<article class="case"><header><h3>{escape(case.title.capitalize())}: {escape(case.id)}</h3>'
        f"<p>{escape(case.part)} · Dice <strong>{number(case.dice)}</strong> · {grid}</p></header>{rows}"
        f'<div class="keys"><ul class="legend">{classes}</ul>'
        f'<ul class="legend"><li class="lead">Difference</li>{kinds}</ul></div></article>'
    )


def swatch(value: int) -> str:
    """Return the colour mark of class ``value``, counted from 1."""
    return mark(PALETTE[(value - 1) % len(PALETTE)])


def mark(colour: str) -> str:
    """Return a small square of ``colour`` as HTML."""
    square = f'<rect width="10" height="10" fill="{colour}"/>'
    return f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{square}</svg>'


def _row(view: View, difference: np.ndarray, name: str, case: PictureCase, classes: int) -> str:
    height, width = difference.shape
    about = f"case {case.id}, {view.name} {view.where}".strip()
    masks = [np.where((m > 0) & (m < classes), (m - 1) % len(PALETTE) + 1, 0) for m in (view.label, view.prediction)]
    kinds = [colour for colour, _ in DIFFERENCE.values()]
    layers = [
        ("Image", f'<image id="{name}" width="{width}" height="{height}" href="{_data(_png(view.image))}"/>'),
        *(
            (words, f'<use href="#{name}"/>{_layer(overlay)}')
            for words, overlay in (
                ("Label", _overlay(masks[0], list(PALETTE), [80] * len(PALETTE))),
                ("Prediction", _overlay(masks[1], list(PALETTE), [80] * len(PALETTE))),
                ("Difference", _overlay(difference, kinds, [50, 150, 150, 150, 110])),
            )
        ),
    ]
    tiles = "".join(
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}, {escape(about)}">'
        f"{drawn}{_letters(view.edges, width, height)}</svg><figcaption>{words}</figcaption></figure>"
        for words, drawn in layers
    )
    caption = f"<h4>{view.name.capitalize()} <small>{view.where}</small></h4>" if view.edges else ""
    return f'{caption}<div class="tiles">{tiles}</div>'


def _overlay(mask: np.ndarray, colours: list[str], fills: list[int]) -> bytes:
    """Return a transparent PNG of ``mask`` (rows, columns; 0 is nothing): value v in ``colours[v - 1]``, outlined."""
    padded = np.pad(mask, 2, mode="edge")
    height, width = mask.shape
    edge = np.zeros(mask.shape, bool)
    for distance in (1, 2):
        for down, right in ((distance, 0), (-distance, 0), (0, distance), (0, -distance)):
            edge |= padded[2 + down : 2 + down + height, 2 + right : 2 + right + width] != mask
    indices = np.where(mask > 0, 2 * mask - 1 + edge, 0).astype(np.uint8)
    palette, alpha = [0, 0, 0], [0]
    for colour, fill in zip(colours, fills, strict=True):
        palette += 2 * list(bytes.fromhex(colour[1:]))
        alpha += [fill, 255]
    return _png(indices, palette=palette, alpha=bytes(alpha))


def _png(image: np.ndarray, palette: list[int] | None = None, alpha: bytes | None = None) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    kept = io.BytesIO()
    if palette is None:
        picture.save(kept, "PNG", optimize=True)
    else:
        picture.putpalette(palette)
        picture.save(kept, "PNG", optimize=True, transparency=alpha)
    return kept.getvalue()


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _layer(png: bytes) -> str:
    return f'<image width="100%" height="100%" href="{_data(png)}"/>'


def _letters(edges: str, width: int, height: int) -> str:
    if not edges:
        return ""
    # Drawn at about 12 pixels whatever the view's own size; tiles are some 260 wide and at most 340 high.
    unit = max(width / 260, height / 340)
    # In a low view, letters in the middle of its upper and lower edge would stand on the structure.
    middle = width / 2 if height > 110 * unit else 34 * unit
    side, across = height / 2 + 4 * unit, 9 * unit
    places = ((middle, 15 * unit), (across, side), (middle, height - 6 * unit), (width - across, side))
    style = f'class="edge" font-size="{12 * unit:.1f}" stroke-width="{2.5 * unit:.1f}"'
    return "".join(f'<text {style} x="{x:.1f}" y="{y:.1f}">{e}</text>' for e, (x, y) in zip(edges, places, strict=True))
