"""Calibration: of the voxels to which a class was given with some probability, the share that truly is of that class.

Counted in fixed bins, so that cases add up one after another and nothing but the counts is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IN_QUESTION = 0.01
EDGES = (0.0, IN_QUESTION, *(i / 20 for i in range(1, 20)), 1.0)
"""Limits of the bins. Most voxels of a scan lie in the first, in which a class is out of the question."""


@dataclass(frozen=True)
class Calibration:
    """Counts per class and bin, each (K, bins): ``voxels``, the sum of their ``probability``, and true ``hits``."""

    voxels: np.ndarray
    probability: np.ndarray
    hits: np.ndarray

    @classmethod
    def nothing(cls, classes: int) -> Calibration:
        """Return the counts of no voxel."""
        shape = classes, len(EDGES) - 1
        return cls(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))

    def __add__(self, other: Calibration) -> Calibration:
        """Return the counts of both."""
        return Calibration(self.voxels + other.voxels, self.probability + other.probability, self.hits + other.hits)

    def error(self, value: int, *, everywhere: bool = False) -> float | None:
        """Return the expected calibration error of class ``value``; ``None`` without voxels.

        It is the mean gap between mean probability and true share of a bin, weighted by the bins' voxels (Naeini et
        al., AAAI 2015), here of one class against the rest. ``everywhere``: over all voxels; otherwise where the class
        is in question (probability of 0.01 or more), since easy background would hide any fault.
        """
        first = 0 if everywhere else 1
        voxels, total = self.voxels[value, first:], self.probability[value, first:]
        gaps = np.abs(total - self.hits[value, first:])
        return float(gaps.sum() / voxels.sum()) if voxels.sum() else None

    def mean(self, value: int) -> tuple[float, float] | None:
        """Return mean probability and true share of class ``value`` where it is in question; ``None`` if nowhere."""
        voxels = self.voxels[value, 1:].sum()
        if not voxels:
            return None
        return float(self.probability[value, 1:].sum() / voxels), float(self.hits[value, 1:].sum() / voxels)

    def described(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a JSON-ready tree: the bins, and per class its counts and errors."""
        return {
            "bins": list(EDGES),
            "classes": {
                name: {
                    "error": self.error(value),
                    "error_everywhere": self.error(value, everywhere=True),
                    "voxels": self.voxels[value].tolist(),
                    "probability": self.probability[value].tolist(),
                    "hits": self.hits[value].tolist(),
                }
                for value, name in enumerate(names)
            },
        }


def count(probabilities: Tensor, label: Tensor) -> Calibration:
    """Return the counts of ``probabilities`` (K, *S) against ``label`` (*S); a label outside 0..K-1 is left out."""
    import torch

    classes = len(probabilities)
    found = Calibration.nothing(classes)
    values, label = probabilities.flatten(1).float(), label.flatten().long()
    known = (label >= 0) & (label < classes)
    if not bool(known.all()):
        values, label = values[:, known], label[known]
    edges = torch.tensor(EDGES[2:-1], device=values.device)
    bins = len(EDGES) - 2
    for value, of_class in enumerate(values):
        # Only what is not nearly zero is sorted into bins; the first bin is what remains.
        likely, true = of_class >= IN_QUESTION, label == value
        some = of_class[likely]
        place = torch.bucketize(some, edges, right=True)
        found.voxels[value, 1:] = torch.bincount(place, minlength=bins).cpu().numpy()
        found.probability[value, 1:] = torch.bincount(place, weights=some.double(), minlength=bins).cpu().numpy()
        found.hits[value, 1:] = torch.bincount(place[true[likely]], minlength=bins).cpu().numpy()
        found.voxels[value, 0] = len(label) - len(some)
        found.probability[value, 0] = float(of_class[~likely].sum(dtype=torch.float64))
        found.hits[value, 0] = int((true & ~likely).sum())
    return found
