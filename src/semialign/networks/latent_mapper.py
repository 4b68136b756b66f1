"""SemiGDA's latent mapper: from the frozen latent of an image to that of its mask."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.networks.normalisation import GroupNorm

WIDTHS = {"paper": (32, 64, 128, 128), "small": (16, 32, 64)}

_FEW = 1024  # positions up to which a processor attends in half the time if all pairs are held at once


class LatentMapper(nn.Module):
    """A U of residual blocks with self-attention, all at the latent's own resolution, nothing down- or upsampled.

    A 3x3 convolution to ``widths[0]`` channels, blocks to ``widths``, then as many blocks back: each takes what came
    before together with the input of the block that it mirrors, and has that input's width. GroupNorm, SiLU and a 3x3
    convolution end it. Source: DAM of SemiGDA (arXiv 2604.23274); ``widths`` are ours where they are not the paper's.
    """

    def __init__(self, latent_channels: int, *, widths: Sequence[int] = WIDTHS["paper"]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        inputs = (widths[0], *widths[:-1])
        self.inwards = nn.ModuleList(MapperBlock(i, w) for i, w in zip(inputs, widths, strict=True))
        self.outwards = nn.ModuleList()
        width = widths[-1]
        for mirrored in reversed(inputs):
            self.outwards.append(MapperBlock(width + mirrored, mirrored))
            width = mirrored
        self.head = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        """Latent (B, C_z, h, w) of the image to one (B, C_z, h, w) of the mask, both times the autoencoder's scale."""
        x = self.stem(latent)
        inputs = []
        for block in self.inwards:
            inputs.append(x)
            x = block(x)
        for block in self.outwards:
            x = block(torch.cat([x, inputs.pop()], 1))
        mapped: Tensor = self.head(x)
        return mapped


class MapperBlock(nn.Module):
    """A pre-activation residual of two 3x3 convolutions, then self-attention over all positions."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _norm(width_in),
            nn.PReLU(),
            nn.Conv2d(width_in, width, 3, padding=1),
            _norm(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.attention = SelfAttention(width)

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, width_in, h, w) to (B, width, h, w)."""
        attended: Tensor = self.attention(self.shortcut(values) + self.residual(values))
        return attended


class SelfAttention(nn.Module):
    """Single-head attention of every position to all, added to what went in; positions carry no code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.take = nn.Conv2d(width, 3 * width, 1)
        self.give = nn.Conv2d(width, width, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, h, w) to the same shape."""
        tokens = self.take(self.norm(values)).flatten(2).transpose(1, 2)  # (B, h w, 3 C)
        query, key, value = tokens.chunk(3, dim=-1)
        mixed = _attend(query, key, value).transpose(1, 2).reshape(values.shape)
        return values + self.give(mixed)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``softmax(query key^T / sqrt(C)) value``, (B, N, C) each."""
    if query.device.type == "cpu" and query.shape[1] <= _FEW:
        weights = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2)).softmax(-1)
        return torch.bmm(weights.to(value.dtype), value)
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]


def _norm(width: int) -> GroupNorm:
    """Return the paper's GroupNorm of 16 groups, or of the most groups below that ``width`` can be parted into."""
    return GroupNorm(math.gcd(16, width), width)
