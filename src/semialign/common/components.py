"""Connected components of label maps: how much of a region is one piece, and keeping the largest piece."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return ``mask`` (boolean, any dimensions) reduced to its largest component; faces, edges and corners connect."""
    result = np.zeros(mask.shape, bool)
    box = _box(mask)
    if box is not None:
        parts, count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        result[box] = parts == sizes.argmax()
    return result


def share_in_one_piece(mask: np.ndarray) -> float | None:
    """Return the share of ``mask`` that its largest component holds; None where it is empty."""
    total = int(np.count_nonzero(mask))
    return np.count_nonzero(largest_component(mask)) / total if total else None


def keep_largest(label: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Set to background, in place, what of each group of classes lies outside the group's largest component."""
    for group in groups:
        mask = np.isin(label, group) if len(group) > 1 else label == group[0]
        label[mask & ~largest_component(mask)] = 0
    return label


def largest_components(labels: "Tensor", num_classes: int) -> "Tensor":
    """Return ``labels`` (B, *S) where of every foreground class, sample by sample, the largest component is left."""
    import torch

    kept = labels.cpu().numpy().copy()
    groups = [(value,) for value in range(1, num_classes)]
    return torch.from_numpy(np.stack([keep_largest(one, groups) for one in kept]) if len(kept) else kept).to(
        labels.device
    )


def _box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box around ``mask``: most structures fill little of a scan."""
    sides = []
    for axis in range(mask.ndim):
        where = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(where):
            return None
        sides.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(sides)
