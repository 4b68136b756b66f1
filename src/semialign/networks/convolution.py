"""Convolutions by the number of spatial dimensions."""

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """PyTorch's, but in float32 where its bfloat16 gradient is wrong.

    On a processor (PyTorch 2.13.0, oneDNN) the weight gradient of a 3^3 kernel of stride 1 over a map of exactly two
    planes reads memory that nobody has written: now and then the gradient is no number, or simply another one.
    ``tests/networks/test_convolution.py`` shows it.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, D, H, W) to (B, C', D', H', W')."""
        if values.device.type == "cpu" and values.shape[2] == 2 and self.kernel_size[0] == 3 and self.stride[0] == 1:
            with torch.autocast("cpu", enabled=False):
                return super().forward(values.float())
        return super().forward(values)


CONVOLUTIONS: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: Conv3d}
