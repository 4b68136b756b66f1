"""Diffusion of label maps: a decoder that cleans noised ones, over another network's encoder, and how to sample."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.networks.initialise import initialise

TIMES = 1000
_WAVES = 64


def share_encoder(network: Any) -> Any:
    """Return a copy of ``network`` whose ``encoder`` is the same module, not a copy."""
    return copy.deepcopy(network, {id(network.encoder): network.encoder})


class DiffusionNetwork(nn.Module):
    """``network``'s encoder and a decoder of its own; predicts a clean label map from a noised one and the image.

    The image and the noised map (B, C, *S) enter by a stem of their own, which replaces the encoder's first level; the
    time is added, as a number for every channel, to every level of the pyramid. ``network`` needs an ``encoder``, a
    list of levels, as the V-Net and the U-Net have.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = share_encoder(network)
        self.stem = _widened(network.encoder[0], network.num_classes)
        self.widths = list(network.widths)
        self.time = nn.Sequential(nn.Linear(2 * _WAVES, 2 * _WAVES), nn.SiLU(), nn.Linear(2 * _WAVES, sum(self.widths)))

    def forward(self, image: Tensor, noised: Tensor, time: Tensor) -> Tensor:
        """Image (B, C_in, *S), noised map (B, C, *S) and times (B,) to logits (B, C, *S)."""
        pyramid = [self.stem(torch.cat([image, noised.to(image.dtype)], 1))]
        for level in self.network.encoder[1:]:
            pyramid.append(level(pyramid[-1]))
        shifts = self.time(waves(time)).split(self.widths, dim=1)
        dims = (1,) * (image.ndim - 2)
        told = [level + shift.view(*shift.shape, *dims) for level, shift in zip(pyramid, shifts, strict=True)]
        logits: Tensor = self.network.head(self.network.decode(told))
        return logits


def waves(time: Tensor) -> Tensor:
    """Return sines and cosines (B, 2 x 64) of times (B,), wavelengths from 2 pi to 20 000 pi."""
    rates = torch.exp(-math.log(10_000) * torch.arange(_WAVES, device=time.device) / _WAVES)
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def signal(time: Tensor) -> Tensor:
    """Return the share of the clean map's variance left at ``time``: the product of ``1 - beta``, linear betas."""
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64), 0)
    return kept.float().to(time.device)[time]


def clean_map(label: Tensor, num_classes: int) -> Tensor:
    """Return ``2 onehot - 1`` (B, C, *S) of labels (B, *S); -1 in every channel where the label is -1."""
    onehot = F.one_hot(label.clamp(min=0), num_classes) * (label >= 0)[..., None]
    return 2 * onehot.movedim(-1, 1).float() - 1


def noised_map(clean: Tensor, time: Tensor, noise: Tensor) -> Tensor:
    """Return ``sqrt(a) clean + sqrt(1 - a) noise`` (B, C, *S) at times (B,), ``a`` the :func:`signal`."""
    left = signal(time).view(-1, *(1,) * (clean.ndim - 1))
    return left.sqrt() * clean + (1 - left).sqrt() * noise


def sample(denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Return the clean map that ``denoise(noised, times)`` leads to from ``noise`` (B, C, *S), in [-1, 1].

    DDIM (Song et al., ICLR 2021) with eta 0: at each of ``steps`` times, evenly spread from the last to 0, the clean
    map is predicted and the noise it implies carried to the next.
    """
    times = torch.linspace(TIMES - 1, 0, steps, device=noise.device).round().long()
    noised, clean = noise, noise
    for number, time in enumerate(times):
        at = time.expand(len(noise))
        clean = denoise(noised, at).float().clamp(-1, 1)
        if number + 1 < steps:
            left = signal(time)
            implied = (noised - left.sqrt() * clean) / (1 - left).sqrt()
            noised = noised_map(clean, times[number + 1].expand(len(noise)), implied)
    return clean


def smooth(values: Tensor) -> Tensor:
    """Return ``values`` (B, C, *S) under a Gaussian of sigma 1, three taps an axis, edges repeated."""
    side = math.exp(-0.5)
    for axis in range(2, values.ndim):
        size = values.shape[axis]
        before = torch.cat([values.narrow(axis, 0, 1), values.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([values.narrow(axis, 1, size - 1), values.narrow(axis, size - 1, 1)], axis)
        values = (values + side * (before + after)) / (1 + 2 * side)
    return values


def _widened(stem: nn.Module, channels: int) -> nn.Module:
    """Return a copy of ``stem`` whose first convolution takes so many ``channels`` more, started anew."""
    wide = copy.deepcopy(stem)
    convolutions = ((n, m) for n, m in wide.named_modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    name, old = next(convolutions)
    kind: Any = type(old)
    form = (old.kernel_size, old.stride, old.padding)
    new = kind(old.in_channels + channels, old.out_channels, *form, bias=old.bias is not None)
    parent, _, own = name.rpartition(".")
    setattr(wide.get_submodule(parent), own, initialise(new, "kaiming"))
    return wide
