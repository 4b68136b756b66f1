"""Puts a prior, known on a coarse grid of tokens, into feature maps of any size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Injection(nn.Module):
    """A projection of tokens to several maps' channels, started at zero, then resized to each map.

    Projecting first and resizing after is the same and spares the many channels at full size; the zero start leaves
    the network's function unchanged until the projection learns.
    """

    def __init__(self, width_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        with torch.random.fork_rng(devices=[]):  # the network's own numbers stay where they were
            self.projection = nn.Linear(width_in, sum(widths), bias=False)
        nn.init.zeros_(self.projection.weight)

    def forward(self, tokens: Tensor, grid: Sequence[int], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Tokens (B, L, width_in) on ``grid`` to a map (B, widths[i], *sizes[i]) for every ``i``."""
        maps = self.projection(tokens).transpose(1, 2).split(self.widths, dim=1)
        return [resize(m.reshape(*m.shape[:2], *grid), size) for m, size in zip(maps, sizes, strict=True)]


def resize(values: Tensor, size: Sequence[int]) -> Tensor:
    """Return ``values`` (B, C, *S) at ``size`` by linear interpolation between voxel centres, channels last in memory.

    The same as ``interpolate(..., align_corners=False)`` in two or three dimensions, some ten times faster on a
    processor: each axis is one product of matrices, with all that lies behind it in memory as the other's columns. The
    innermost goes first, so that the largest product is the one with the longest columns, and none needs a copy.
    """
    values = values.movedim(1, -1).contiguous()  # (B, *S, C)
    for axis in reversed(range(1, values.ndim - 1)):
        old, new = values.shape[axis], size[axis - 1]
        if old != new:
            matrix = _interpolation(old, new, values.device).to(values.dtype)
            before, behind = values.shape[:axis], values.shape[axis + 1 :]
            flat = values.reshape(before.numel(), old, behind.numel())
            values = torch.bmm(matrix.expand(len(flat), new, old), flat).reshape(*before, new, *behind)
    return values.movedim(-1, 1)


def _interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """Return the matrix (new, old) of linear interpolation between voxel centres, edges held."""
    at = ((torch.arange(new, device=device, dtype=torch.float32) + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    low = at.floor().long().clamp(max=old - 1)
    high = (low + 1).clamp(max=old - 1)
    share = at - low
    one = F.one_hot(low, old).float() * (1 - share)[:, None] + F.one_hot(high, old).float() * share[:, None]
    return one
