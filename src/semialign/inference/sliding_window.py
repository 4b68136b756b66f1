"""Overlapping windows with Gaussian weights, worked off in slabs, so that only one window's depth of planes is held.

All windows that start at the same place along one axis are a slab. Once a slab is done, the planes before the next
slab's start are finished and given away, and their memory is used again. A volume of which the network sees slices is
worked off a few slices at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Windows (B, C, *patch) to probabilities (B, K, *patch)."""


@dataclass(frozen=True)
class Planes:
    """Finished probabilities (K, *S): the image's, but only planes ``start``... along ``axis`` (counted without K).

    The tensor is a view of memory that the next planes overwrite.
    """

    axis: int
    start: int
    probabilities: Tensor


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return evenly spread starts of windows that cover ``size``; neighbours share at least about ``overlap``."""
    if size <= patch:
        return [0]
    steps = math.ceil((size - patch) / max(1.0, patch * (1 - overlap)))
    return [round(i * (size - patch) / steps) for i in range(steps + 1)]


def window_weights(starts: Sequence[int], size: int, patch: int) -> list[Tensor]:
    """Return each window's weights (patch,) along an axis: Gaussian of sigma patch / 8, summing to one at every voxel.

    Windows form a grid and the Gaussian is separable, so that these products need no division afterwards.
    """
    position = torch.arange(patch, dtype=torch.float64)
    gaussian = torch.exp(-0.5 * ((position - (patch - 1) / 2) / (patch / 8)) ** 2)
    total = torch.zeros(max(size, patch), dtype=torch.float64)
    for start in starts:
        total[start : start + patch] += gaussian
    return [(gaussian / total[start : start + patch]).float() for start in starts]


def slab_axis(shape: Sequence[int], patch: Sequence[int]) -> int:
    """Return the axis along which slabs take the least memory: a window covers the smallest share of it."""
    return min(range(len(shape)), key=lambda axis: patch[axis] / max(shape[axis], patch[axis]))


def mirrored(predict: Predict, axes: Sequence[int]) -> Predict:
    """Return ``predict`` averaged over all flips along the spatial ``axes``."""
    sets = [tuple(2 + a for a in s) for n in range(len(axes) + 1) for s in itertools.combinations(axes, n)]

    def average(windows: Tensor) -> Tensor:
        total = predict(windows).float()
        for flips in sets[1:]:
            total = total + predict(windows.flip(flips)).flip(flips)
        return total / len(sets)

    return average if axes else predict


def predict_planes(
    image: Tensor,
    predict: Predict,
    *,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    slice_axis: int | None = None,
) -> Iterator[Planes]:
    """Predict ``image`` (C, *S) window by window; yield its planes in order as they are finished.

    An image smaller than ``patch`` is padded with zeros (the mean, once normalised) on both sides, its padding cut off
    again. Sums are float32, on the device ``predict`` answers from. Held at a time: ``patch`` planes of probabilities.
    ``slice_axis``: ``patch`` is of slices of a volume across this axis; ``predict`` then gets a window of ``batch``
    neighbouring slices at a time (B, C, *patch), and so many slices are held.
    """
    if slice_axis is not None:
        yield from _slices(image, predict, slice_axis, tuple(patch), overlap, batch)
        return
    shape = tuple(image.shape[1:])
    before = [max(0, p - n) // 2 for n, p in zip(shape, patch, strict=True)]
    if any(p > n for n, p in zip(shape, patch, strict=True)):
        after = [max(0, p - n) - b for n, p, b in zip(shape, patch, before, strict=True)]
        pads = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
        image = torch.nn.functional.pad(image, pads)
    axis = slab_axis(shape, patch)
    for planes in _padded_planes(image, predict, axis, tuple(patch), overlap, batch):
        values = planes.probabilities
        for at, (start, size) in enumerate(zip(before, shape, strict=True)):
            if patch[at] > size:  # along the slabs' axis too: then one slab is all of it
                values = values.narrow(1 + at, start, size)
        yield Planes(axis, planes.start, values)


def _slices(
    image: Tensor, predict: Predict, axis: int, patch: tuple[int, ...], overlap: float, batch: int
) -> Iterator[Planes]:
    def of_stack(window: Tensor) -> Tensor:
        """Predict one window whose slices lie along ``axis``."""
        return predict(window[0].movedim(1 + axis, 0).contiguous()).movedim(0, 1 + axis)[None]

    for start in range(0, image.shape[1 + axis], batch):
        stack = image.narrow(1 + axis, start, min(batch, image.shape[1 + axis] - start))
        window = (*patch[:axis], stack.shape[1 + axis], *patch[axis:])
        parts = predict_planes(stack, of_stack, patch=window, overlap=overlap)
        done = [(part.axis, part.probabilities.clone()) for part in parts]
        yield Planes(axis, start, torch.cat([values for _, values in done], 1 + done[0][0]))


def _padded_planes(
    image: Tensor, predict: Predict, axis: int, patch: tuple[int, ...], overlap: float, batch: int
) -> Iterator[Planes]:
    size = image.shape[1:]
    starts = [window_starts(n, p, overlap) for n, p in zip(size, patch, strict=True)]
    if all(len(s) == 1 for s in starts):
        yield Planes(axis, 0, predict(image[None])[0].float())
        return
    weights = [window_weights(s, n, p) for s, n, p in zip(starts, size, patch, strict=True)]
    places = list(itertools.product(*(range(1 if a == axis else len(s)) for a, s in enumerate(starts))))
    sums: Tensor | None = None
    for slab, start in enumerate(starts[axis]):
        for first in range(0, len(places), batch):
            chosen = [tuple(slab if a == axis else i for a, i in enumerate(p)) for p in places[first : first + batch]]
            corners = [tuple(starts[a][i] for a, i in enumerate(p)) for p in chosen]
            answer = predict(torch.stack([image[_box(corner, patch)] for corner in corners])).float()
            if sums is None:
                depth = [patch[a] if a == axis else n for a, n in enumerate(size)]
                sums = torch.zeros((answer.shape[1], *depth), device=answer.device)
                weights = [[w.to(answer.device) for w in along] for along in weights]
            for values, place, corner in zip(answer, chosen, corners, strict=True):
                inside = tuple(0 if a == axis else c for a, c in enumerate(corner))
                weight = _outer([weights[a][i] for a, i in enumerate(place)])
                sums[_box(inside, patch)].addcmul_(values, weight)
        assert sums is not None
        ready = (starts[axis][slab + 1] if slab + 1 < len(starts[axis]) else size[axis]) - start
        yield Planes(axis, start, sums.narrow(1 + axis, 0, ready))
        _move_up(sums, 1 + axis, ready)


def _box(corner: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))


def _outer(weights: Sequence[Tensor]) -> Tensor:
    product = weights[0]
    for weight in weights[1:]:
        product = product[..., None] * weight
    return product


def _move_up(sums: Tensor, axis: int, step: int) -> None:
    """Drop the first ``step`` planes: move the others to the front, zero what is free."""
    size = sums.shape[axis]
    for start in range(0, size - step, step):  # parts of one step each: source and target never overlap
        count = min(step, size - step - start)
        sums.narrow(axis, start, count).copy_(sums.narrow(axis, start + step, count))
    sums.narrow(axis, size - step, step).zero_()
