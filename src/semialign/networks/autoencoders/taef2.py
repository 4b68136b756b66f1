"""taef2: a small convolutional autoencoder trained on natural images (madebyollin/taesd, MIT)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.networks.autoencoders.base import Adapt, Autoencoder, Encoded
from semialign.networks.autoencoders.weights import load_strictly, read_safetensors
from semialign.networks.normalisation import GroupNorm

WIDTH = 64
_LATENT = 32


class TaeF2(Autoencoder):
    """Maps (B, 3, H, W) to (B, 32, H/8, W/8) and back; no posterior, no ``quant_conv``, the latents as they are.

    The network itself works on [0, 1]. ``width`` other than 64 serves tests; the published weights have 64. The names
    of the state are the places in two sequences, as in the published file.
    """

    latent_channels = _LATENT
    factor = 8
    scale = 1.0

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        self.feature_widths = self.decoder_widths = (width,) * 4
        self.encoder = nn.Sequential(*_encoder(width))
        self.decoder = nn.Sequential(*_decoder(width))

    @classmethod
    def from_file(cls, path: Path) -> "TaeF2":
        """Read the published weights (half precision in the file); :class:`UserError` where they do not fit."""
        autoencoder = cls()
        load_strictly(autoencoder, read_safetensors(path), path)
        return autoencoder

    def encode(self, image: Tensor) -> Encoded:
        """Image (B, 3, H, W) to latents (B, 32, H/8, W/8), no variance, and features; ValueError for other sizes."""
        self._require_image(image)
        values, features = (image + 1) / 2, []
        modules = list(self.encoder)
        for module, following in zip(modules, [*modules[1:], None], strict=True):
            values = module(values)
            if isinstance(module, _Block) and not isinstance(following, _Block):
                features.append(values)
        return Encoded(values.to(torch.promote_types(values.dtype, torch.float32)), None, features)

    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        """Latent (B, 32, h, w) to an image (B, 3, 8h, 8w); ``adapt`` as in :meth:`Autoencoder.decode`."""
        values, level, previous = latent, len(self.decoder_widths), None
        for module in self.decoder:
            values = module(values)
            if isinstance(module, _Block) and not isinstance(previous, _Block):
                level -= 1
                values = values if adapt is None else adapt(level, values)
            previous = module
        return values * 2 - 1


def _encoder(width: int) -> list[nn.Module]:
    modules: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _Block(width)]
    for pooled in (False, False, True):
        modules.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        modules.extend(_Block(width, pooled=pooled) for _ in range(3))
    return [*modules, nn.Conv2d(width, _LATENT, 3, padding=1)]


def _decoder(width: int) -> list[nn.Module]:
    modules: list[nn.Module] = [_Bound(), nn.Conv2d(_LATENT, width, 3, padding=1), nn.ReLU()]
    for pooled in (True, False, False):
        modules.extend(_Block(width, pooled=pooled) for _ in range(3))
        modules += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return [*modules, _Block(width), nn.Conv2d(width, 3, 3, padding=1)]


class _Bound(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(values / 3) * 3


class _Block(nn.Module):
    """Three convolutions over the identity; ``pooled`` first adds a normed bottleneck the other way round."""

    def __init__(self, width: int, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.pool: nn.Sequential | None = None
        if pooled:
            wide = 4 * width
            self.pool = nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False),
                GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, width, 1, bias=False),
            )

    def forward(self, values: Tensor) -> Tensor:
        if self.pool is not None:
            values = values + self.pool(values)
        return F.relu(self.conv(values) + values)
