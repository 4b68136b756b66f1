"""What hosts and plug-ins may touch of a network, and nothing else of it."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from semialign.common.types import Output


@runtime_checkable
class Network(Protocol):
    """An ``nn.Module`` that segments and shows its features.

    ``widths`` and ``strides`` describe the pyramid, finest first: level ``i`` has ``widths[i]`` channels and is
    ``strides[i]`` (per axis, cumulative) coarser than the image. There is a decoder stage for every level but the last.
    """

    spatial_dims: int
    num_classes: int
    feature_width: int
    widths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image (B, C_in, *S) to the pyramid, finest first."""
        ...

    def decode(self, pyramid: list[Tensor], priors: list[Tensor] | None = None) -> Tensor:
        """Pyramid to features (B, D, *S); ``priors[i]`` (B, widths[i], *S_i) is added at stage ``i``'s skip."""
        ...

    def head(self, features: Tensor) -> Tensor:
        """Features to logits (B, C, *S)."""
        ...

    def __call__(self, image: Tensor) -> Output:
        """Image to logits, features and pyramid."""
        ...
