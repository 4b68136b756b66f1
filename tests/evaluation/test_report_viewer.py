"""The slices under the slider: which, which way up, how large, and outlines that stand side by side."""

import base64
import io
import json
import re
from typing import Any

import numpy as np
from PIL import Image

from semialign.evaluation.report_paint import PALETTE, heat, outline, overlay
from semialign.evaluation.report_viewer import BUDGET, MOST_SLICES, viewer
from semialign.evaluation.report_views import PictureCase

NAMES = ["background", "one", "two"]


def case_of(label: np.ndarray, **changes: Any) -> PictureCase:
    values = {"prediction": label, "image": label[None].astype(np.float32), "entropy": None} | changes
    return PictureCase("a", "test", label=label, spacing=(1.0,) * label.ndim, dice=1.0, title="best", **values)


def slices(html: str) -> list[dict[str, Any]]:
    (kept,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    return list(json.loads(kept))


def pixels(layer: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(layer))).convert("RGBA"))


def test_every_slice_is_there_and_the_fullest_one_shown_first() -> None:
    label = np.zeros((30, 20, 12), int)
    label[5:9, 5:9, 3], label[4:16, 4:16, 8], label[9, 9, 9] = 1, 1, 2
    html = viewer(case_of(label), names=NAMES)
    found = slices(html)
    assert [of["where"].split(",")[0] for of in found] == [f"slice {i} of 12" for i in range(1, 13)]
    assert 'max="11" value="8"' in html
    assert "Case a, axial slices, slice 9 of 12; labelled and predicted: one" in html
    assert [of["told"] for of in found][9] == "labelled and predicted: two"
    drawn = [bool(of["layers"][2]) for of in found]
    assert [i for i, there in enumerate(drawn) if there] == [3, 8, 9]


def test_slices_are_the_right_way_up() -> None:
    label = np.zeros((40, 40, 9), int)
    label[25:38, 28:38, 4] = 1  # right and anterior, which is left and up
    (layer,) = {of["layers"][2] for of in slices(viewer(case_of(label), names=NAMES)) if of["layers"][2]}
    rows, columns = np.nonzero(pixels(layer)[..., 3])
    assert rows.max() < pixels(layer).shape[0] / 2
    assert columns.max() < pixels(layer).shape[1] / 2


def test_a_tall_volume_is_thinned_and_keeps_its_fullest_slice() -> None:
    label = np.zeros((8, 8, 301), int)
    label[2:6, 2:6, 150:160], label[1:7, 1:7, 157] = 1, 1
    html = viewer(case_of(label), names=NAMES)
    found = slices(html)
    assert MOST_SLICES / 2 < len(found) <= MOST_SLICES
    (first,) = re.findall(r' value="(\d+)" step', html)
    assert found[int(first)]["where"].startswith("slice 158 of 301")


def test_noise_stays_within_the_budget() -> None:
    random = np.random.default_rng(0)
    shape = (64, 64, 32)
    noisy = case_of(
        random.integers(0, 3, shape),
        prediction=random.integers(0, 3, shape),
        image=random.normal(size=(1, *shape)).astype(np.float32),
        entropy=random.integers(0, 256, shape, dtype=np.uint8),
    )
    full = viewer(noisy, names=NAMES)
    assert len(full) < 1.2 * BUDGET
    assert len(viewer(noisy, names=NAMES, budget=BUDGET // 4)) < len(full) / 2


def test_without_a_label_none_is_spoken_of() -> None:
    predicted = np.zeros((30, 20, 6), int)
    predicted[5:9, 5:9, 3] = 1
    html = viewer(case_of(np.zeros_like(predicted), prediction=predicted, has_label=False), names=NAMES)
    assert [of["told"] for of in slices(html)][2:4] == ["predicted: nothing", "predicted: one"]
    assert 'value="label"' not in html
    assert "label solid" not in html
    assert 'value="label"' in viewer(case_of(predicted), names=NAMES)


def test_a_picture_has_no_slider() -> None:
    label = np.zeros((30, 40), int)
    label[5:9, 5:20] = 1
    html = viewer(case_of(label, image=np.zeros((3, 30, 40), np.uint8)), names=NAMES)
    assert 'type="range"' not in html
    assert "uncertainty" not in html
    assert len(slices(html)) == 1


def test_outlines_of_one_shape_stand_side_by_side() -> None:
    mask = np.zeros((60, 60), int)
    mask[20:40, 20:40] = 2
    solid, dashed = (outline(mask, dashed=dashed) for dashed in (False, True))
    inside, outside = (np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")) for png in (solid, dashed))
    assert not ((inside[..., 3] > 0) & (mask == 0)).any()
    assert not ((outside[..., 3] > 0) & (mask > 0)).any()
    assert (inside[20, 20:40, 3] == 255).all()
    colour = bytes.fromhex(PALETTE[1][1:])
    assert tuple(inside[20, 30, :3]) == tuple(colour)
    for line in (outside[19, 20:40], outside[20:40, 19]):  # both colours on lines of both directions
        assert {tuple(p[:3]) for p in line} == {tuple(colour), (0, 0, 0)}


def test_touching_classes_of_one_colour_are_parted() -> None:
    mask = np.zeros((60, 60), int)
    mask[20:40, 10:30], mask[20:40, 30:50] = 1, 1 + len(PALETTE)
    line = np.asarray(Image.open(io.BytesIO(outline(mask, dashed=False))).convert("RGBA"))
    assert (line[24:36, 28:32, 3] == 255).all()
    assert (line[24:36, 15:25, 3] == 0).all()
    assert {tuple(p) for p in line[line[..., 3] > 0]} == {(*bytes.fromhex(PALETTE[0][1:]), 255)}
    filled = np.asarray(Image.open(io.BytesIO(overlay(mask, list(PALETTE), [80] * len(PALETTE)))).convert("RGBA"))
    assert (filled[24:36, 29:31, 3] == 255).all()
    assert (filled[24:36, 20, 3] == 80).all()


def test_more_uncertainty_is_brighter() -> None:
    layer = np.asarray(Image.open(io.BytesIO(heat(np.array([[0, 3, 30, 60, 100, 255]], np.uint8)))).convert("RGBA"))
    light = layer[0, :, :3].astype(int).sum(-1)
    assert list(layer[0, :2, 3]) == [0, 0]
    assert (np.diff(layer[0, :, 3].astype(int)) >= 0).all()
    assert light[2] < light[3] < light[4] == light[5]
