"""SemiGDA's losses: alignment of the two latents, agreement of the two outputs, pseudo-labels, mixed pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from semialign.common.components import keep_largest
from semialign.losses.dice import soft_dice


def labelled_alignment(mapped: Tensor, encoded: Tensor, *, anchor: Tensor) -> Tensor:
    """Return ``mse(mapped, anchor) + mse(encoded, anchor)``, a scalar float32; 0 without images.

    All (B, C_z, h, w), times the autoencoder's scale: the mapper's latent, the learnable encoder's and the mask's,
    which gets no gradient. Source: DAM of SemiGDA (arXiv 2604.23274).
    """
    anchor = anchor.detach()
    return _squared_error(mapped, anchor) + _squared_error(encoded, anchor)


def unlabelled_alignment(mapped: Tensor, encoded: Tensor) -> Tensor:
    """Return ``mse(mapped, sg(encoded)) + mse(encoded, sg(mapped))``, a scalar float32; 0 without images.

    Each latent (B, C_z, h, w) is drawn to the other, whose gradient is stopped. That is twice the value of one mean
    squared error, and exactly its gradient.
    """
    return _squared_error(mapped, encoded.detach()) + _squared_error(encoded, mapped.detach())


def alignment(mapped: Tensor, encoded: Tensor, *, anchor: Tensor, weight: float) -> dict[str, Tensor]:
    """Return both alignments by their logged names; of B latents the first ``len(anchor)`` are labelled ones.

    ``weight``: of the unlabelled term.
    """
    known, unknown = zip(*((x[: len(anchor)], x[len(anchor) :]) for x in (mapped, encoded)), strict=True)
    labelled = labelled_alignment(*known, anchor=anchor)
    return {"align labelled": labelled, "align unlabelled": weight * unlabelled_alignment(*unknown)}


def soft_soft_dice(p: Tensor, target: Tensor, *, background: bool = False, smooth: float = 1e-5) -> Tensor:
    """Return ``1 -`` the mean over images and classes of the Dice of two soft outputs (B, K, H, W), a scalar float32.

    ``(2 sum p q + smooth) / (sum p + sum q + smooth)``, without the background unless told otherwise; 0 without
    images. Gradient reaches ``target`` too: detach it where it is to teach only. With it detached each pixel is pushed
    to 1 where its target is above half of the Dice and to 0 elsewhere, so that the outputs grow hard.
    """
    first = 0 if background else 1
    p, q = (_exact(x)[:, first:].flatten(2) for x in (p, target))
    dice = (2 * (p * q).sum(2) + smooth) / (p.sum(2) + q.sum(2) + smooth)
    return (1 - dice).sum() / max(1, dice.numel())


def mutual_dice(p: Tensor, q: Tensor, *, background: bool = False) -> Tensor:
    """Return ``soft_soft_dice(p, sg(q)) + soft_soft_dice(q, sg(p))`` of soft classes (B, K, H, W): 0 to 2."""
    return soft_soft_dice(p, q.detach(), background=background) + soft_soft_dice(q, p.detach(), background=background)


def agreement(p: Tensor, q: Tensor, *, pseudo: str, target: Tensor | None = None) -> Tensor:
    """Return what the soft classes (B, K, H, W) of two outputs teach each other, a scalar float32; 0 without images.

    ``pseudo`` ``soft``: :func:`mutual_dice`; ``hard``: the Dice of both to ``target``, by default the
    :func:`hard_pseudo_labels` of their mean.
    """
    if pseudo == "soft":
        return mutual_dice(p, q)
    target = hard_pseudo_labels((p + q) / 2) if target is None else target
    return foreground_dice(p, target) + foreground_dice(q, target)


def foreground_dice(p: Tensor, target: Tensor) -> Tensor:
    """Return the Dice loss of soft classes (B, K, H, W) to labels (B, H, W), where -1 counts nowhere; 0 without images.

    The mean over images and foreground classes, linear, smooth 1e-5.
    """
    return soft_dice(p, target, per_sample=True, background=False) if len(p) else p.sum()


def hard_pseudo_labels(memberships: Tensor, *, groups: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Return pseudo-labels (B, H, W) int64 of soft classes ``p`` (B, K, H, W): what is sure, by ``p^10 >= 0.5``.

    Two classes, as in SemiGDA's released code: foreground where it is sure, background elsewhere. More (ours): the
    largest membership's class where it is sure, -1 (counts nowhere) elsewhere. Of each of ``groups`` of classes only
    the largest component of an image stays; by default the foreground's of two classes, and nothing of more.
    """
    best, label = _exact(memberships.detach()).max(1)
    sure = best**10 >= 0.5
    two = memberships.shape[1] == 2
    label = torch.where(sure, label, 0 if two else -1)
    groups = ([[1]] if two else []) if groups is None else groups
    if groups:
        single = label.cpu().numpy()
        for each in single:
            keep_largest(each, groups)
        label = torch.from_numpy(single).to(label.device)
    return label


def mix_pairs(image: Tensor, target: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image and its target with the previous one's inside ``mask`` (H, W), the first with the last's.

    ``image`` (B, C, H, W); ``target``: labels (B, H, W), soft classes (B, K, H, W) or a picture. For ``mask`` see
    :func:`semialign.data.transforms.random_cuboid` (mixing as in BCP, CVPR 2023). A single image stays as it is.
    """
    return torch.where(mask, image.roll(1, 0), image), torch.where(mask, target.roll(1, 0), target)


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    return (_exact(a) - _exact(b)).square().sum() / max(1, a.numel())


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
