"""Implicit shapes: distances against closed forms and against evaluation on the whole grid."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from semialign.data.phantom_shapes import Blob, Limb, Points, SplineField, tube, union

AXES = tuple(np.linspace(-40, 40, n, dtype=np.float32) for n in (33, 29, 25))


@pytest.fixture
def points():
    matrix = Rotation.from_euler("xyz", (5, -8, 20), degrees=True).as_matrix() * (0.9, 1.1, 1.0)
    shift = np.array((3.0, -4.0, 2.0))
    grid = np.stack(np.meshgrid(*AXES, indexing="ij")).reshape(3, -1)
    body = np.linalg.solve(matrix, grid - shift[:, None]).reshape(3, *map(len, AXES)).astype(np.float32)
    return Points(AXES, body, matrix, shift, 0.0)


def test_a_round_blob_is_a_sphere():
    place = np.random.default_rng(0).uniform(-30, 30, (3, 200)).astype(np.float32)
    blob = Blob(np.array((1.0, 2.0, 3.0)), np.full(3, 7.0), np.eye(3))
    wanted = np.linalg.norm(place - np.array((1, 2, 3))[:, None], axis=0) - 7
    assert np.allclose(blob.distance(place), wanted, atol=1e-4)


def test_a_blob_turns_with_its_rotation():
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    blob = Blob(np.zeros(3), np.array((10.0, 4.0, 4.0)), turn)
    on_surface = np.array([[0, 10, 0], [4, 0, 0], [0, 0, -4]], np.float32).T
    assert np.allclose(blob.distance(on_surface), 0, atol=1e-4)
    assert np.allclose(blob.bounds(), ([-4, -10, -4], [4, 10, 4]))


def test_a_limb_of_one_radius_is_a_capsule():
    rng = np.random.default_rng(1)
    place = rng.uniform(-30, 30, (3, 300)).astype(np.float32)
    start, end = np.array((-10.0, 0.0, 5.0)), np.array((12.0, 8.0, -3.0))
    dense = start + np.linspace(0, 1, 4001)[:, None] * (end - start)
    wanted = np.linalg.norm(place.T[:, None] - dense[None], axis=2).min(1) - 4
    assert np.allclose(Limb(start, end, (4, 4)).distance(place), wanted, atol=1e-2)


def test_a_tube_passes_through_its_points_with_its_radii():
    path, radii = [(0, 0, 0), (10, 5, 0), (20, -5, 8)], [3, 4, 2]
    limbs = tube(path, radii)
    for at, radius in zip(path, radii, strict=True):
        here = np.array(at, np.float32)[:, None]
        assert min(limb.distance(here)[0] for limb in limbs) == pytest.approx(-radius, abs=0.6)


def test_boxes_miss_nothing(points):
    """A union evaluated in boxes of the grid equals the plain minimum over the whole grid wherever that is inside."""
    parts = (
        Blob(np.array((5.0, 3.0, -4.0)), np.array((12.0, 6.0, 9.0)), Rotation.from_euler("x", 30, True).as_matrix()),
        *tube([(-20, -20, 0), (0, 10, 5), (20, 20, -10)], [4, 5, 3]),
    )
    hole = Blob(np.array((5.0, 3.0, -4.0)), np.array((5.0, 5.0, 5.0)), np.eye(3))
    found = union(parts, points, holes=(hole,))
    assert found is not None
    box, distance = found
    whole = np.full(points.body.shape[1:], np.inf, np.float32)
    whole[box] = distance
    wanted = np.min([part.distance(points.body) for part in parts], axis=0)
    wanted = np.maximum(wanted, -hole.distance(points.body))
    assert (wanted < 0).sum() > 200
    assert np.array_equal(whole < 0, wanted < 0)
    assert np.allclose(whole[wanted < 0], wanted[wanted < 0], atol=1e-4)


def test_blending_only_adds(points):
    parts = tuple(Blob(np.array((x, 0.0, 0.0)), np.full(3, 10.0), np.eye(3)) for x in (-9.0, 9.0))
    plain, melted = union(parts, points), union(parts, points, blend=6)
    counts = [(found[1] < 0).sum() for found in (plain, melted)]
    assert counts[0] < counts[1] < 1.3 * counts[0]


def test_a_shape_outside_the_grid_is_nothing(points):
    assert union((Blob(np.full(3, 500.0), np.full(3, 5.0), np.eye(3)),), points) is None


def test_a_field_does_not_depend_on_its_sampling():
    field = SplineField(np.random.default_rng(2), (40, 40, 40), knot=11)
    coarse = field([axis[::2] for axis in AXES])
    assert np.allclose(field(AXES)[::2, ::2, ::2], coarse, atol=1e-5)


@pytest.mark.parametrize(("knot", "smooth"), [(5, 0), (12, 0), (12, 0.6)])
def test_a_field_has_about_unit_spread_and_is_smooth(knot, smooth):
    fields = [SplineField(np.random.default_rng(i), (40, 40, 40), knot=knot, smooth=smooth)(AXES) for i in range(12)]
    assert 0.7 < np.std(fields) < 1.4
    field = SplineField(np.random.default_rng(0), (40, 40, 40), knot=knot, smooth=smooth)
    along = field([np.arange(-40, 40, knot / 50), *AXES[1:]])
    assert np.abs(np.diff(along, axis=0)).max() < 0.2


def test_a_field_works_in_the_plane():
    field = SplineField(np.random.default_rng(2), (0.5, 0.7), knot=0.1)
    assert field([np.linspace(-0.5, 0.5, 20), np.linspace(-0.7, 0.7, 30)]).shape == (20, 30)
