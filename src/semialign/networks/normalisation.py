"""Instance norm and group norm that are fast where channels lie last in memory too."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from semialign.networks.layout import with_channels_last

_REGISTER = 16  # float32 numbers of the widest
_SMALL = 300_000  # numbers of a map up to which whole-tensor operations beat a loop over samples


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


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm``, whose gradient takes a fraction of the time on a processor where channels lie last in memory.

    PyTorch's goes there through a group's channels one by one where there are fewer than a register holds. Of small
    maps the sums are taken of all samples at once; of large ones, which would not stay in the cache, they are those of
    each sample's batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Values (B, C, *S) to the same shape and layout."""
        few = self.num_channels < _REGISTER * self.num_groups
        if not few or input.device.type != "cpu" or input.ndim not in (4, 5) or input.is_contiguous():
            return super().forward(input)
        given = input, self.weight, self.bias, self.num_groups, self.eps
        kind = _OfSmall if input.numel() <= _SMALL else _OfLarge
        found: Tensor = kind.apply(*given)  # type: ignore[no-untyped-call]
        return found


class _OfSmall(Function):
    """All samples at once; moments about the mean, since those about 0 cancel where it is large."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = with_channels_last(values).to(weight.dtype)
        count = x[0].numel() // groups
        mean = _of_groups(_summed(x), groups) / count
        centred = x - _spread(mean, x)
        inverse = (_of_groups(_summed(centred.square()), groups) / count + eps).rsqrt()
        ctx.save_for_backward(values, weight, mean, inverse)
        ctx.groups = groups
        return torch.addcmul(_spread(bias[None], x), _spread(weight * inverse, x), centred).to(values.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight, mean, inverse = ctx.saved_tensors
        g, x = (with_channels_last(each).to(weight.dtype) for each in (gradient, values))
        centred, count = x - _spread(mean, x), x[0].numel() // ctx.groups
        summed, scaled = _summed(g), inverse * _summed(g * centred)  # (B, C)
        drift, pull = (_of_groups(weight * each, ctx.groups) / count for each in (summed, scaled))
        # inverse (weight g - drift - pull normed): a share of g, one of x and a constant for each channel.
        of_values = torch.addcmul(_spread(-inverse * drift, x), _spread(weight * inverse, x), g)
        of_values.addcmul_(_spread(-inverse.square() * pull, x), centred)
        return of_values.to(gradient.dtype), scaled.sum(0), summed.sum(0), None, None


def _summed(values: Tensor) -> Tensor:
    """Sum (B, C, *S) over all places: (B, C)."""
    return values.sum(tuple(range(2, values.ndim)))


def _of_groups(values: Tensor, groups: int) -> Tensor:
    """Replace each of (B, C) by the sum over its group."""
    return values.unflatten(1, (groups, -1)).sum(2).repeat_interleave(values.shape[1] // groups, 1)


def _spread(values: Tensor, over: Tensor) -> Tensor:
    """View (B, C) as (B, C, 1, ...), to be broadcast over the places of ``over``."""
    return values.view(*values.shape, *(1,) * (over.ndim - 2))


class _OfLarge(Function):
    """PyTorch's own values; for the gradient a loop over samples, each of which stays in the cache."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        values = with_channels_last(values)
        batch, channels = values.shape[:2]
        places = values[0, 0].numel()
        out, *moments = torch.native_group_norm(values, weight, bias, batch, channels, places, groups, eps)
        ctx.save_for_backward(values, weight, *moments)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight, *moments = ctx.saved_tensors
        gradient = with_channels_last(gradient)
        each = weight.numel() // moments[0].shape[1]
        means, inverses = (of.to(weight.dtype).repeat_interleave(each, 1) for of in moments)  # of each channel's group
        samples, gradients = values.split(1), gradient.split(1)
        sums = [
            torch.ops.aten.native_batch_norm_backward(
                gradients[i], samples[i], weight, None, None, means[i], inverses[i], True, 0.0, [False, True, True]
            )[1:]
            for i in range(len(samples))
        ]
        scaled, summed = (
            torch.stack(of) for of in zip(*sums, strict=True)
        )  # (B, C) of gradient times normed, gradient
        count = each * values[0, 0].numel()
        pull, drift = (
            ((weight * of).view(len(of), -1, each).sum(2) / count).repeat_interleave(each, 1) for of in (scaled, summed)
        )
        # inverse (weight g - drift - pull (x - mean) inverse): a norm of g with given moments, and a share of x.
        shares = (-pull * inverses.square()).to(values.dtype)
        shifts = -inverses * drift - means * shares.to(weight.dtype)
        scales, zero, one = weight * inverses, torch.zeros_like(weight), torch.ones_like(weight)
        of_values = torch.empty_like(values)
        for i, its in enumerate(gradients):
            moved = torch.native_batch_norm(its, scales[i], shifts[i], zero, one, False, 0.0, 0.0)[0]
            x = _rows(samples[i])
            torch.addcmul(_rows(moved), x, shares[i].repeat(x.shape[1] // len(weight)), out=_rows(of_values[i : i + 1]))
        return of_values, scaled.sum(0), summed.sum(0), None, None


def _rows(sample: Tensor) -> Tensor:
    """View one sample (1, C, *S) with its channels last as (S_0, the rest): long rows, along which loops are fast."""
    return sample[0].movedim(0, -1).flatten(1)


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
