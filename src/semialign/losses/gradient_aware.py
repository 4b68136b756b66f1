"""The gradient-aware losses of GA-CPS (ECCV 2024): a Dice that teaches absent classes, a CE of the worst by class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.dice import class_sums

SMOOTH = 1e-10


def ga_loss(logits: Tensor, target: Tensor, *, keep: float, gamma: float = 0.5) -> Tensor:
    """Return ``GACE + GADice`` of ``logits`` (B, C, *S) at ``target`` (B, *S) int64; see :func:`ga_ce`."""
    return ga_ce(logits, target, keep=keep, gamma=gamma) + ga_dice(logits, target)


def ga_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over all classes, background too, of the gradient-aware Dice loss over the batch.

    ``logits`` (B, C, *S), of which the softmax ``p`` is taken in float32 at least; ``target`` (B, *S) int64, where -1
    counts nowhere. A class of the target adds ``1 - (2 sum p g + e) / (sum p^2 + sum g^2 + e)``; an absent one
    ``sum stopgrad(p / N) p`` over the ``N`` annotated voxels, since its Dice has next to no gradient.
    0 where nothing is annotated.
    """
    p = _exact(logits).flatten(2).softmax(1)
    intersection, label, predicted = (s.sum(0) for s in class_sums(p, target.flatten(1), squared=True))
    present = 1 - (2 * intersection + SMOOTH) / (predicted + label + SMOOTH)
    # Half of the gradient of sum p^2 is that of sum stopgrad(p) p, whose value is the same.
    absent = 0.5 * (predicted + predicted.detach()) / label.sum().clamp(min=1)
    return torch.where(label > 0, present, absent).mean().to(p.dtype)


def ga_ce(logits: Tensor, target: Tensor, *, keep: float, gamma: float) -> Tensor:
    """Return the cross-entropy of the ``keep`` percent worst voxels, by class, over the batch.

    ``logits`` (B, C, *S); ``target`` (B, *S) int64, where -1 counts nowhere: of the ``N`` annotated voxels the
    ``M = floor(keep N / 100)`` of largest cross-entropy are kept. Each class adds the sum over its ``n`` kept voxels
    divided by ``n^(1 - gamma) M^gamma``, a class without any 0. ``gamma`` 0 weighs classes alike, 1 voxels alike.
    0 where nothing is kept.
    """
    voxelwise = F.cross_entropy(_exact(logits), target, ignore_index=-1, reduction="none").flatten()
    label = target.flatten()
    if keep < 100:
        annotated = label >= 0
        count = math.floor(keep * int(annotated.sum()) / 100)
        ranked = voxelwise.detach().masked_fill(~annotated, -math.inf)
        kept = ranked.topk(count, sorted=False).indices
        voxelwise, label = voxelwise.gather(0, kept), label.gather(0, kept)
    counts = torch.bincount(label + 1, minlength=logits.shape[1] + 1).double()
    counts[0] = 0  # nobody annotated these
    weights = counts.clamp(min=1) ** (gamma - 1) * counts.sum().clamp(min=1) ** -gamma
    # A sum over voxels of its class's weight, in the type of the cross-entropy: a sum of everything loses no digits, as
    # one by index, voxel after voxel, would.
    return (voxelwise * weights.to(voxelwise.dtype)[label + 1]).sum()


def kept_at(progress: Progress, start: float, end: float) -> float:
    """Return the percentage to keep at ``progress``: ``start`` at the first step, ``end`` at the last (ours).

    It changes by one factor a step. A network that knows nothing yet and learns its worst voxels alone answers the same
    everywhere for hundreds of steps; all of them first, the worst of them later, learns both.
    """
    return start * (end / start) ** min(1.0, progress.step / max(1, progress.max_steps - 1))


def require_ga(*, gamma: float, **keep: float) -> None:
    """Raise :class:`UserError` unless ``gamma`` is from 0 to 1 and every percentage above 0 and at most 100."""
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma {gamma:g}: must be from 0 to 1")
    for name, percent in keep.items():
        if not 0 < percent <= 100:
            raise UserError(f"{name} {percent:g}: must be a percentage above 0, at most 100")


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
