"""The U-Net of the default plan, in 2D and 3D, with strides and kernels that follow the spacing."""

from torch import Tensor, nn

from semialign.common.types import Output
from semialign.networks.convolution import CONVOLUTIONS
from semialign.networks.layout import with_channels_last
from semialign.networks.normalisation import InstanceNorm

_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def _block(dims: int, width_in: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(
        CONVOLUTIONS[dims](width_in, width, kernel, stride, tuple(k // 2 for k in kernel), bias=False),
        InstanceNorm(width),
        nn.LeakyReLU(0.01, inplace=True),
    )


def _stage(dims: int, width_in: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(_block(dims, width_in, width, kernel, stride), _block(dims, width, width, kernel, (1,) * dims))


class UNet(nn.Module):
    """Encoder of two convolutions a level, decoder of transposed convolution, added skip, two convolutions.

    Skips add rather than concatenate: measured a fifth faster a step on a processor (the widest convolution at full
    size halves), and a prior then has one place to go.

    ``strides[i]`` is the step into level ``i`` per axis (level 0: all ones); ``kernels[i]`` the kernel there: 1 along
    an axis whose spacing is still coarse, 3 elsewhere. Instance norm and leaky ReLU, so that a batch of two trains and
    a teacher needs no running statistics. The image's size must be a multiple of the product of the strides.
    Source: Ronneberger et al. 2015, with nnU-Net's choice of norm and anisotropic strides.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        widths: tuple[int, ...],
        strides: tuple[tuple[int, ...], ...],
        kernels: tuple[tuple[int, ...], ...],
    ) -> None:
        super().__init__()
        dims = len(strides[0])
        self.channels_last = False
        self.spatial_dims, self.num_classes, self.feature_width = dims, num_classes, widths[0]
        self.widths = tuple(widths)
        self.strides = tuple(tuple(int(s[a]) for a in range(dims)) for s in _cumulative(strides))
        before = (channels, *widths[:-1])
        self.encoder = nn.ModuleList(
            _stage(dims, w_in, w, kernel, stride)
            for w_in, w, kernel, stride in zip(before, widths, kernels, strides, strict=True)
        )
        self.upsample = nn.ModuleList(
            _TRANSPOSED[dims](widths[i + 1], widths[i], strides[i + 1], strides[i + 1], bias=False)
            for i in range(len(widths) - 1)
        )
        self.decoder = nn.ModuleList(
            _stage(dims, widths[i], widths[i], kernels[i], (1,) * dims) for i in range(len(widths) - 1)
        )
        self.classifier = CONVOLUTIONS[dims](widths[0], num_classes, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image (B, C_in, *S) to features of every level, finest first."""
        image = with_channels_last(image) if self.channels_last else image
        pyramid = []
        for stage in self.encoder:
            image = stage(image)
            pyramid.append(image)
        return pyramid

    def decode(self, pyramid: list[Tensor], priors: list[Tensor] | None = None) -> Tensor:
        """Pyramid to features (B, widths[0], *S); ``priors[i]`` is added to the skip of stage ``i``."""
        x = pyramid[-1]
        for i in reversed(range(len(self.decoder))):
            skip = pyramid[i] if priors is None else pyramid[i] + priors[i]
            x = self.decoder[i](skip + self.upsample[i](x))
        return x

    def head(self, features: Tensor) -> Tensor:
        """Features to logits (B, C, *S)."""
        logits: Tensor = self.classifier(features)
        return logits.contiguous()  # class by class, as softmax and losses walk through them

    def forward(self, image: Tensor) -> Output:
        """Image (B, C_in, *S) to :class:`Output`."""
        pyramid = self.encode(image)
        features = self.decode(pyramid)
        return Output(self.head(features), features, pyramid)


def _cumulative(strides: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    total = [1] * len(strides[0])
    result = []
    for stride in strides:
        total = [t * s for t, s in zip(total, stride, strict=True)]
        result.append(tuple(total))
    return result
