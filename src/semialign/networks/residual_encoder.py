"""SemiGDA's learnable encoder: from an image to the latent of its mask, and to features for the mask adapter."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from torch import Tensor, nn

from semialign.common.errors import require_known
from semialign.networks.normalisation import InstanceNorm


class Preset(TypedDict):
    """Size of a :class:`ResidualEncoder`."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    norm: str
    stem_stride: int


# Batch norm is the ResNet's own; the paper names none. The small one is trained on a few pictures a step, whose
# statistics are too noisy for that; with the U-Net's norm it learns far faster than with one of groups of channels. Its
# stem is thin and halves the size, since what lies at full size costs a processor most.
PRESETS: dict[str, Preset] = {
    "paper": {"widths": (128, 256, 512, 512), "blocks": (3, 4, 6), "norm": "batch", "stem_stride": 1},
    "small": {"widths": (16, 32, 64, 128), "blocks": (1, 1, 1), "norm": "instance", "stem_stride": 2},
}


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}


class Encoding(NamedTuple):
    """What the encoder gives."""

    moments: Tensor  # (B, 2 C_z, h, w): before the autoencoder's quant_conv; the mean is the first half of the channels
    features: list[Tensor]  # (B, widths[i], ...) of stem and stages, finest first


class ResidualEncoder(nn.Module):
    """The body of a ResNet-34 over a stem at full size, then a double convolution to ``2 C_z`` channels.

    ``widths``: of the 3x3 stem and of each stage; ``blocks``: basic blocks of each stage, the first of which halves the
    size, so ``len(widths) == len(blocks) + 1`` and three stages make factor 8. With ``stem_stride`` 2 (ours) the stem
    halves it, and the first stage does not. ``norm``: ``batch``, or ``instance``, which does not look at the other
    pictures of a step. The double convolution's first keeps the width, its last has neither norm nor activation, since
    latents have either sign (ours). ValueError for another ``stem_stride``.
    Source: DAM of SemiGDA (arXiv 2604.23274); He et al. 2016 for the blocks.
    """

    def __init__(
        self,
        latent_channels: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        norm: str,
        stem_stride: int = 1,
        channels: int = 3,
    ) -> None:
        super().__init__()
        require_known(norm, NORMS, "norm")
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, not {stem_stride}")
        make_norm = NORMS[norm]
        self.feature_widths = tuple(widths)
        self.factor = 2 ** len(blocks)
        self.stem = _convolution(channels, widths[0], norm=make_norm, stride=stem_stride)
        strides = (2 // stem_stride, *(2,) * (len(blocks) - 1))
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(width_in, width, stride=stride, norm=make_norm),
                *(BasicBlock(width, width, stride=1, norm=make_norm) for _ in range(count - 1)),
            )
            for width_in, width, count, stride in zip(widths[:-1], widths[1:], blocks, strides, strict=True)
        )
        last = widths[-1]
        self.head = nn.Sequential(
            _convolution(last, last, norm=make_norm), nn.Conv2d(last, 2 * latent_channels, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Encoding:
        """Image (B, channels, H, W), sides multiples of the factor, to moments and features."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return Encoding(self.head(features[-1]), features)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where size or width change."""

    def __init__(self, width_in: int, width: int, *, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(width_in, width, norm=norm, stride=stride),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm(width),
        )
        same = stride == 1 and width_in == width
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(width_in, width, 1, stride=stride, bias=False), norm(width))
        )
        self.activation = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, width_in, H, W) to (B, width, H / stride, W / stride)."""
        activated: Tensor = self.activation(self.residual(values) + self.shortcut(values))
        return activated


def _convolution(width_in: int, width: int, *, norm: Callable[[int], nn.Module], stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False), norm(width), nn.ReLU(inplace=True)
    )
