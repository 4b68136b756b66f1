"""Pictures of a case: right way up, right proportions, right slice, right colours."""

import base64
import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from semialign.evaluation.report_pictures import PALETTE, case_figures
from semialign.evaluation.report_views import AGREED, CONFUSED, FALSE, MISSED, UNKNOWN, PictureCase, compared, views

NAMES = ["background", "one", "two"]


def case_of(
    label: np.ndarray,
    *,
    image: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    spacing: tuple[float, ...] | None = None,
) -> PictureCase:
    return PictureCase(
        id="a",
        part="test",
        image=label[None].astype(np.float32) if image is None else image,
        label=label,
        prediction=label if prediction is None else prediction,
        spacing=spacing or (1.0,) * label.ndim,
        dice=1.0,
        title="best",
    )


def without_viewer(html: str) -> str:
    return re.sub(r'<div class="viewer".*?</script></div>', "", html, flags=re.DOTALL)


def tiles(html: str) -> list[list[Image.Image]]:
    """The pictures in the page, decoded: a list of image, label, prediction, difference for each slice."""
    found = [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
        for data in re.findall(r'href="data:image/png;base64,([^"]+)"', without_viewer(html))
    ]
    return [found[i : i + 4] for i in range(0, len(found), 4)]


def centre(weights: np.ndarray) -> tuple[str, str]:
    """Whether what is bright lies in the top or bottom, left or right half."""
    rows, columns = np.indices(weights.shape)
    row, column = ((weights * index).sum() / weights.sum() for index in (rows, columns))
    return "top" if row < weights.shape[0] / 2 else "bottom", "left" if column < weights.shape[1] / 2 else "right"


@pytest.mark.parametrize(("right", "anterior", "superior"), list(itertools.product([True, False], repeat=3)))
def test_slices_are_the_right_way_up(right: bool, anterior: bool, superior: bool) -> None:
    shape = (30, 36, 24)
    corner = tuple(slice(-10, None) if end else slice(0, 10) for end in (right, anterior, superior))
    label = np.zeros(shape, int)
    label[corner] = 1
    across = "left" if right else "right"  # radiological: the patient's right is on the left
    up = "top" if superior else "bottom"
    expected = [("top" if anterior else "bottom", across), (up, across), (up, "left" if anterior else "right")]
    for (image, overlay, prediction, difference), place in zip(
        tiles(case_figures(case_of(label), names=NAMES, number_of_case=0)), expected, strict=True
    ):
        assert centre(np.asarray(image.convert("L"), float)) == place
        for layer in (overlay, prediction, difference):
            assert centre(np.asarray(layer)[..., 3].astype(float)) == place


def test_edges_are_lettered_as_they_lie() -> None:
    label = np.ones((20, 20, 20), int)
    html = without_viewer(case_figures(case_of(label), names=NAMES, number_of_case=0))
    letters = re.findall(r">([RLAPSI])</text>", html)
    places = [(float(x), float(y)) for x, y in re.findall(r'class="edge"[^>]* x="([\d.]+)" y="([\d.]+)"', html)]
    for view, expected in enumerate(("ARPL", "SRIL", "SAIP")):
        placed = dict(zip(letters[16 * view : 16 * view + 4], places[16 * view : 16 * view + 4], strict=True))
        top, left = min(placed, key=lambda e: placed[e][1]), min(placed, key=lambda e: placed[e][0])
        bottom, right = max(placed, key=lambda e: placed[e][1]), max(placed, key=lambda e: placed[e][0])
        assert top + left + bottom + right == expected


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 5.0), (3.0, 0.7, 0.7)])
def test_proportions_are_those_of_the_body(spacing: tuple[float, float, float]) -> None:
    label = np.zeros((20, 30, 12), int)
    label[5:15, 5:20, 3:9] = 1
    x, y, z = np.multiply(label.shape, spacing)
    for view, (high, wide) in zip(views(case_of(label, spacing=spacing), 3), [(y, x), (z, x), (z, y)], strict=True):
        assert view.image.shape == view.label.shape == view.prediction.shape
        rows, columns = view.image.shape
        assert abs(rows / columns - high / wide) < 0.03 * high / wide
        assert 256 <= max(rows, columns) <= 384


