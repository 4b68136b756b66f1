"""The page of a suggestion: which cases, in which order, and pictures of why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from semialign.data.dataset import Case, read_case
from semialign.data.geometry import canonical_spacing, canonical_view
from semialign.evaluation.report_page import folded, versions_now, write_page
from semialign.evaluation.report_paint import data_url, heat, letters, outline, photo_url, swatch
from semialign.evaluation.report_pictures import heat_key
from semialign.evaluation.report_tables import human, number, table
from semialign.evaluation.report_viewer import BUDGET, viewer
from semialign.evaluation.report_views import PictureCase, View, views
from semialign.suggestion.case_map import map_of_cases
from semialign.suggestion.measuring import Maps, load_maps, measured_path, with_border
from semialign.suggestion.pool import Pool
from semialign.suggestion.results import Suggested, Suggestion

_ALL_VIEWERS = 8_000_000  # characters, so that the page opens on a phone
_HEAD = ("Case", "Unsureness", "Entropy, bits", "Disagreement, bits")


@dataclass(frozen=True)
class _Shown:
    """What every picture needs."""

    found: Suggestion
    pool: Pool
    names: Sequence[str]  # of the classes
    channels: int
    budget: int  # characters a viewer

    def picture(self, name: str) -> PictureCase:
        """Return a case; ``name``: its id, of a labelled one ``labelled/ID``."""
        labelled = name.startswith("labelled/")
        case = (self.pool.labelled if labelled else self.pool.unlabelled)[name.removeprefix("labelled/")]
        return _picture(case, _maps(self.found, name), self.channels)


def write_suggestion_page(
    found: Suggestion,
    pool: Pool,
    *,
    about: Mapping[str, Any],
    class_names: Sequence[str],
    channels: int,
    places: Mapping[str, np.ndarray],
) -> Path:
    """Write ``suggest.html`` into the suggestion's folder. ``places``: of all cases, ``labelled/ID`` the labelled."""
    path = found.folder / "suggest.html"
    facts = [
        ("Label next, of the unlabelled", f"{len(found.chosen)} of {about['unlabelled']}"),
        ("Labelled so far", str(len(pool.labelled))),
        ("Run", ", ".join(about["runs"])),
    ]
    budget = min(BUDGET, _ALL_VIEWERS // max(len(found.chosen), 1))
    shown = _Shown(found, pool, class_names, channels, budget)
    pictures = "".join(_article(one, shown) for one in found.chosen)
    used = sorted({int(v) for one in found.chosen for v in np.unique(_maps(found, one.case).prediction) if v > 0})
    key = "".join(f"<li>{swatch(value)}{escape(str(class_names[value]))}</li>" for value in used)
    key = f'<ul class="legend">{key}<li class="lead">Entropy</li>{heat_key()}</ul>'
    sections = {
        "Label these next": _order(found, about),
        "Why, in pictures": (_hint(shown) + key + pictures) if pictures else "",
        "How alike the cases are": map_of_cases(found, places),
        "All other unlabelled cases": _others(found),
        "Versions": versions_now(),
    }
    write_page(path, f"What to label next: {about['runs'][0]}", summary=facts, sections=sections)
    return path


def _order(found: Suggestion, about: Mapping[str, Any]) -> str:
    head = [*_HEAD, "Most alike", "Distance", "Stands for", "Gain"]
    rows = [
        [f"{one.order}: {escape(one.case)}", *_figures(one), _nearest(one), number(one.distance), *_gains(one)]
        for one in found.chosen
    ]
    compared = ", ".join(escape(str(name)) for name in about["compared"])
    notes = [
        *map(escape, found.notes),
        *(f'<span class="bad">not looked at: {escape(text)}</span>' for text in found.failed.values()),
        f"Disagreement is that of: {compared}.",
        "Unsureness: where a case stands among the unlabelled ones by entropy and disagreement, 1 the most unsure. "
        "Distance: to the most alike labelled or earlier chosen case, in the network's features; 1 is usual between "
        "two cases. Stands for: how many unlabelled cases, itself among them, are then more alike to it than to any "
        "labelled or earlier chosen one. Gain, the largest of which is chosen: how far the mean distance of the "
        "unlabelled cases, each weighted by its unsureness, falls. No label of these cases was opened.",
    ]
    return table(head, rows, css="numbers cases") + f'<ul class="notes">{"".join(f"<li>{n}</li>" for n in notes)}</ul>'


def _figures(one: Suggested) -> list[str]:
    return [number(one.unsureness), number(one.entropy), number(one.disagreement, 4)]


def _gains(one: Suggested) -> list[str]:
    return [str(len(one.stands_for)), number(one.gain)]


def _nearest(one: Suggested) -> str:
    return "–" if one.nearest is None else escape(f"{one.nearest} ({one.nearest_is})")


def _others(found: Suggestion) -> str:
    rows = [[escape(one.case), *_figures(one)] for one in found.others]
    made = table(_HEAD, rows, css="numbers cases", sortable=len(rows) > 1) if rows else ""
    return folded(f"{len(rows)} cases, the most unsure first", made)


def _hint(shown: _Shown) -> str:
    volumes = _maps(shown.found, shown.found.chosen[0].case).prediction.ndim == 3
    turned = (
        "The patient's right (R) is on the left; slices are those where the model is least sure. " if volumes else ""
    )
    return f'<p class="hint">{turned}Outlines show what the model predicts, every piece of it.</p>'


def _article(one: Suggested, shown: _Shown) -> str:
    case = shown.picture(one.case)
    volume = case.label.ndim == 3
    at = _least_sure(_maps(shown.found, one.case)) if volume else None
    rows = "".join(
        _row(view, f"s{one.order}-{i}", one.case, _beside(one, shown) if i == 0 else "")
        for i, view in enumerate(views(case, len(shown.names), at=at))
    )
    leaf = folded("Leaf through the slices", viewer(case, names=shown.names, budget=shown.budget)) if volume else ""
    size = " × ".join(human(n) for n in (case.image.shape[1:] if volume else case.image.shape[:0:-1]))
    return (
        f'<article class="case"><header><h3>{one.order}: {escape(one.case)}</h3><p>{escape(one.why)} {size} '
        f"{'voxels' if volume else 'pixels'}.</p></header>{rows}{leaf}</article>"
    )


def _beside(one: Suggested, shown: _Shown) -> str:
    """Return the tile of the most alike case, at its largest slice."""
    if one.nearest is None:
        return ""
    case = shown.picture(f"labelled/{one.nearest}" if one.nearest_is == "labelled" else one.nearest)
    view = views(case, len(shown.names))[0]
    words = f"Most alike: {one.nearest}, {one.nearest_is}"
    return _tile(view, f'<image {_size(view)} href="{photo_url(view.image)}"/>{_drawn(view)}', words, words)


def _row(view: View, name: str, case: str, beside: str) -> str:
    about = f"case {case}, {view.name} {view.where}".strip()
    assert view.entropy is not None
    again = f'<use href="#{name}"/>'
    layers = (
        ("Image", f'<image id="{name}" {_size(view)} href="{photo_url(view.image)}"/>'),
        ("Prediction", f"{again}{_drawn(view)}"),
        ("Entropy", f"{again}{_laid(heat(view.entropy))}"),
    )
    tiles = "".join(_tile(view, drawn, words, f"{words}, {about}") for words, drawn in layers)
    caption = f"<h4>{view.name.capitalize()} <small>{view.where}</small></h4>" if view.edges else ""
    return f'{caption}<div class="tiles">{tiles}{beside}</div>'


def _tile(view: View, drawn: str, words: str, about: str) -> str:
    height, width = view.prediction.shape
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">{drawn}'
        f"{letters(view.edges, width, height)}</svg><figcaption>{escape(words)}</figcaption></figure>"
    )


