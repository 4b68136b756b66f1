"""SemiGDA's skip adapters: features of an encoder, put into a frozen decoder at every resolution (CDSA)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semialign.networks.autoencoders.base import Adapt
from semialign.networks.injection import resize
from semialign.networks.normalisation import GroupNorm


class SkipAdapters(nn.Module):
    """One light residual block a resolution: ``adapters(skips)`` gives the ``adapt`` that the decoder calls.

    ``skip_widths`` and ``decoder_widths``: channels of the skips and of the decoder where it asks, both finest first
    and one for one. ``hidden``: width of each block (default: a quarter of the decoder's, at least 16).
    Source: CDSA of SemiGDA (arXiv 2604.23274). The blocks and their start, at which the decoder's output is untouched,
    are ours.
    """

    def __init__(
        self, skip_widths: Sequence[int], decoder_widths: Sequence[int], *, hidden: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        hidden = [max(16, width // 4) for width in decoder_widths] if hidden is None else hidden
        self.blocks = nn.ModuleList(
            SkipAdapter(skip, width, hidden=h)
            for skip, width, h in zip(skip_widths, decoder_widths, hidden, strict=True)
        )

    def forward(self, skips: Sequence[Tensor]) -> Adapt:
        """Skips (B, skip_widths[i], H_i, W_i), finest first, to ``adapt(level, h)``, level 0 the finest.

        ``h`` (B, decoder_widths[level], *S) comes back in its shape and type; a skip of another size is resized.
        """
        if len(skips) != len(self.blocks):
            raise ValueError(f"{len(skips)} skips for {len(self.blocks)} adapters")

        def adapt(level: int, h: Tensor) -> Tensor:
            adapted: Tensor = self.blocks[level](h, skips[level])
            return adapted

        return adapt


class SkipAdapter(nn.Module):
    """``h`` plus two 3x3 convolutions, the last started at zero, of ``h`` and the skip side by side.

    Each is first brought to half of ``hidden`` channels by a 1x1 convolution, which is what makes the block light, and
    normed on its own, since a frozen network's features may be hundreds of times larger than a learnt one's.
    """

    def __init__(self, skip_width: int, width: int, *, hidden: int) -> None:
        super().__init__()
        half = hidden // 2
        self.reduce_h = nn.Conv2d(width, half, 1, bias=False)
        self.reduce_skip = nn.Conv2d(skip_width, half, 1, bias=False)
        self.body = nn.Sequential(
            group_norm(half, times=2),  # of both, whose groups end where the two meet
            nn.SiLU(),
            nn.Conv2d(2 * half, 2 * half, 3, padding=1, bias=False),
            group_norm(2 * half),
            nn.SiLU(),
        )
        self.last = nn.Conv2d(2 * half, width, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, skip: Tensor) -> Tensor:
        """``h`` (B, width, H, W) and skip (B, skip_width, H', W') to (B, width, H, W)."""
        reduced = self.reduce_skip(skip)
        if reduced.shape[2:] != h.shape[2:]:
            reduced = resize(reduced, h.shape[2:])
        return h + self.last(self.body(torch.cat([self.reduce_h(h), reduced], 1))).to(h.dtype)


def group_norm(width: int, *, times: int = 1) -> nn.Module:
    """Return a GroupNorm of eight channels a group, of ``times`` maps of ``width`` channels side by side.

    One channel a group would wipe out each map's mean.
    """
    return GroupNorm(times * (width // math.gcd(8, width)), times * width)
