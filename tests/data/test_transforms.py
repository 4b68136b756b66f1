"""Augmentation: copies are exact, resampling agrees with scipy, rotations are rigid in millimetres, nothing breaks."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from semialign.data.store import read_box
from semialign.data.transforms import (
    OUTSIDE,
    STRENGTHS,
    Strength,
    intensities,
    random_cuboid,
    random_field,
    random_matrix,
    source_box,
    strong,
    warp,
)

SPATIAL = Strength(rotate=30, scale=0.4, spatial=1.0, elastic=0.04)


class _Place(NamedTuple):
    """Where a patch is cut from, and how it is bent."""

    matrix: np.ndarray
    centre: np.ndarray
    patch: tuple[int, ...]
    field: np.ndarray | None

    def positions(self) -> np.ndarray:
        """Return where every voxel of the patch lies in the image, (d, *patch), worked out by numpy and scipy."""
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.patch), indexing="ij")).astype(float)
        column = (-1, *(1,) * len(self.patch))
        sides = np.array(self.patch).reshape(column)
        at = np.tensordot(self.matrix, index - (sides - 1) / 2, 1) + self.centre.reshape(column)
        if self.field is not None:
            points = np.array(self.field.shape[1:]).reshape(column)
            along = index / np.maximum(sides - 1, 1) * (points - 1)
            at += np.stack([map_coordinates(axis, along, order=1, mode="nearest") for axis in self.field])
        return at

    def cut(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut the patch as the loader does."""
        low, high = source_box(self.matrix, self.centre, self.patch, self.field)
        box = torch.from_numpy(read_box(image[None], low, high, 0.0))
        inside = torch.from_numpy(read_box(label, low, high, OUTSIDE))
        cut, its = warp(box, inside, self.matrix, self.centre - low, self.patch, self.field)
        assert its is not None
        return cut[0].numpy(), its.numpy()


def _place(seed: int, dims: int, ratio: float = 1.0, *, elastic: bool = True) -> _Place:
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, SPATIAL, (ratio, *(1.0,) * (dims - 1)), range(dims))
    patch = tuple(int(n) for n in rng.integers(1, 13, dims))
    field = random_field(rng, SPATIAL, patch) if elastic and seed % 2 else None
    return _Place(matrix, rng.uniform(-3, 15, dims), patch, field)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)])
