"""Instance norm that is fast where channels lie last in memory too."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from semialign.networks.layout import with_channels_last


class InstanceNorm(nn.Module):
    """``nn.InstanceNorm2d`` and ``3d`` with weight and bias, under the same names.

    PyTorch's rewrites a map whose channels lie last into its other layout and back, which takes four times the norm
    itself on a processor. There each sample goes through the batch norm, of which it is a batch.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """Values (B, C, *S) to the same shape and layout."""
        if values.device.type != "cpu" or values.is_contiguous():
            return F.instance_norm(values, weight=self.weight, bias=self.bias, eps=self.eps)
        found: Tensor = _ByBatchNorm.apply(values, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return found


class _ByBatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        values = with_channels_last(values)
        out = torch.empty_like(values)
        moments = [weight.new_empty(len(weight)) for _ in range(2 * len(values))]
        for i in range(len(values)):
            into = {"out": out[i : i + 1], "save_mean": moments[2 * i], "save_invstd": moments[2 * i + 1]}
            torch.ops.aten.native_batch_norm.out(values[i : i + 1], weight, bias, None, None, True, 0.0, eps, **into)
        ctx.save_for_backward(values, weight, *moments)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        values, weight, *moments = ctx.saved_tensors
        gradient = with_channels_last(gradient)
        of_values, of_weight, of_bias = torch.empty_like(values), torch.zeros_like(weight), torch.zeros_like(weight)
        for i in range(len(values)):
            at = slice(i, i + 1)
            found = torch.ops.aten.native_batch_norm_backward(
                gradient[at], values[at], weight, None, None, *moments[2 * i : 2 * i + 2], True, ctx.eps, [True] * 3
            )
            of_values[at] = found[0]
            of_weight += found[1]
            of_bias += found[2]
        return of_values, of_weight, of_bias, None
