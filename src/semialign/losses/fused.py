"""Cross-entropy and soft Dice from one softmax, and their gradient in a few passes over the volume.

Left to autograd, softmax, its logarithm and the two sums each keep a volume of classes and walk over it on the way
back. Here one is kept, the probabilities, and ``d loss / d logit_c = p_c (a_c + w - s) + [c = t] (p_t e_t - w)`` with
``a`` and ``e`` the slopes in the class sums ``sum p`` and ``sum p g``, ``w`` that of the cross-entropy, and
``s = sum_c p_c a_c + p_t e_t`` (where ``sum p^2`` is the class sum, ``2 p_c a_c`` stands for ``a_c``).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from semialign.losses.dice import class_sums


class DiceCrossEntropy(Function):
    """``(cross-entropy + Dice loss) / 2`` of ``logits`` (B, C, N), float32 or float64, at ``target`` (B, N) int64."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        squared: bool,
        per_sample: bool,
        background: bool,
        smooth: float,
    ) -> Tensor:
        index, valid = target.clamp(min=0), target >= 0
        log_p = logits.log_softmax(1)
        count = valid.sum().clamp(min=1)
        entropy = -(log_p.gather(1, index[:, None])[:, 0] * valid).sum() / count
        p = log_p.exp_()
        intersection, label, predicted = class_sums(p, target, squared=squared)
        if not per_sample:
            intersection, label, predicted = (v.sum(0, keepdim=True) for v in (intersection, label, predicted))
        numerator, denominator = 2 * intersection + smooth, predicted + label + smooth
        counted = slice(None if background else 1, None)
        dice = (numerator / denominator)[:, counted]
        # Of the loss in sum p and in sum p g, (B or 1, C); a class that is not counted has none.
        slopes = torch.zeros(2, *denominator.shape, dtype=p.dtype, device=p.device)
        slopes[0, :, counted] = (0.5 / dice.numel() * numerator / denominator**2)[:, counted].to(p.dtype)
        slopes[1, :, counted] = (-1 / dice.numel() / denominator)[:, counted].to(p.dtype)
        ctx.save_for_backward(p, target, slopes, (0.5 / count).to(p.dtype))
        ctx.squared = squared
        return (0.5 * (entropy + 1 - dice.mean())).to(p.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        p, target, slopes, share = ctx.saved_tensors
        index, valid = target.clamp(min=0)[:, None], (target >= 0)[:, None]
        in_sum, in_product = (slope.expand(len(p), -1) * gradient for slope in slopes)
        weight = share * gradient
        of_target = p.gather(1, index) * in_product.gather(1, index[:, 0])[:, None]
        with torch.autocast(p.device.type, enabled=False):
            if ctx.squared:
                slope = p * (2 * in_sum[:, :, None])
                mean = torch.einsum("bcn,bcn->bn", p, slope)[:, None]
            else:
                slope, mean = in_sum[:, :, None], torch.bmm(in_sum[:, None], p)
        found = (slope + (weight - mean - of_target)).mul_(p)
        found.scatter_add_(1, index, of_target - weight)
        return found.mul_(valid), None, None, None, None, None
