"""From finished planes on the network's grid to files on the input's: resampled, decided and written as they come."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semialign.common.components import keep_largest
from semialign.common.files import written_whole
from semialign.data.geometry import canonical_shape, canonical_view
from semialign.data.grid import Grid
from semialign.data.image_io import write_label
from semialign.data.resample import apply_along, axis_matrix, axis_weights, resize_axis
from semialign.inference.sliding_window import Planes

CHUNK = 1 << 22
"""Probabilities worked on at a time: few enough to stay out of the way of the sums, many enough for fast loops."""


def write_prediction(
    planes: Iterable[Planes],
    label_path: Path,
    *,
    grid: Grid,
    size: tuple[int, ...],
    like: Path,
    probabilities_path: Path | None = None,
    one_piece: Sequence[Sequence[int]] = (),
    watch: AbstractContextManager[Callable[[Planes], None]] | None = None,
) -> None:
    """Write the most probable class of every voxel of ``grid`` in the format of ``label_path``.

    ``planes``: of the image as the network sees it, ``size`` (*S). ``like``: the input, whose header is carried over.
    ``one_piece``: groups of classes of which the label keeps the largest component alone. ``probabilities_path``: a
    ``.npy`` file that gets float16 (K, *grid.shape) too. ``watch`` is entered, is given every few planes of
    probabilities on the grid of the input (RAS order), and left. Files are written whole or not at all; the label comes
    last, so that where it is, everything is. Raises :class:`UserError` on a full disk.
    """
    with contextlib.ExitStack() as stack:
        look = stack.enter_context(watch) if watch is not None else None
        written = None
        label: np.ndarray | None = None
        shape, whole = canonical_shape(grid), probabilities_path is not None or look is not None
        for part in resampled(planes, size, shape) if whole else _across(planes, size, shape):
            classes = len(part.probabilities)
            if label is None:
                label = np.zeros(grid.shape, np.uint8 if classes <= 256 else np.uint16, order=_order(grid, part.axis))
                if probabilities_path is not None:
                    temporary = stack.enter_context(written_whole(probabilities_path))
                    written = _ProbabilityFile(temporary, classes, grid, label.flags.f_contiguous)
            box = _planes(grid, part)
            canonical_view(label, grid)[box] = decided(part.probabilities, part.axis, shape).cpu().numpy()
            if written is not None:
                written.put(box, part.probabilities)
            if look is not None:
                look(part)
        assert label is not None
        keep_largest(label, one_piece)
    write_label(label_path, label, grid, like)


def resampled(planes: Iterable[Planes], size: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Planes]:
    """Resample a stream of planes of an image (*size) to (*shape), a few planes at a time.

    What is resampled are probabilities, not classes: a boundary comes out smooth, and they still sum to one.
    """
    for part in _across(planes, size, shape):
        yield Planes(part.axis, part.start, _within(part.probabilities, part.axis, shape))


def most_probable(probabilities: Tensor) -> Tensor:
    """Return the class (*S) of the largest of the probabilities (K, *S), the lower one of equals; uint8 or int16."""
    # max tells the place as argmax does, three to ten times faster.
    return probabilities.max(0).indices.to(_kind(len(probabilities)))


def decided(probabilities: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """Return the most probable class of planes across ``axis`` once resampled to (*shape); classes as above.

    Resampled values are means of those given, and the largest is no less than 1/K: a class that stays below that in all
    of these planes is nowhere the most probable, and costs nothing more.
    """
    classes = len(probabilities)
    peak = probabilities.flatten(1).amax(1)
    possible = torch.nonzero(peak >= (1 - 1e-3) / classes)[:, 0]  # sums are 1 but for rounding
    if len(possible) == classes:
        return most_probable(_within(probabilities, axis, shape))
    winner = most_probable(_within(probabilities[possible], axis, shape))
    return possible.to(_kind(classes))[winner.long()]


def _kind(classes: int) -> torch.dtype:
    return torch.uint8 if classes <= 256 else torch.int16


def _across(planes: Iterable[Planes], size: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Planes]:
    """Resample across the planes alone."""
    held: Tensor | None = None  # planes not yet needed for the last time, from ``held_from`` on
    held_from = done = 0
    for part in _chunks(planes, shape):
        axis, values = part.axis, part.probabilities
        if size[axis] == shape[axis]:
            yield part
            continue
        first, weights = axis_weights(size[axis], shape[axis])
        held = values if held is None else torch.cat([held, values], 1 + axis)
        end = held_from + held.shape[1 + axis]
        ready = int(np.searchsorted(first + weights.shape[1], end, side="right"))
        if ready > done:
            matrix = axis_matrix(size[axis], shape[axis], slice(done, ready), slice(held_from, end))
            yield Planes(axis, done, apply_along(held, 1 + axis, torch.from_numpy(matrix).to(held.device)))
            done = ready
        drop = (int(first[done]) if done < len(first) else end) - held_from
        held, held_from = held.narrow(1 + axis, drop, end - held_from - drop).clone(), held_from + drop


def _within(probabilities: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """Resample planes across ``axis`` to the other axes of ``shape``."""
    for other in range(len(shape)):
        if other != axis:
            probabilities = resize_axis(probabilities, 1 + other, shape[other])
    return probabilities


class _ProbabilityFile:
    """A ``.npy`` file that is filled plane by plane; mapped anew each time, so that written pages do not pile up."""

    def __init__(self, path: Path, classes: int, grid: Grid, fortran: bool) -> None:
        self.path, self.grid = path, grid
        shape = (classes, *grid.shape)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape, fortran_order=fortran)
        if hasattr(os, "posix_fallocate"):
            # Writing to a mapping of a full disk kills the process; asking for the room first is an error like any.
            with open(path, "r+b") as handle:
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)

    def put(self, box: tuple[Any, ...], values: Tensor) -> None:
        array = np.lib.format.open_memmap(self.path, mode="r+")
        canonical_view(array, self.grid)[(slice(None), *box)] = values.half().cpu().numpy()


def _chunks(planes: Iterable[Planes], shape: tuple[int, ...]) -> Iterator[Planes]:
    for part in planes:
        axis, values = part.axis, part.probabilities
        plane = values.shape[0] * max(
            int(np.prod([n for a, n in enumerate(s) if a != axis])) for s in (values.shape[1:], shape)
        )
        step = max(1, CHUNK // plane)
        for start in range(0, values.shape[1 + axis], step):
            count = min(step, values.shape[1 + axis] - start)
            yield Planes(axis, part.start + start, values.narrow(1 + axis, start, count))


def _planes(grid: Grid, part: Planes) -> tuple[slice, ...]:
    stop = part.start + part.probabilities.shape[1 + part.axis]
    return tuple(slice(part.start, stop) if a == part.axis else slice(None) for a in range(len(grid.shape)))


def _order(grid: Grid, axis: int) -> Any:
    """Return the memory order ("C" or "F") in which planes across the canonical ``axis`` lie together, if one does."""
    probe = canonical_view(np.zeros(grid.shape, np.bool_), grid)
    return "F" if abs(probe.strides[axis]) == 1 and len(grid.shape) > 1 else "C"