def _size(view: View) -> str:
    height, width = view.prediction.shape
    return f'width="{width}" height="{height}"'


def _drawn(view: View) -> str:
    return _laid(outline(view.prediction, dashed=False))


def _laid(picture: bytes) -> str:
    return f'<image width="100%" height="100%" href="{data_url(picture)}"/>'


def _maps(found: Suggestion, name: str) -> Maps:
    return load_maps(measured_path(found.folder, name))


def _picture(case: Case, maps: Maps, channels_wanted: int) -> PictureCase:
    image = read_case(case, channels_wanted)
    channels = image.array if len(image.array) in (1, 3) else image.array[:1]
    return PictureCase(
        id=case.id,
        part="unlabelled",
        image=canonical_view(channels, image.grid),
        label=np.zeros(maps.prediction.shape, np.uint8),
        prediction=maps.prediction,
        spacing=canonical_spacing(image.grid),
        dice=float("nan"),
        title="",
        entropy=maps.entropy,
        has_label=False,
    )


def _least_sure(maps: Maps) -> tuple[int, ...]:
    """Return the slice along each axis with most entropy, around what is predicted."""
    doubt = maps.entropy.astype(np.float32)
    if (maps.prediction > 0).any():
        box, around = with_border(maps.prediction > 0)
        inside = np.zeros_like(doubt)
        inside[box] = doubt[box] * around
        doubt = inside
    axes = range(doubt.ndim)
    return tuple(int(doubt.sum(tuple(a for a in axes if a != axis)).argmax()) for axis in axes)
