"""Where a voxel's channels lie in memory: side by side on a processor, whose convolutions are then faster."""

import torch
from torch import Tensor, nn

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def lay_out(module: nn.Module, device: torch.device) -> None:
    """Put channels last in every network below ``module`` where ``device`` is a processor; no number changes.

    Convolutions get their weights so, and networks with an attribute ``channels_last`` are told to lay out images.
    """
    if device.type != "cpu":
        return
    for part in module.modules():
        if isinstance(part, _CONVOLUTIONS):
            part.weight.data = with_channels_last(part.weight.data)
        elif hasattr(part, "channels_last"):
            setattr(part, "channels_last", True)  # noqa: B010  (mypy: any module)


def with_channels_last(values: Tensor) -> Tensor:
    """Return ``values`` (B, C, *S) with the channels last in memory."""
    return values.contiguous(memory_format=_FORMATS[values.ndim])