def test_without_rotation_voxels_are_copied_bit_by_bit(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    box = torch.from_numpy(rng.normal(size=(2, *shape)).astype(np.float32))
    label = torch.from_numpy(rng.integers(-1, 4, shape))
    centre = (np.array(shape) - 1) / 2
    for signs in itertools.product((1, -1), repeat=len(shape)):
        image, its = warp(box, label, np.diag(np.array(signs, float)), centre, shape)
        turned = tuple(slice(None, None, sign) for sign in signs)
        assert np.array_equal(image.numpy(), box.numpy()[(slice(None), *turned)])
        assert its is not None
        assert np.array_equal(its.numpy(), label.numpy()[turned])


def test_image_without_label() -> None:
    box = torch.rand(1, 6, 6)
    assert warp(box, None, np.eye(2), np.array([2.5, 2.5]), (6, 6))[1] is None
    assert warp(box, None, 0.9 * np.eye(2), np.array([2.5, 2.5]), (6, 6))[1] is None


@given(st.integers(0, 2**31), st.sampled_from([2, 3]), st.sampled_from([1.0, 2.5, 0.4]))
def test_resampling_agrees_with_scipy(seed: int, dims: int, ratio: float) -> None:
    place, rng = _place(seed, dims, ratio), np.random.default_rng(seed)
    image = rng.normal(size=(12,) * dims).astype(np.float32)
    label = rng.integers(0, 5, (12,) * dims)
    cut, its = place.cut(image, label)
    at = place.positions()
    expected = map_coordinates(image, at, order=1, mode="grid-constant", cval=0.0)
    assert np.allclose(cut, expected, atol=2e-4)
    sure = (np.abs(at - np.floor(at) - 0.5) > 1e-3).all(0)  # no tie between two voxels
    expected = map_coordinates(label, np.rint(at), order=0, mode="grid-constant", cval=OUTSIDE)
    assert np.array_equal(its[sure], expected[sure])


@given(st.integers(0, 2**31), st.sampled_from([2, 3]))
def test_image_and_label_stay_aligned(seed: int, dims: int) -> None:
    label = (np.random.default_rng(seed).random((12,) * dims) < 0.5).astype(np.int64)
    cut, its = _place(seed, dims).cut(label.astype(np.float32), label)
    # The nearest voxel carries at least 1 / 2^d of the linear mixture.
    assert (cut[its == 1] >= 0.5**dims - 1e-4).all()
    assert (cut[its == 0] <= 1 - 0.5**dims + 1e-4).all()


@given(st.integers(0, 2**31), st.sampled_from([2, 3]), st.sampled_from([1.0, 2.5, 0.4]))
def test_box_holds_every_voxel_drawn_from(seed: int, dims: int, ratio: float) -> None:
    place = _place(seed, dims, ratio)
    low, high = source_box(place.matrix, place.centre, place.patch, place.field)
    at = place.positions().reshape(dims, -1)
    assert (at >= low[:, None] - 1e-5).all()
    assert (at <= high[:, None] - 1 + 1e-5).all()


@given(st.integers(0, 2**31), st.sampled_from([2, 3]), st.sampled_from([1.0, 2.5, 0.4]))
def test_box_is_no_wider_than_it_must_be(seed: int, dims: int, ratio: float) -> None:
    place = _place(seed, dims, ratio, elastic=False)
    low, high = source_box(place.matrix, place.centre, place.patch)
    at = place.positions().reshape(dims, -1)
    assert (at.min(1) < low + 1 + 1e-5).all()
    assert (at.max(1) > high - 2 - 1e-5).all()


@given(st.integers(0, 2**31), st.sampled_from([(16, 24), (12, 8, 32), (32, 4, 9)]))
def test_elastic_deformation_folds_nothing_over(seed: int, patch: tuple[int, ...]) -> None:
    field = random_field(np.random.default_rng(seed), Strength(spatial=1.0, elastic=0.03), patch)
    assert field is not None
    place = _Place(np.eye(len(patch)), np.zeros(len(patch)), patch, field)
    jacobian = np.stack([np.stack(np.gradient(axis)) for axis in place.positions()])
    assert (np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))) > 0).all()
    short = [axis for axis, n in enumerate(patch) if n < 8]
    assert not field[short].any()


def test_elastic_deformation_is_drawn_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_field(rng, STRENGTHS["default"], (32, 32)) for _ in range(400)]
    share = sum(field is not None for field in drawn) / len(drawn)
    assert share == pytest.approx(STRENGTHS["default"].spatial, abs=0.08)
    assert random_field(rng, STRENGTHS["light"], (32, 32)) is None


def test_box_of_a_plain_patch_is_the_patch() -> None:
    for n in (1, 2, 7, 8):
        low, high = source_box(np.eye(2), np.array([10 + (n - 1) / 2, 3 + (n - 1) / 2]), (n, n))
        assert (low.tolist(), high.tolist()) == ([10, 3], [10 + n, 3 + n])


def test_beyond_the_image_nobody_annotated() -> None:
    image, label = np.ones((4, 4), np.float32), np.zeros((4, 4), np.int64)
    cut, its = _Place(np.eye(2), np.array([1.5, 1.5]), (8, 8), None).cut(image, label)
    expected = np.full((8, 8), OUTSIDE)
    expected[2:6, 2:6] = 0
    assert np.array_equal(its, expected)
    assert np.array_equal(cut, (expected == 0).astype(np.float32))
    far, its = _Place(np.eye(2), np.array([50.0, 50.0]), (4, 4), None).cut(image, label)
    assert not far.any()
    assert (its == OUTSIDE).all()


