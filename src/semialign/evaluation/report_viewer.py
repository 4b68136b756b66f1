"""Leafing through a case on the report page: axial slices with outlines of label and prediction, under a slider.

The first slice shown is part of the page; the others wait in it as data, for the script to lay in its place.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from semialign.evaluation.report_paint import heat, jpeg, letters, outline
from semialign.evaluation.report_views import PictureCase, View, stack

MOST_SLICES = 64
BUDGET = 2_000_000  # characters a case: three of them, with their tiles, stay well below 10 MB
# Name, words, whether shown at first; drawn in this order.
_LAYERS = (
    ("entropy", "uncertainty", False),
    ("label", "label (solid)", True),
    ("prediction", "prediction (dashed)", True),
)


def viewer(case: PictureCase, *, names: Sequence[str], budget: int = BUDGET) -> str:
    """Return the viewer of a case as HTML, about ``budget`` characters; ``names`` of all classes, background first."""
    views, first = stack(case, len(names), most=MOST_SLICES)
    shown: View | None = None
    slices: list[dict[str, Any]] = []
    for i, view in enumerate(views):
        shown = view if i == first else shown
        slices.append({"where": view.where, "told": _words(case, view, names), "layers": _layers(view, len(names))})
    assert shown is not None
    while len(slices) > 1 and sum(len(part) for of in slices for part in of["layers"]) > budget:
        slices, first = slices[first % 2 :: 2], first // 2
    return _page_part(case, shown, slices, first)


def _page_part(case: PictureCase, view: View, slices: Sequence[Mapping[str, Any]], first: int) -> str:
    height, width = view.label.shape
    about = f"Case {case.id}, {view.name}" + (" slices" if view.edges else "")
    start = slices[first]
    kinds = ["data:image/jpeg;base64,", *["data:image/png;base64,"] * len(_LAYERS)]
    visible = [True, *(shown for _, _, shown in _LAYERS)]
    images = "".join(
        f'<image data-layer="{name}" data-kind="{kind}" width="{width}" height="{height}"'
        + (f' href="{kind}{layer}"' if layer else "")
        + ("" if layer and seen else ' style="display:none"')
        + "/>"
        for name, kind, layer, seen in zip(
            ["", *(n for n, _, _ in _LAYERS)], kinds, start["layers"], visible, strict=True
        )
    )
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" data-about="{escape(about)}" '
        f'aria-label="{escape(f"{about}, {_spoken(start)}")}">{images}{letters(view.edges, width, height)}</svg>'
    )
    kept = json.dumps(slices, ensure_ascii=True).replace("<", "\\u003c")
    which = "Outlines: label solid, prediction dashed" if case.has_label else "Outline: prediction, dashed"
    caption = f'<p class="hint">{which}, in the colour of the class.</p>'
    return (
        f'<div class="viewer" style="--shape:{width / height:.4f}">{svg}'
        f'<div class="controls" hidden>{_slider(len(slices), first, about)}{_boxes(case)}</div>{caption}'
        f'<script type="application/json">{kept}</script></div>'
    )


def _slider(count: int, first: int, about: str) -> str:
    if count < 2:
        return ""
    return (
        f'<label class="leaf"><span>Slice</span><input type="range" min="0" max="{count - 1}" value="{first}" step="1" '
        f'aria-label="{escape(about)}"></label><output></output>'
    )


def _boxes(case: PictureCase) -> str:
    return "".join(
        f'<label><input type="checkbox" value="{name}"{" checked" if shown else ""}> {words}</label>'
        for name, words, shown in _LAYERS
        if {"entropy": case.entropy is not None, "label": case.has_label}.get(name, True)
    )


def _spoken(slice_: Mapping[str, Any]) -> str:
    return f"{slice_['where']}; {slice_['told']}" if slice_["where"] else str(slice_["told"])


def _words(case: PictureCase, view: View, names: Sequence[str]) -> str:
    def found(mask: np.ndarray) -> str:
        values = [int(v) for v in np.unique(mask) if 0 < v < len(names)]
        return ", ".join(str(names[v]) for v in values) or "nothing"

    label, prediction = found(view.label), found(view.prediction)
    if not case.has_label:
        return f"predicted: {prediction}"
    return f"labelled and predicted: {label}" if label == prediction else f"labelled: {label}; predicted: {prediction}"


def _layers(view: View, classes: int) -> list[str]:
    """Return image, entropy, label and prediction of a slice as base64; '' for a layer without anything."""
    masks = [np.where((m > 0) & (m < classes), m, 0) for m in (view.label, view.prediction)]
    entropy = "" if view.entropy is None else _text(heat(view.entropy))
    drawn = [_text(outline(mask, dashed=place == 1)) if mask.any() else "" for place, mask in enumerate(masks)]
    return [_text(jpeg(view.image)), entropy, *drawn]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
