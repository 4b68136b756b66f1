"""Separable linear resampling by half-pixel centres, anti-aliased where it makes an image smaller.

Output sample ``i`` of ``n_out`` lies at ``(i + 0.5) * n_in / n_out - 0.5`` of the input, so both cover the same extent.
The kernel is a triangle, as wide as one output sample where that is wider than an input sample. Values beyond the
border do not count. Each axis is a short list of weights per output sample, so that a stream of planes needs no more
than a few of them at a time (:func:`axis_matrix`).
"""

import math

import numpy as np
import torch
from scipy.ndimage import find_objects
from torch import Tensor


def axis_weights(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first input index (n_out,) int64 and the weights (n_out, taps) float64 of each output sample.

    Output ``i`` is ``sum(weights[i, t] * input[first[i] + t])``; weights sum to one, indices stay inside the input.
    """
    scale = n_in / n_out
    half_width = max(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) * scale - 0.5
    taps = min(n_in, math.ceil(2 * half_width))
    first = np.clip(np.floor(centre - half_width).astype(np.int64) + 1, 0, n_in - taps)
    weights = np.maximum(0.0, 1.0 - np.abs(first[:, None] + np.arange(taps) - centre[:, None]) / half_width)
    return first, weights / weights.sum(1, keepdims=True)


def axis_matrix(n_in: int, n_out: int, rows: slice, columns: slice) -> np.ndarray:
    """Return the block (rows, columns) float32 of the dense (n_out, n_in) resampling matrix."""
    first, weights = axis_weights(n_in, n_out)
    first, weights = first[rows], weights[rows]
    column = first[:, None] + np.arange(weights.shape[1]) - columns.start
    inside = (column >= 0) & (column < columns.stop - columns.start)
    matrix = np.zeros((len(first), columns.stop - columns.start), np.float32)
    row = np.broadcast_to(np.arange(len(first))[:, None], column.shape)
    matrix[row[inside], column[inside]] = weights[inside]
    return matrix


def apply_along(values: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply ``matrix`` (n_out, n_in) onto one axis of ``values``; the other axes stay."""
    axis %= values.ndim
    if axis == values.ndim - 1:
        return values @ matrix.T
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    flat = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
    return torch.matmul(matrix, flat).reshape(*before, len(matrix), *after)


def resize_axis(values: Tensor, axis: int, size: int) -> Tensor:
    """Resample one axis of float ``values`` to ``size`` samples; returns ``values`` itself where nothing changes."""
    axis %= values.ndim
    if values.shape[axis] == size:
        return values
    before, after = math.prod(values.shape[:axis]), math.prod(values.shape[axis + 1 :])
    # torch's anti-aliased kernel is this module's, for two axes: the axis is made the rows (or the last one's columns).
    layout, target = (1, before, values.shape[axis], after), (size, after)
    if after == 1:
        layout, target = (1, 1, before, values.shape[axis]), (before, size)
    resized = torch.nn.functional.interpolate(
        values.reshape(layout), size=target, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.reshape(*values.shape[:axis], size, *values.shape[axis + 1 :])


def resize(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample ``array`` (C, *S) float32 to (C, *shape); the same array, bit for bit, where the size is the same."""
    values = torch.from_numpy(np.ascontiguousarray(array))
    # The axis that shrinks most goes first: less work and memory for those after it.
    for axis in sorted(range(len(shape)), key=lambda a: shape[a] / array.shape[1 + a]):
        values = resize_axis(values, 1 + axis, shape[axis])
    return values.numpy()


def resize_label(label: np.ndarray, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
    """Resample class numbers (*S) to ``shape``: each class's membership linearly, then the largest wins.

    A tie goes to the lower class. Values outside 0..num_classes-1 (-1, ignore) win where they are nearest.
    Returns the type of ``label``; the same array where the size is the same.
    """
    if tuple(label.shape) == tuple(shape):
        return label
    best = np.zeros(shape, np.float32)
    winner = np.zeros(shape, label.dtype)
    # One pass finds every class's box (numbers from 1 on are looked for), so that small structures are cheap.
    for value, box in enumerate(find_objects(label.astype(np.int32) + 1, num_classes)):
        if box is None:
            continue
        where, membership = _resized_membership(label[box] == value, box, label.shape, shape)
        wins = membership > best[where]
        best[where][wins] = membership[wins]
        winner[where][wins] = value
    if label.min() < 0 or label.max() >= num_classes:
        index = [((np.arange(n) + 0.5) * m / n).astype(np.int64) for n, m in zip(shape, label.shape, strict=True)]
        nearest = label[np.ix_(*index)]
        strange = (nearest < 0) | (nearest >= num_classes)
        winner[strange] = nearest[strange]
    return winner


def _resized_membership(
    mask: np.ndarray, box: tuple[slice, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the part of the output (*shape) that a class inside ``box`` can reach, and its membership there."""
    values = torch.from_numpy(mask.astype(np.float32))
    where = []
    for axis, (along, n_in, n_out) in enumerate(zip(box, size, shape, strict=True)):
        if along == slice(0, n_in):
            where.append(slice(0, n_out))
            values = resize_axis(values, axis, n_out)
            continue
        first, weights = axis_weights(n_in, n_out)
        rows = np.flatnonzero((first < along.stop) & (first + weights.shape[1] > along.start))
        where.append(slice(int(rows[0]), int(rows[-1]) + 1))
        values = apply_along(values, axis, torch.from_numpy(axis_matrix(n_in, n_out, where[-1], along)))
    return tuple(where), values.numpy()
