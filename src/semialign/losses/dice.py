"""The one soft Dice, with what the papers do differently as arguments, computed by index without one-hot volumes."""

import torch
from torch import Tensor


def soft_dice(
    probabilities: Tensor,
    target: Tensor,
    *,
    squared: bool = False,
    per_sample: bool = False,
    background: bool = True,
    smooth: float = 1e-5,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return ``1 -`` the mean soft Dice of the classes, a scalar float32.

    ``probabilities`` (B, C, *S); ``target`` (B, *S) int64, where -1 counts nowhere. ``squared``: denominators
    ``sum p^2 + sum g^2`` (V-Net, Milletari 2016) rather than ``sum p + sum g``. ``per_sample``: a Dice for every
    sample, then their mean, rather than one over the batch. ``class_weights`` (C,): ``sum_c w_c dice_c / C`` (DHC).
    A class absent from both adds a Dice of about 1 by ``smooth``.
    """
    p = probabilities.flatten(2).float()
    t = target.flatten(1)
    dice = dice_per_class(p, t, squared=squared, smooth=smooth, over_batch=not per_sample)
    if class_weights is not None:
        dice = dice * class_weights
    return 1 - (dice if background else dice[..., 1:]).mean()


def dice_per_class(p: Tensor, t: Tensor, *, squared: bool, smooth: float, over_batch: bool) -> Tensor:
    """Return soft Dice (C,), or (B, C) where not ``over_batch``, of ``p`` (B, C, N) float32 and ``t`` (B, N) int64."""
    intersection, label, predicted = class_sums(p, t, squared=squared)
    if over_batch:
        intersection, label, predicted = intersection.sum(0), label.sum(0), predicted.sum(0)
    return ((2 * intersection + smooth) / (predicted + label + smooth)).to(p.dtype)


def class_sums(p: Tensor, t: Tensor, *, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sum p g``, ``sum g`` and ``sum p`` (or ``p^2``), each (B, C), of ``p`` (B, C, N) and ``t`` (B, N) int64.

    Voxels of -1 count nowhere. The first two are float64, the last of the type of ``p``.
    """
    valid = t >= 0
    index = t.clamp(min=0)
    of_target = p.gather(1, index[:, None])[:, 0] * valid
    # The probability of each voxel's own class, added up by class: all that the intersection needs. In float64, since
    # the sum runs voxel by voxel: over a million of them float32 is off by a hundredth.
    counts = torch.zeros(p.shape[:2], dtype=torch.float64, device=p.device)
    intersection = counts.scatter_add(1, index, of_target.double())
    label = counts.scatter_add(1, index, valid.double())
    inside = p * p if squared else p
    with torch.autocast(p.device.type, enabled=False):  # which would round the sum of the probabilities to bfloat16
        predicted = torch.matmul(inside, valid[:, :, None].to(p.dtype))[..., 0]
    return intersection, label, predicted
