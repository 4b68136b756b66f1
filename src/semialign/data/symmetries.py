"""The symmetries of a picture's grid: flips along either axis, the exchange of both, and so quarter turns."""

from collections.abc import Sequence

from torch import Tensor

COUNT = 8
"""Of the square; every symmetry is a number below it."""


def symmetries_of(size: Sequence[int], spacing: Sequence[float], mirror_axes: Sequence[int]) -> tuple[int, ...]:
    """Return the symmetries of a picture of ``size`` (H, W) that flip along ``mirror_axes`` alone.

    The two axes are exchanged only where both may be flipped and the picture is a square, in its ``spacing`` too.
    """
    axes = sum(1 << axis for axis in mirror_axes)
    square = axes == 3 and size[0] == size[1] and spacing[0] == spacing[1]
    return tuple(s for s in range(COUNT) if not (s & 3) & ~axes and (s < 4 or square))


def turned(values: Tensor, symmetry: int) -> Tensor:
    """Return ``values`` (..., H, W) flipped along the rows' axis (1), the columns' (2), and then transposed (4)."""
    flips = [axis for axis, bit in ((-2, 1), (-1, 2)) if symmetry & bit]
    flipped = values.flip(flips) if flips else values
    return (flipped.transpose(-2, -1) if symmetry & 4 else flipped).contiguous()
