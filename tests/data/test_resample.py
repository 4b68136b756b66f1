"""Resampling against Pillow's resize, torch's, and sums written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from semialign.data.resample import apply_along, axis_matrix, axis_weights, resize, resize_axis, resize_label

SIZES = st.integers(1, 40)


def whole_matrix(n_in: int, n_out: int) -> np.ndarray:
    return axis_matrix(n_in, n_out, slice(0, n_out), slice(0, n_in))


@given(SIZES, SIZES)
@settings(max_examples=60, deadline=None)
def test_weights_are_pillows(n_in: int, n_out: int) -> None:
    first, weights = axis_weights(n_in, n_out)
    assert first.min() >= 0
    assert (first + weights.shape[1]).max() <= n_in
    assert (np.diff(first) >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1)
    # The response to a unit impulse, row by row.
    responses = Pillow.fromarray(np.eye(n_in, dtype=np.float32)).resize((n_out, n_in), Pillow.Resampling.BILINEAR)
    np.testing.assert_allclose(whole_matrix(n_in, n_out), np.asarray(responses).T, atol=2e-6)


@given(SIZES, SIZES)
@settings(max_examples=30, deadline=None)
def test_whole_axis_is_the_matrix_product(n_in: int, n_out: int) -> None:
    values = torch.from_numpy(np.random.default_rng(n_in * 41 + n_out).normal(size=(2, 3, n_in, 4)).astype(np.float32))
    expected = np.einsum("oi,cxiy->cxoy", whole_matrix(n_in, n_out), values.numpy())
    np.testing.assert_allclose(resize_axis(values, 2, n_out).numpy(), expected, atol=3e-5)
    np.testing.assert_allclose(apply_along(values, 2, torch.from_numpy(whole_matrix(n_in, n_out))), expected, atol=1e-5)
    last = values.transpose(2, 3)
    np.testing.assert_allclose(resize_axis(last, 3, n_out), expected.swapaxes(2, 3), atol=3e-5)
    np.testing.assert_allclose(
        apply_along(last, -1, torch.from_numpy(whole_matrix(n_in, n_out))), expected.swapaxes(2, 3), atol=1e-5
    )


@given(SIZES, SIZES, st.data())
@settings(max_examples=30, deadline=None)
def test_a_block_of_the_matrix(n_in: int, n_out: int, data: st.DataObject) -> None:
    rows = slice(*sorted(data.draw(st.tuples(st.integers(0, n_out), st.integers(0, n_out)))))
    columns = slice(*sorted(data.draw(st.tuples(st.integers(0, n_in), st.integers(0, n_in)))))
    np.testing.assert_array_equal(axis_matrix(n_in, n_out, rows, columns), whole_matrix(n_in, n_out)[rows, columns])


def test_positions_are_half_pixel_centres() -> None:
    ramp = np.arange(10, dtype=np.float32)[None]
    np.testing.assert_allclose(resize(ramp, (20,))[0, 1:-1], np.arange(1, 19) / 2 - 0.25, atol=1e-5)
    np.testing.assert_allclose(resize(ramp, (5,))[0, 1:-1], [2.5, 4.5, 6.5], atol=1e-5)
    np.testing.assert_allclose(resize(ramp[:, :3], (1,)), [[1]], atol=1e-6)


def test_shrinking_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), 64)[None]
    shrunk = resize(stripes, (16,))[0]
    assert np.abs(shrunk[1:-1] - 0.5).max() < 0.01


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_resize_of_several_axes(shape: list[int], data: st.DataObject) -> None:
    target = tuple(data.draw(st.integers(1, 12)) for _ in shape)
    array = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    expected = array
    for axis, size in enumerate(target):
        expected = np.moveaxis(np.tensordot(whole_matrix(shape[axis], size), expected, (1, 1 + axis)), 0, 1 + axis)
    result = resize(array, target)
    assert result.dtype == np.float32
    assert result.shape == (2, *target)
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_same_size_is_the_same_bits() -> None:
    array = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(resize(array, (5, 6, 7)), array)
    label = np.random.default_rng(0).integers(-1, 4, (5, 6, 7))
    np.testing.assert_array_equal(resize_label(label, (5, 6, 7), 3), label)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_label_is_the_vote_of_memberships(shape: list[int], data: st.DataObject) -> None:
    target = tuple(data.draw(st.integers(1, 14)) for _ in shape)
    label = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 5, shape).astype(np.int16)
    result = resize_label(label, target, 5)
    assert result.dtype == np.int16
    votes = resize((label == np.arange(5).reshape(5, *[1] * len(shape))).astype(np.float32), target)
    assert result.shape == target
    chosen = np.take_along_axis(votes, result[None].astype(int), 0)[0]
    assert (chosen >= votes.max(0) - 1e-4).all()  # ties may fall either way by rounding


@pytest.mark.parametrize("strange", [-1, 255])
def test_ignored_voxels_stay_where_they_are(strange: int) -> None:
    label = np.zeros((8, 8), np.int16)
    label[2:6, 2:6] = 1
    label[:, 6:] = strange
    larger = resize_label(label, (16, 24), 2)
    expected = np.repeat(np.repeat(label, 2, 0), 3, 1)
    np.testing.assert_array_equal(larger == strange, expected == strange)
    assert set(np.unique(larger)) == {0, 1, strange}
    assert (larger[5:11, 7:17] == 1).all()
    smaller = resize_label(label, (4, 4), 2)
    np.testing.assert_array_equal(smaller == strange, label[1::2, 1::2] == strange)
    all_strange = resize_label(np.full((3, 3), strange, np.int32), (5, 2), 2)
    assert (all_strange == strange).all()


def test_unsigned_labels_and_thin_structures() -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[5:7, 5:7, 5:7] = 200
    result = resize_label(label, (24, 24, 24), 201)
    assert result.dtype == np.uint8
    corners = {(i, j, k) for i in (10, 13) for j in (10, 13) for k in (10, 13)}  # 0.75 ** 3 < 1 / 2 of the vote
    assert {tuple(at) for at in np.argwhere(result[10:14, 10:14, 10:14] != 200) + 10} == corners
    assert (result == 200).sum() == 64 - 8
