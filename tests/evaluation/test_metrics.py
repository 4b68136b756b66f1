"""Scores of one pair of label maps, against brute force, surface-distance, scikit-image, MONAI and by hand."""

import math

import numpy as np
import pytest
import surface_distance
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from semialign.evaluation.metrics import ClassScore, boundary_distances, score_case, surface_dice

# Exact in binary, so that "equal to the tolerance" means the same to us and to the oracle.
SPACINGS = st.sampled_from([0.5, 0.75, 1.0, 1.25, 2.5])
ISOTROPIC = (1.0, 1.0, 1.0)


def masks(dims: int, most: int) -> st.SearchStrategy[np.ndarray]:
    """Pairs (2, *S) of random masks."""
    shapes = st.lists(st.integers(2, most), min_size=dims, max_size=dims)
    return shapes.flatmap(lambda shape: hnp.arrays(bool, (2, *shape)))


def boundary_points(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Points (N, D) of the voxels that have a face neighbour outside the mask, one voxel at a time."""
    points = []
    for at in map(tuple, np.argwhere(mask)):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                beside = list(at)
                beside[axis] += step
                inside = 0 <= beside[axis] < mask.shape[axis]
                if not inside or not mask[tuple(beside)]:
                    points.append([i * s for i, s in zip(at, spacing, strict=True)])
    return np.unique(np.array(points), axis=0)


def brute_force(prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """HD95 and ASD from the full matrix of distances."""
    between = cdist(boundary_points(prediction, spacing), boundary_points(label, spacing))
    there, back = between.min(axis=1), between.min(axis=0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), float(np.concatenate([there, back]).mean())


def nsd_oracle(prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    found = surface_distance.compute_surface_distances(label, prediction, spacing)
    return float(surface_distance.compute_surface_dice_at_tolerance(found, tolerance))


def score(prediction: np.ndarray, label: np.ndarray, spacing=None, **options) -> ClassScore:
    spacing = spacing or (1.0,) * label.ndim
    [only] = score_case(
        prediction.astype(np.uint8), label.astype(np.uint8), spacing=spacing, classes={"it": 1}, **options
    )
    return only


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.mark.parametrize(("dims", "most"), [(2, 9), (3, 6)])
def test_random_masks_agree_with_every_oracle(dims, most):
    @settings(max_examples=60, deadline=None)
    @given(masks(dims, most), st.tuples(*[SPACINGS] * dims), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    def check(pair, spacing, tolerance):
        prediction, label = pair
        assume(prediction.any() and label.any())
        found = score(prediction, label, spacing, tolerance=tolerance)
        hd95, asd = brute_force(prediction, label, spacing)
        assert found.status == "scored"
        assert found.hd95 == pytest.approx(hd95, abs=1e-9)
        assert found.asd == pytest.approx(asd, abs=1e-9)
        assert found.nsd == pytest.approx(nsd_oracle(prediction, label, spacing, tolerance), abs=1e-6)
        assert found.dice == pytest.approx(surface_distance.compute_dice_coefficient(label, prediction))
        assert found.iou == pytest.approx(found.dice / (2 - found.dice))
        assert (found.voxels_label, found.voxels_prediction) == (label.sum(), prediction.sum())

    check()


def test_anisotropic_balls_agree_with_brute_force_and_surface_distance():
    label, prediction = ball((24, 20, 16), (11, 10, 8), 6), ball((24, 20, 16), (13, 9, 8), 5)
    spacing = (0.7, 0.9, 3.3)
    found = score(prediction, label, spacing, tolerance=1.5)
    hd95, asd = brute_force(prediction, label, spacing)
    assert (found.hd95, found.asd) == (pytest.approx(hd95), pytest.approx(asd))
    assert found.nsd == pytest.approx(nsd_oracle(prediction, label, spacing, 1.5), abs=1e-6)
    assert 0 < found.nsd < 1


def test_monai_gives_the_same_distances_and_nsd():
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    label, prediction = ball((20, 22, 12), (9, 10, 6), 5), ball((20, 22, 12), (11, 10, 5), 6)
    spacing, options = (0.8, 0.8, 2.5), {"include_background": True, "spacing": (0.8, 0.8, 2.5)}
    pair = torch.from_numpy(prediction)[None, None], torch.from_numpy(label)[None, None]
    found = score(prediction, label, spacing, tolerance=1.0)
    assert found.hd95 == pytest.approx(float(monai.compute_hausdorff_distance(*pair, percentile=95, **options)))
    assert found.asd == pytest.approx(float(monai.compute_average_surface_distance(*pair, symmetric=True, **options)))
    nsd = monai.compute_surface_dice(*pair, [1.0], use_subvoxels=True, **options)
    assert found.nsd == pytest.approx(float(nsd), abs=1e-5)


def test_largest_boundary_distance_is_scikit_images_hausdorff_distance():
    label, prediction = ball((40, 40), (20, 20), 12), ball((40, 40), (20, 23), 9) | ball((40, 40), (3, 3), 1)
    there, back = boundary_distances(prediction, label, (1.0, 1.0))
    edges = [np.zeros(label.shape, bool) for _ in range(2)]
    for edge, mask in zip(edges, (prediction, label), strict=True):
        edge[tuple(boundary_points(mask, (1.0, 1.0)).astype(int).T)] = True
    assert max(there.max(), back.max()) == pytest.approx(hausdorff_distance(*edges))


def test_hd95_is_a_percentile_and_not_a_share_of_the_maximum():
    label, prediction = np.zeros((3, 300), bool), np.zeros((3, 300), bool)
    label[1, :100] = prediction[1, :100] = True
    prediction[1, 250] = True  # one of 101 boundary pixels is 151 away
    found = score(prediction, label)
    assert found.hd95 == 0
    assert found.asd == pytest.approx(151 / 201)


def test_two_single_voxels_by_hand():
    label, prediction = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    label[1, 1, 1] = prediction[2, 3, 1] = True
    found = score(prediction, label, (3.0, 2.0, 7.0), tolerance=5.0)
    assert (found.dice, found.iou, found.hd95, found.asd, found.nsd) == (0.0, 0.0, 5.0, 5.0, 1.0)
    assert score(prediction, label, (3.0, 2.0, 7.0), tolerance=4.99).nsd < 1


def test_shifted_square_by_hand():
    label, prediction = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    label[2:5, 2:5], prediction[2:5, 3:6] = True, True
    found = score(prediction, label, (1.0, 0.5))
    assert found.dice == pytest.approx(12 / 18)
    assert found.iou == pytest.approx(6 / 12)
    # Of each 8 boundary pixels 3 lie a column (0.5) away, 1 (the middle of the other end) too, by its own column.
    assert (found.hd95, found.asd) == (pytest.approx(0.5), pytest.approx(8 * 0.5 / 16))


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 8)])
def test_identical_masks_are_perfect(shape):
    mask = ball(shape, tuple(n / 2 for n in shape), 3)
    found = score(mask, mask, tolerance=0.0)
    assert (found.status, found.dice, found.iou, found.hd95, found.asd, found.nsd) == ("scored", 1, 1, 0, 0, 1)


def test_a_class_in_neither_is_not_scored():
    empty = np.zeros((5, 5, 5), bool)
    assert score(empty, empty) == ClassScore("it", 1, "absent", None, None, None, None, None, 0, 0)


def test_missed_and_spurious_classes_are_nought_and_infinitely_far():
    empty, voxel = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
    voxel[2, 2] = True
    assert score(empty, voxel) == ClassScore("it", 1, "missed", 0.0, 0.0, math.inf, math.inf, 0.0, 1, 0)
    assert score(voxel, empty) == ClassScore("it", 1, "spurious", 0.0, 0.0, math.inf, math.inf, 0.0, 0, 1)
    assert surface_dice(empty, voxel, (1.0, 1.0), 2.0) == 0


def test_masks_at_the_volumes_border_score_as_inside_a_larger_one():
    rng = np.random.default_rng(3)
    label, prediction = rng.random((2, 6, 7, 5)) < 0.6
    label[0], prediction[:, -1], label[..., 0] = True, True, True
    inside = score(np.pad(prediction, 3), np.pad(label, 3), (1.0, 2.0, 0.5), tolerance=0.5)
    assert score(prediction, label, (1.0, 2.0, 0.5), tolerance=0.5) == inside


def test_whole_volume_filled_has_the_volumes_faces_as_boundary():
    full, hollow = np.ones((5, 5, 5), bool), np.ones((5, 5, 5), bool)
    hollow[2, 2, 2] = False
    there, back = boundary_distances(hollow, full, ISOTROPIC)
    assert (len(there), len(back)) == (5**3 - 3**3 + 6, 5**3 - 3**3)


@settings(max_examples=30, deadline=None)
@given(masks(3, 6))
def test_scores_do_not_depend_on_which_is_the_prediction(pair):
    a, b = pair
    assume(a.any() and b.any())
    one, other = score(a, b, (1.0, 0.5, 2.0)), score(b, a, (1.0, 0.5, 2.0))
    for metric in ("dice", "iou", "hd95", "asd", "nsd"):
        assert getattr(one, metric) == pytest.approx(getattr(other, metric))


def test_distances_scale_with_the_spacing():
    label, prediction = ball((20, 20, 20), (9, 9, 9), 5), ball((20, 20, 20), (11, 9, 9), 6)
    one = score(prediction, label, (1.0, 1.0, 2.0), tolerance=1.0)
    ten = score(prediction, label, (10.0, 10.0, 20.0), tolerance=10.0)
    assert (ten.hd95, ten.asd) == (pytest.approx(10 * one.hd95), pytest.approx(10 * one.asd))
    assert (ten.dice, ten.nsd) == (one.dice, pytest.approx(one.nsd))


def test_ignored_voxels_count_nowhere():
    label, prediction = np.zeros((12, 12), np.int32), np.zeros((12, 12), np.int32)
    label[2:6, 2:6], prediction[2:6, 2:7] = 1, 1
    expected = score_case(prediction, label, spacing=(1.0, 1.0), classes={"a": 1, "b": 2})
    label[8:, :], prediction[9:, 3:9], prediction[10, 2] = 255, 1, 2
    found = score_case(prediction, label, spacing=(1.0, 1.0), classes={"a": 1, "b": 2}, ignore=255)
    assert found == expected
    assert found[1].status == "absent"
    assert score_case(prediction, label, spacing=(1.0, 1.0), classes={"a": 1})[0].dice < expected[0].dice


def test_ignoring_within_a_structure_is_removing_from_both_masks():
    rng = np.random.default_rng(0)
    label, prediction = (rng.random((2, 8, 8, 8)) < 0.6).astype(np.int16)
    hidden = rng.random(label.shape) < 0.3
    [expected] = score_case(prediction * ~hidden, label * ~hidden, spacing=ISOTROPIC, classes={"a": 1})
    label[hidden] = 7
    assert score_case(prediction, label, spacing=ISOTROPIC, classes={"a": 1}, ignore=7) == [expected]


def test_classes_are_scored_one_by_one_in_the_order_given():
    rng = np.random.default_rng(1)
    label, prediction = rng.integers(0, 4, (2, 10, 9, 8))
    found = score_case(prediction, label, spacing=ISOTROPIC, classes={"third": 3, "first": 1, "lacking": 9})
    assert [(s.name, s.value, s.status) for s in found] == [
        ("third", 3, "scored"),
        ("first", 1, "scored"),
        ("lacking", 9, "absent"),
    ]
    for one in found[:2]:
        alone = score(prediction == one.value, label == one.value)
        assert (one.dice, one.hd95, one.asd, one.nsd) == (alone.dice, alone.hd95, alone.asd, alone.nsd)


def test_a_single_slice_is_scored_as_a_picture():
    label, prediction = ball((20, 20), (9, 9), 5), ball((20, 20), (9, 11), 5)
    flat = score(prediction, label, (0.5, 2.0))
    assert score(prediction[..., None], label[..., None], (0.5, 2.0, 8.0)) == flat
    assert score(prediction[:, None], label[:, None], (0.5, 8.0, 2.0)) == flat


def test_one_row_of_voxels_can_be_scored():
    label = np.zeros((1, 6, 1), bool)
    label[0, 1:3] = True
    assert score(np.roll(label, 1, axis=1), label, (1.0, 2.0, 1.0)).asd == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64])
def test_every_integer_type_is_scored(dtype):
    label = ball((9, 9), (4, 4), 3).astype(dtype)
    assert score_case(label, label, spacing=(1.0, 1.0), classes={"a": 1})[0].dice == 1


def test_arrays_that_do_not_fit_are_refused():
    two, three = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        score_case(two, three, spacing=ISOTROPIC, classes={"a": 1})
    with pytest.raises(ValueError, match="do not fit"):
        score_case(two, two, spacing=ISOTROPIC, classes={"a": 1})
    with pytest.raises(ValueError, match="integers"):
        score_case(two.astype(float), two, spacing=(1.0, 1.0), classes={"a": 1})
    with pytest.raises(ValueError, match="background"):
        score_case(two, two, spacing=(1.0, 1.0), classes={"background": 0})
