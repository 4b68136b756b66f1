"""Cross-entropy and the sum that trains on labels: cross-entropy and Dice from one softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.losses.fused import DiceCrossEntropy


def cross_entropy(
    logits: Tensor, target: Tensor, *, weights: Tensor | None = None, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of ``logits`` (B, C, *S) at ``target`` (B, *S); voxels of -1 count nowhere.

    ``weights`` (B, *S): per-voxel factors; the mean is over all annotated voxels. ``class_weights`` (C,): ``sum_i w_i
    ce_i / sum_i w_i``, ``w_i`` that of the voxel's class. 0 where nothing is annotated.
    """
    voxelwise = F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="none")
    if class_weights is not None:
        of_voxel = class_weights[target.clamp(min=0)] * (target >= 0)
        return (voxelwise * of_voxel).sum() / of_voxel.sum().clamp(min=1e-8)
    if weights is not None:
        voxelwise = voxelwise * weights
    return voxelwise.sum() / (target >= 0).sum().clamp(min=1)


def dice_ce(
    logits: Tensor,
    target: Tensor,
    *,
    squared: bool = False,
    per_sample: bool = False,
    background: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    """Return ``(cross-entropy + Dice loss) / 2`` of ``logits`` (B, C, *S) at ``target`` (B, *S); -1 counts nowhere.

    The Dice is over the foreground classes and the batch unless told otherwise; see :func:`soft_dice`.
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(2)
    loss: Tensor = DiceCrossEntropy.apply(  # type: ignore[no-untyped-call]
        exact, target.flatten(1), squared, per_sample, background, smooth
    )
    return loss
