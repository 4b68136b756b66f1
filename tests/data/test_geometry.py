"""Geometry against nibabel's own reorientation, and in world coordinates."""

import itertools
from dataclasses import dataclass

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semialign.common.errors import UserError
from semialign.data.geometry import (
    canonical_shape,
    canonical_spacing,
    canonical_view,
    label_to_network,
    network_shape,
    network_spacing,
    to_network,
)
from semialign.data.grid import Grid, Image

CODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]


@dataclass(frozen=True)
class Geometry:
    """The part of a plan that geometry reads."""

    dimensions: int = 3
    slice_axis: int | None = None
    spacing: tuple[float, ...] | None = None
    volume_size: tuple[int, ...] | None = None
    picture_size: tuple[int, int] | None = None


def tilted(codes: str, spacing: tuple[float, ...], degrees: float = 12) -> np.ndarray:
    """An affine with the given nearest orientation, a little oblique."""
    turn = nibabel.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    for axis, (to, sign) in enumerate(turn):
        axes[int(to), axis] = sign * spacing[axis]
    angle = np.deg2rad(degrees)
    about = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about @ axes
    affine[:3, 3] = (-31, 12, 77)
    return affine


def test_there_are_48_orientations() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_canonical_view_is_nibabels_and_writes_through(codes: str) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = tilted(codes, (1.0, 2.0, 3.0))
    grid = Grid(array.shape, affine)
    theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, affine))
    view = canonical_view(array, grid)
    np.testing.assert_array_equal(view, np.asarray(theirs.dataobj))
    np.testing.assert_array_equal(canonical_view(array[None], grid)[0], view)
    assert canonical_shape(grid) == theirs.shape
    assert canonical_spacing(grid) == pytest.approx(theirs.header.get_zooms())
    back = np.zeros_like(array)
    canonical_view(back, grid)[...] = theirs.dataobj
    np.testing.assert_array_equal(back, array)
    assert np.shares_memory(view, array)


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.integers(1, 16)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[st.floats(0.5, 3)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_resampled_covers_the_same_extent(codes: str, shape: tuple, spacing: tuple, coarser: tuple) -> None:
    target = tuple(s * c for s, c in zip(spacing, coarser, strict=True))
    grid = Grid(shape, tilted(codes, spacing))
    plan = Geometry(spacing=target)
    image = Image(np.random.default_rng(0).integers(-9, 99, (2, *shape)).astype(np.int16), grid, ".nii")
    network = to_network(image, plan)
    assert network.dtype == np.float32
    assert network.flags.c_contiguous
    assert network.shape[1:] == network_shape(grid, plan)
    own, new = np.array(canonical_shape(grid)), np.array(network_shape(grid, plan))
    extent = own * canonical_spacing(grid)
    np.testing.assert_allclose(new * network_spacing(grid, plan), extent)
    # The size nearest to what the spacing asks for, but at least one voxel.
    assert (np.abs(new - np.maximum(1, extent / target)) <= 0.5 + 1e-6).all()
    assert label_to_network(image.array[0] % 3, grid, plan).shape == network.shape[1:]


def blob(grid: Grid, centre: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian in world coordinates (mm), sampled on ``grid``."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return np.exp(-0.5 * (((world - centre) / sigma) ** 2).sum(-1)).astype(np.float32)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL", "ASL", "IRP"])
@pytest.mark.parametrize("target", [(0.7, 0.9, 1.3), (2.1, 1.7, 2.9), None])
def test_world_position_survives(codes: str, target: tuple[float, ...] | None) -> None:
    grid = Grid((41, 47, 38), tilted(codes, (1.0, 1.2, 1.5)))
    centre = grid.affine[:3, :3] @ [24, 20, 21] + grid.affine[:3, 3]
    image = blob(grid, centre, 4.0)
    plan = Geometry(spacing=target)
    network = to_network(Image(image[None], grid, ".nii"), plan)[0]
    # The network grid's affine, from nibabel's canonical one by matching the outer faces.
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, grid.affine))
    factor = np.array(canonical.shape) / network.shape
    index = np.stack(np.meshgrid(*map(np.arange, network.shape), indexing="ij"), -1)
    label = label_to_network((image > 0.3).astype(np.int16), grid, plan, num_classes=2)
    for weight, tolerance in ((network, 0.05), (label, 0.3)):
        mean = (index * weight[..., None]).sum((0, 1, 2)) / weight.sum()
        world = canonical.affine[:3, :3] @ ((mean + 0.5) * factor - 0.5) + canonical.affine[:3, 3]
        np.testing.assert_allclose(world, centre, atol=tolerance)


def test_nothing_to_resample_keeps_every_value() -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (1, 5, 6, 7)).astype(np.int16)
    grid = Grid((5, 6, 7), np.diag([1.0, 2, 3, 1]))
    for plan in (Geometry(), Geometry(spacing=(1, 2, 3)), Geometry(spacing=(1.04, 2.05, 3.1))):
        np.testing.assert_array_equal(to_network(Image(array, grid, ".nii"), plan), array)
    image = Image(array.astype(np.float32), grid, ".nii")
    to_network(image, Geometry())[...] = 0  # a copy, that normalising in place may overwrite
    assert image.array.any()


def test_a_volume_size_rules_whatever_the_extent() -> None:
    plan = Geometry(volume_size=(20, 16, 30))
    for codes, shape in (("RAS", (41, 47, 38)), ("SPL", (9, 40, 15))):
        grid = Grid(shape, tilted(codes, (1.0, 1.2, 1.5)))
        assert network_shape(grid, plan) == (20, 16, 30)
        extent = np.array(canonical_shape(grid)) * canonical_spacing(grid)
        np.testing.assert_allclose(np.array(network_spacing(grid, plan)) * (20, 16, 30), extent)
        label = np.indices(shape)[0] > shape[0] / 2
        assert to_network(Image(label[None].astype(np.float32), grid, ".nii"), plan).shape == (1, 20, 16, 30)
        resized = label_to_network(label.astype(np.int16), grid, plan, num_classes=2)
        assert resized.shape == (20, 16, 30)
        np.testing.assert_allclose(resized.mean(), label.mean(), atol=0.1)  # the same share, as extents agree


def test_pictures_are_resized_and_never_turned() -> None:
    grid = Grid((20, 30), np.eye(4), picture=True)
    array = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(np.uint8)
    image = Image(array, grid, ".png")
    np.testing.assert_array_equal(to_network(image, Geometry(2)), array)
    assert to_network(image, Geometry(2, picture_size=(32, 16))).shape == (3, 32, 16)
    assert network_spacing(grid, Geometry(2, picture_size=(32, 16))) == (1.0, 1.0)
    assert label_to_network(array[0] % 3, grid, Geometry(2, picture_size=(10, 10)), num_classes=3).shape == (10, 10)


def test_dimensionality_must_fit() -> None:
    picture = Grid((4, 5), np.eye(4), picture=True)
    volume = Grid((4, 5, 6), np.eye(4))
    with pytest.raises(UserError, match="a picture, but the model is for volumes"):
        network_shape(picture, Geometry(3))
    with pytest.raises(UserError, match="a volume, but the model is for pictures"):
        to_network(Image(np.zeros((1, 4, 5, 6)), volume, ".nii"), Geometry(2))