@given(
    st.integers(0, 2**31),
    st.lists(st.floats(0.4, 3.0), min_size=2, max_size=3).filter(lambda s: max(s) <= 3 * min(s)),
)
def test_rotations_are_rigid_in_physical_space(seed: int, spacing: list[float]) -> None:
    matrix = random_matrix(np.random.default_rng(seed), SPATIAL, spacing, ())
    size = np.array(spacing)
    physical = np.diag(size) @ matrix @ np.diag(1 / size)  # from mm to mm
    scale = np.linalg.det(physical) ** (1 / len(size))
    assert 1 / 1.4 - 1e-9 <= scale <= 1.4 + 1e-9
    assert np.allclose(physical.T @ physical, scale**2 * np.eye(len(size)), atol=1e-9)


@given(st.integers(0, 2**31), st.integers(0, 2))
def test_a_coarse_axis_is_left_out_of_the_rotation(seed: int, coarse: int) -> None:
    spacing = [1.0, 1.2, 1.1]
    spacing[coarse] = 5.0
    matrix = random_matrix(np.random.default_rng(seed), SPATIAL, spacing, ())
    others = [axis for axis in range(3) if axis != coarse]
    assert not matrix[coarse, others].any()
    assert not matrix[others, coarse].any()
    assert matrix[others[0], others[1]] != 0


def test_angles_reach_but_do_not_pass_the_largest() -> None:
    rng, strength = np.random.default_rng(0), Strength(rotate=20, spatial=1.0)
    angles = [
        math.degrees(math.atan2(m[1, 0], m[0, 0]))
        for m in (random_matrix(rng, strength, (1, 1), ()) for _ in range(500))
    ]
    assert -20 <= min(angles) < -18
    assert 18 < max(angles) <= 20


def test_flips_are_drawn_for_the_given_axes_alone_each_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    diagonals = np.array([np.diag(random_matrix(rng, STRENGTHS["none"], (1, 2, 3), (0, 2))) for _ in range(400)])
    assert (diagonals[:, 1] == 1).all()
    assert abs(diagonals[:, [0, 2]].mean()) < 0.15
    assert abs((diagonals[:, 0] * diagonals[:, 2]).mean()) < 0.15
    assert set(np.unique(diagonals)) == {-1.0, 1.0}


def test_no_strength_and_no_mirror_is_the_identity() -> None:
    assert np.array_equal(random_matrix(np.random.default_rng(3), STRENGTHS["none"], (1, 1, 3), ()), np.eye(3))


@given(st.integers(0, 2**31), st.lists(st.integers(1, 20), min_size=2, max_size=3), st.floats(0.1, 1.0))
def test_a_random_cuboid_has_its_size_and_stays_inside(seed: int, size: list[int], share: float) -> None:
    torch.manual_seed(seed)
    inside = random_cuboid(torch.zeros(2, 1, *size), share)
    assert inside.shape == tuple(size)
    assert inside.dtype == torch.bool
    for axis, n in enumerate(size):
        along = inside.movedim(axis, 0).flatten(1).any(1)
        where = along.nonzero()[:, 0]
        assert len(where) == max(1, round(n * share))
        assert where[-1] - where[0] + 1 == len(where)
    assert int(inside.sum()) == math.prod(max(1, round(n * share)) for n in size)


def test_a_random_cuboid_reaches_every_side() -> None:
    torch.manual_seed(0)
    seen = torch.stack([random_cuboid(torch.zeros(1, 1, 6, 9)) for _ in range(60)])
    assert seen.any(0).all()
    assert len({tuple(mask.flatten().tolist()) for mask in seen}) == 3 * 4