def test_the_slice_with_most_label_is_shown() -> None:
    label = np.zeros((20, 30, 12), int)
    label[5:15, 5:20, 3] = 1
    label[4:16, 5:20, 7] = 1
    label[9, :, 7] = 2
    prediction = np.zeros_like(label)
    prediction[:, :, 10] = 1
    where = [view.where for view in views(case_of(label, prediction=prediction), 3)]
    assert where[0] == "slice 8 of 12"
    assert where[2] == "slice 10 of 20"
    # Without a label the prediction decides; an ignored region counts for nothing.
    for nothing in (np.zeros_like(label), np.full_like(label, 255), np.full_like(label, -1)):
        assert views(case_of(nothing, prediction=prediction), 3)[0].where == "slice 11 of 12"
    assert views(case_of(np.zeros_like(label)), 3)[0].where == "slice 7 of 12"


def test_slices_lie_where_they_are_asked_for() -> None:
    label = np.zeros((12, 14, 16), int)
    label[3:6, 3:6, 3:6] = 1
    shown = views(case_of(label), len(NAMES), at=(7, 8, 9))
    assert [view.where.split(",")[0] for view in shown] == ["slice 10 of 16", "slice 9 of 14", "slice 8 of 12"]


def test_small_structures_are_enlarged_and_stay_in_view() -> None:
    label = np.zeros((100, 80, 60), int)
    label[96:100, 2:5, 30:33] = 1
    for view in views(case_of(label), 3):
        assert view.where.endswith("enlarged")
        assert (view.label == 1).mean() == pytest.approx((view.image > 128).mean(), rel=0.6)
        assert (view.label == 1).any()


def test_pictures_are_shown_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 300, 320), dtype=np.uint8)
    label = np.zeros((300, 320), int)
    label[:100, :50] = 1
    ((shown, overlay, _, _),) = tiles(case_figures(case_of(label, image=image), names=NAMES, number_of_case=0))
    assert np.array_equal(np.asarray(shown)[..., :3], np.moveaxis(image, 0, -1))
    assert np.array_equal(np.asarray(overlay)[..., 3] > 0, label > 0)


def test_overlays_wear_the_colour_of_their_class() -> None:
    label = np.zeros((300, 300), int)
    label[20:120, 20:120], label[150:250, 150:250] = 1, 2
    prediction = np.where(label == 2, 0, label)
    html = case_figures(case_of(label, prediction=prediction), names=NAMES, number_of_case=0)
    ((_, marked, guessed, difference),) = tiles(html)
    for value, point in ((1, (70, 70)), (2, (200, 200))):
        assert marked.getpixel(point)[:3] == tuple(bytes.fromhex(PALETTE[value - 1][1:]))
        assert PALETTE[value - 1] in html
    assert 0 < marked.getpixel((70, 70))[3] < 128
    assert marked.getpixel((20, 70))[3] == 255
    assert guessed.getpixel((200, 200))[3] == 0
    assert marked.getpixel((5, 5))[3] == 0
    assert difference.getpixel((70, 70))[:3] != difference.getpixel((200, 200))[:3]
    assert "missed" in html
    assert "agreement" in html
    assert "wrong class" not in html


def test_an_outlier_does_not_darken_the_image() -> None:
    random = np.random.default_rng(0)
    image = random.normal(100, 10, (1, 40, 40, 40)).astype(np.float32)
    image[0, 0, 0, 0], image[0, 20, 20, 20], image[0, 1, 1, 1] = 1e6, -1e6, np.nan
    label = np.zeros(image.shape[1:], int)
    label[10:30, 10:30, 10:30] = 1
    assert all(view.image.std() > 25 for view in views(case_of(label, image=image), 3))


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_flat_and_broken_images_do_no_harm(value: float) -> None:
    for shape in ((12, 10, 8), (12, 10)):
        label = np.zeros(shape, int)
        case = case_of(label, image=np.full((1, *shape), value, np.float32))
        assert "data:image/png" in case_figures(case, names=NAMES, number_of_case=0)


def test_difference_against_a_count_by_hand() -> None:
    random = np.random.default_rng(0)
    label, prediction = random.integers(-1, 5, (30, 30)), random.integers(0, 4, (30, 30))
    result = compared(label, prediction, 4)
    for true, guessed, kind in zip(label.ravel(), prediction.ravel(), result.ravel(), strict=True):
        if true in (-1, 4):
            assert kind == UNKNOWN
        elif true == guessed:
            assert kind == (AGREED if true else 0)
        elif true == 0:
            assert kind == FALSE
        else:
            assert kind == (MISSED if guessed == 0 else CONFUSED)


def test_sixteen_classes_have_sixteen_colours_far_apart() -> None:
    colours = np.array([list(bytes.fromhex(c[1:])) for c in PALETTE], float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(len(colours))
    assert len(PALETTE) == 16
    assert apart.min() > 40
