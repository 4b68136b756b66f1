"""Pictures of a case for the report page: image, label, prediction and difference, seen as a radiologist sees them.

The image of a view is stored once, as a PNG; overlays are transparent palette PNGs laid over it in SVG.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from semialign.evaluation.report_paint import HEAT, PALETTE, data_url, heat, letters, mark, overlay, png, swatch
from semialign.evaluation.report_tables import human, number
from semialign.evaluation.report_viewer import viewer
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
    unsure = f'<ul class="legend"><li class="lead">Entropy</li>{heat_key()}</ul>' if case.entropy is not None else ""
    return (
        f'<article class="case"><header><h3>{escape(case.title.capitalize())}: {escape(case.id)}</h3>'
        f"<p>{escape(case.part)} · Dice <strong>{number(case.dice)}</strong> · {_grid_words(case)}</p></header>"
        f'<div class="look">{viewer(case, names=names)}<ul class="legend">{classes}</ul></div>{rows}'
        f'<div class="keys"><ul class="legend"><li class="lead">Difference</li>{kinds}</ul>{unsure}</div></article>'
    )


def _grid_words(case: PictureCase) -> str:
    if case.label.ndim == 2:
        return f"{case.image.shape[2]} × {case.image.shape[1]} pixels"
    size = " × ".join(human(n) for n in case.image.shape[1:])
    return f"{size} voxels of {' × '.join(human(float(s)) for s in case.spacing)} mm"


def heat_key() -> str:
    """Return the items of a legend that say which entropy a colour is."""
    shown = {0: "0.06", len(HEAT) // 2: "0.5", len(HEAT) - 1: "1 bit or more"}
    return "".join(f"<li>{mark(HEAT[i])}{words}</li>" for i, words in shown.items())


def _row(view: View, difference: np.ndarray, name: str, case: PictureCase, classes: int) -> str:
    height, width = difference.shape
    about = f"case {case.id}, {view.name} {view.where}".strip()
    masks = [np.where((m > 0) & (m < classes), m, 0) for m in (view.label, view.prediction)]
    kinds = [colour for colour, _ in DIFFERENCE.values()]
    layers = [
        ("Image", f'<image id="{name}" width="{width}" height="{height}" href="{data_url(png(view.image))}"/>'),
        *(
            (words, f'<use href="#{name}"/>{_layer(drawn)}')
            for words, drawn in (
                ("Label", overlay(masks[0], list(PALETTE), [80] * len(PALETTE))),
                ("Prediction", overlay(masks[1], list(PALETTE), [80] * len(PALETTE))),
                ("Difference", overlay(difference, kinds, [50, 150, 150, 150, 110])),
                *([("Uncertainty", heat(view.entropy))] if view.entropy is not None else []),
            )
        ),
    ]
    tiles = "".join(
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}, {escape(about)}">'
        f"{drawn}{letters(view.edges, width, height)}</svg><figcaption>{words}</figcaption></figure>"
        for words, drawn in layers
    )
    caption = f"<h4>{view.name.capitalize()} <small>{view.where}</small></h4>" if view.edges else ""
    return f'{caption}<div class="tiles{" five" if view.entropy is not None else ""}">{tiles}</div>'


def _layer(picture: bytes) -> str:
    return f'<image width="100%" height="100%" href="{data_url(picture)}"/>'
