"""The V-Net of the semi-supervised papers, in 2D and 3D: five levels, isotropic, without residuals."""

from itertools import pairwise

from torch import Tensor, nn

from semialign.common.types import Output
from semialign.networks.convolution import CONVOLUTIONS
from semialign.networks.layout import with_channels_last
from semialign.networks.normalisation import InstanceNorm

ENCODER = (1, 2, 3, 3, 3)
"""Convolutions of the encoder's levels, finest first."""
DECODER = (1, 2, 3, 3)
"""Convolutions of the decoder's levels, finest first."""


_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_DROPOUTS: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_BATCH: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class VNet(nn.Module):
    """Encoder of 1, 2, 3, 3, 3 convolutions a level, decoder of 3, 3, 2, 1; skips add, no residuals.

    Convolutions are 3 wide; a level is reached by a convolution 2 wide of stride 2, and left by a transposed one; each
    is followed by norm and ReLU. ``norm``: ``batch``, ``instance`` (both with weight and bias, so that convolutions
    have no bias) or ``none``. ``dropout``: of half of the channels, at the bottleneck and before the head; pyramid and
    features are shown without it. The image's size must be a multiple of 16. Published width: 16, doubled a level.
    Source: Milletari et al. 2016, as UA-MT, MagicNet and GA-CPS use it.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        dims: int = 3,
        widths: tuple[int, ...] = (16, 32, 64, 128, 256),
        norm: str = "batch",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != len(ENCODER):
            raise ValueError(f"a V-Net has {len(ENCODER)} levels, not {len(widths)}")
        self.channels_last = False
        self.spatial_dims, self.num_classes, self.feature_width = dims, num_classes, widths[0]
        self.widths = tuple(widths)
        self.strides = tuple((2**level,) * dims for level in range(len(widths)))
        self.encoder = nn.ModuleList([_level(dims, channels, widths[0], ENCODER[0], norm)])
        for (before, width), count in zip(pairwise(widths), ENCODER[1:], strict=True):
            self.encoder.append(
                nn.Sequential(_down(dims, before, width, norm), _level(dims, width, width, count, norm))
            )
        self.upsample = nn.ModuleList(_up(dims, below, width, norm) for width, below in pairwise(widths))
        self.decoder = nn.ModuleList(
            _level(dims, width, width, count, norm) for width, count in zip(widths[:-1], DECODER, strict=True)
        )
        self.dropout = _DROPOUTS[dims](0.5) if dropout else nn.Identity()
        self.classifier = CONVOLUTIONS[dims](widths[0], num_classes, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image (B, C_in, *S) to features of every level, finest first."""
        image = with_channels_last(image) if self.channels_last else image
        pyramid = []
        for level in self.encoder:
            image = level(image)
            pyramid.append(image)
        return pyramid

    def decode(self, pyramid: list[Tensor], priors: list[Tensor] | None = None) -> Tensor:
        """Pyramid to features (B, widths[0], *S); ``priors[i]`` is added to the skip of stage ``i``."""
        x = self.dropout(pyramid[-1])
        for i in reversed(range(len(self.decoder))):
            skip = pyramid[i] if priors is None else pyramid[i] + priors[i]
            x = self.decoder[i](skip + self.upsample[i](x))
        return x

    def head(self, features: Tensor) -> Tensor:
        """Features to logits (B, C, *S)."""
        logits: Tensor = self.classifier(self.dropout(features))
        return logits.contiguous()  # class by class, as softmax and losses walk through them

    def forward(self, image: Tensor) -> Output:
        """Image (B, C_in, *S) to :class:`Output`."""
        pyramid = self.encode(image)
        features = self.decode(pyramid)
        return Output(self.head(features), features, pyramid)


def _level(dims: int, width_in: int, width: int, count: int, norm: str) -> nn.Sequential:
    before = (width_in, *(width,) * (count - 1))
    return nn.Sequential(
        *(_block(CONVOLUTIONS[dims](w, width, 3, padding=1, bias=norm == "none"), dims, width, norm) for w in before)
    )


def _down(dims: int, width_in: int, width: int, norm: str) -> nn.Sequential:
    return _block(CONVOLUTIONS[dims](width_in, width, 2, stride=2, bias=norm == "none"), dims, width, norm)


def _up(dims: int, width_in: int, width: int, norm: str) -> nn.Sequential:
    return _block(_TRANSPOSED[dims](width_in, width, 2, stride=2, bias=norm == "none"), dims, width, norm)


def _block(convolution: nn.Module, dims: int, width: int, norm: str) -> nn.Sequential:
    return nn.Sequential(convolution, _norm(dims, width, norm), nn.ReLU(inplace=True))


def _norm(dims: int, width: int, norm: str) -> nn.Module:
    if norm == "batch":
        return _BATCH[dims](width)
    if norm == "instance":
        return InstanceNorm(width)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"no norm named {norm}")
