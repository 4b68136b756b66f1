"""Cutting volumes and pictures into equal cubes, and putting them together again: exact, and so are gradients."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.errors import UserError


def cube_counts(size: Sequence[int], cubes: int) -> tuple[int, ...]:
    """Return into how many pieces to cut each axis of ``size``: the largest divisor of at most ``cubes``.

    Raises :class:`UserError` where no axis can be cut.
    """
    counts = tuple(max(n for n in range(1, cubes + 1) if side % n == 0) for side in size)
    if max(counts) == 1:
        raise UserError(
            f"patch_size {list(size)} cannot be cut into at most {cubes} cubes an axis; choose multiples of 2 or 3, or "
            "cubes=2 or more"
        )
    return counts


def to_cubes(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the cubes (B, N, C, *s) of ``values`` (B, C, *S), position by position in C order."""
    dims = len(counts)
    cut = [n for side, count in zip(values.shape[2:], counts, strict=True) for n in (count, side // count)]
    apart = values.reshape(*values.shape[:2], *cut)
    places, inside = [2 + 2 * a for a in range(dims)], [3 + 2 * a for a in range(dims)]
    return apart.permute(0, *places, 1, *inside).flatten(1, dims)


def from_cubes(cubes: Tensor, counts: Sequence[int]) -> Tensor:
    """Return what :func:`to_cubes` cut: ``cubes`` (B, N, C, *s) as one (B, C, *S)."""
    dims = len(counts)
    apart = cubes.unflatten(1, tuple(counts))
    order = [n for a in range(dims) for n in (1 + a, 2 + dims + a)]
    whole = [n * side for n, side in zip(counts, cubes.shape[3:], strict=True)]
    return apart.permute(0, 1 + dims, *order).reshape(len(cubes), cubes.shape[2], *whole)


def random_order(samples: int, cubes: int, device: torch.device) -> Tensor:
    """Return (samples, cubes): at every cube position a random permutation of the samples."""
    return torch.rand(samples, cubes).argsort(0).to(device)


def exchanged(values: Tensor, counts: Sequence[int], order: Tensor) -> Tensor:
    """Return ``values`` (B, C, *S) with sample ``order[b, n]``'s cube at position ``n`` in sample ``b``.

    ``order.argsort(0)`` undoes it.
    """
    cubes = to_cubes(values, counts)
    return from_cubes(cubes[order, torch.arange(order.shape[1], device=order.device)], counts)


def padded(values: Tensor, multiple: Sequence[int]) -> Tensor:
    """Return ``values`` (B, C, *S) with edges repeated, so that sides are multiples and not all of them one multiple.

    One multiple along every axis would be a single voxel at a network's deepest level, too few for a norm.
    """
    sides = [-(-side // step) * step for side, step in zip(values.shape[2:], multiple, strict=True)]
    if sides == list(multiple):
        sides[-1] *= 2
    pads = [n for side, old in zip(sides, values.shape[2:], strict=True) for n in (side - old, 0)]
    return F.pad(values, pads[::-1], mode="replicate") if any(pads) else values