def _images(shape: tuple[int, ...] = (3, 2, 9, 8, 7), seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize(
    "shape", [(3, 2, 9, 8, 7), (3, 3, 16, 12), (2, 1, 8, 1, 6), (2, 1, 1, 1, 1), (0, 1, 8, 8)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_intensities_keep_shape_and_type_and_do_not_touch_their_input(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    image = _images(shape).to(dtype)
    kept = image.clone()
    for seed in range(5):
        changed = intensities(image, STRENGTHS[name], torch.Generator().manual_seed(seed))
        assert changed.shape == image.shape
        assert changed.dtype == dtype
        assert changed.isfinite().all()
        assert torch.equal(image, kept)


def test_intensities_follow_the_generator_and_nothing_else() -> None:
    image = _images()
    first = intensities(image, STRENGTHS["strong"], torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    again = intensities(image, STRENGTHS["strong"], torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, intensities(image, STRENGTHS["strong"], torch.Generator().manual_seed(2)))


def test_strong_follows_the_steps_seed() -> None:
    image = _images()
    torch.manual_seed(7)
    first = strong(image)
    torch.manual_seed(7)
    assert torch.equal(first, strong(image))
    assert not torch.equal(first, image)
    assert strong(image[:0]).shape == image[:0].shape


def test_autocast_does_not_round_the_images() -> None:
    # The strong form is made inside the method's step, where Fabric has switched to bfloat16.
    image = _images((6, 1, 12, 12))
    torch.manual_seed(7)
    expected = strong(image)
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(strong(image), expected)


def test_none_changes_nothing() -> None:
    image = _images()
    assert torch.equal(intensities(image, STRENGTHS["none"]), image)


def test_every_sample_draws_its_own() -> None:
    image = _images((1, 1, 12, 12)).repeat(8, 1, 1, 1)
    changed = intensities(image, STRENGTHS["strong"], torch.Generator().manual_seed(3))
    assert len({tuple(sample.flatten().tolist()) for sample in changed}) > 4


@pytest.mark.parametrize("value", [0.0, -3.5, 1e4])
def test_constant_images_stay_finite(value: float) -> None:
    image = torch.full((20, 1, 6, 6), value)
    for name in ("light", "default", "strong"):
        assert intensities(image, STRENGTHS[name], torch.Generator().manual_seed(0)).isfinite().all()


def test_chances_are_as_stated() -> None:
    # Noise alone: how many of the samples changed?
    image = torch.zeros(2000, 1, 2, 2)
    changed = intensities(image, Strength(intensity=0.3, noise=0.1), torch.Generator().manual_seed(0))
    share = (changed - image).flatten(1).abs().amax(1).gt(1e-6).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.04)
    assert changed.std(dim=(1, 2, 3)).max() < 0.3


@pytest.mark.parametrize("shape", [(1, 1, 11, 9), (1, 2, 9, 8, 7), (1, 1, 9, 1, 7)])
def test_blur_agrees_with_scipy(shape: tuple[int, ...]) -> None:
    image = _images(shape)
    for seed in range(4):
        # Wider than in use, so that the kernel has more than three taps.
        wide = Strength(intensity=1.0, blur=2.0)
        changed = intensities(image, wide, torch.Generator().manual_seed(seed))
        sigma = 0.3 + torch.rand(2, 6, generator=torch.Generator().manual_seed(seed))[1, 0].item() * 2.0
        for before, after in zip(image[0].numpy(), changed[0].numpy(), strict=True):
            sizes = [0 if n == 1 else sigma for n in before.shape]
            expected = gaussian_filter(before, sizes, mode="nearest", radius=max(1, round(2.5 * sigma)))
            assert np.allclose(after, expected, atol=1e-5)


def test_contrast_brightness_and_gamma_keep_the_order_of_intensities() -> None:
    image = _images((1, 1, 8, 8))
    changed = intensities(image, Strength(intensity=1.0, contrast=0.5), torch.Generator().manual_seed(0))
    assert torch.equal(changed.flatten().argsort(), image.flatten().argsort())
    assert not torch.allclose(changed, image, atol=0.05)


@pytest.mark.parametrize(("patch", "turned"), [((64, 64, 1), False), ((64, 64, 16), False), ((64, 64, 32), True)])
def test_a_flat_patch_is_not_turned_out_of_its_plane(patch: tuple[int, ...], turned: bool) -> None:
    matrix = random_matrix(np.random.default_rng(1), SPATIAL, (1.0, 1.0, 1.0), (), patch)
    assert bool(matrix[2, :2].any() and matrix[:2, 2].any()) is turned
    assert matrix[0, 1] != 0
    # What decides is millimetres: thick slices make a patch of few voxels tall.
    thick = random_matrix(np.random.default_rng(1), SPATIAL, (1.0, 1.0, 2.5), (), (64, 64, 10))
    assert thick[2, :2].any()
