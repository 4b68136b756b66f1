"""The largest component, against scikit-image's labelling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label as skimage_label

from semialign.common.components import keep_largest, largest_component, share_in_one_piece


def test_keeps_the_larger_of_two() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]], bool)
    expected = np.zeros((4, 4), bool)
    expected[1:, 3] = True
    assert np.array_equal(largest_component(mask), expected)


@pytest.mark.parametrize("shape", [(5,), (4, 4), (3, 3, 3)])
def test_nothing_stays_nothing_and_everything_everything(shape: tuple[int, ...]) -> None:
    assert not largest_component(np.zeros(shape, bool)).any()
    assert largest_component(np.ones(shape, bool)).all()


def test_corners_connect() -> None:
    mask = np.zeros((4, 4, 4), bool)
    for i in range(3):
        mask[i, i, i] = True
    mask[3, 0, 0] = True
    found = largest_component(mask)
    assert found.sum() == 3
    assert not found[3, 0, 0]


def test_integers_are_taken_as_mask_and_not_changed() -> None:
    mask = np.array([[2, 0, 5, 5]], np.uint8)
    found = largest_component(mask)
    assert found.dtype == bool
    assert found.tolist() == [[False, False, True, True]]
    assert mask.tolist() == [[2, 0, 5, 5]]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.6), st.sampled_from([2, 3]))
def test_agrees_with_scikit_image(seed: int, density: float, dims: int) -> None:
    mask = np.random.default_rng(seed).random((7,) * dims) < density
    parts = skimage_label(mask, connectivity=dims)
    sizes = np.bincount(parts.ravel())[1:]
    found = largest_component(mask)
    assert found.sum() == (sizes.max() if len(sizes) else 0)
    assert not (found & ~mask).any()
    assert len(np.unique(parts[found])) <= 1


def test_share_in_one_piece() -> None:
    mask = np.zeros((6, 6), bool)
    assert share_in_one_piece(mask) is None
    mask[0, :3] = mask[5, 5] = True
    assert share_in_one_piece(mask) == 0.75


def test_keeps_the_largest_of_a_group_and_of_a_class() -> None:
    label = np.array([[1, 2, 0, 1], [0, 0, 0, 2], [0, 0, 0, 2], [3, 0, 3, 0]], np.uint8)
    expected = label.copy()
    expected[0, :2] = 0  # the smaller of two pieces, whatever its classes
    assert np.array_equal(keep_largest(label.copy(), [[1, 2]]), expected)
    expected = label.copy()
    expected[0, 1] = 0
    assert np.array_equal(keep_largest(label.copy(), [(2,)]), expected)
    assert np.array_equal(keep_largest(label.copy(), []), label)
    assert not keep_largest(np.zeros((3, 3), np.uint8), [[1, 2]]).any()
