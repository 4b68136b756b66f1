"""Validation on whole cases, on the network's grid."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from semialign.data.plan import Plan
from semialign.data.store import Store
from semialign.inference.sliding_window import predict_planes

OVERLAP = 0.25  # a validation ranks checkpoints; half of the windows of a prediction do


def validate_case(predict: Callable[[Tensor], Tensor], store: Store, plan: Plan, case: str, classes: int) -> np.ndarray:
    """Return Dice of every foreground class (C-1,) of one case; NaN where neither label nor prediction holds it."""
    image = torch.from_numpy(np.asarray(store.image(case)[:]).astype(np.float32))
    label = torch.from_numpy(np.asarray(store.label(case)[:]).astype(np.int64))
    overlap, total = torch.zeros(classes), torch.zeros(classes)
    for planes in predict_planes(image, predict, patch=plan.patch_size, overlap=OVERLAP, batch=2):
        predicted = planes.probabilities.argmax(0).cpu()
        target = label.narrow(planes.axis, planes.start, predicted.shape[planes.axis])
        seen = target >= 0
        predicted, target = predicted[seen], target[seen]
        overlap += torch.bincount(target[predicted == target], minlength=classes)
        total += torch.bincount(target, minlength=classes) + torch.bincount(predicted, minlength=classes)
    return (2 * overlap / total)[1:].numpy()


def mean_dice(scores: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """Return the mean over classes and each class's mean over the cases that have it (NaN where none has)."""
    table = np.stack(scores)
    counted = ~np.isnan(table)
    per_class = np.where(counted, table, 0).sum(0) / np.maximum(counted.sum(0), 1)
    per_class = np.where(counted.any(0), per_class, np.nan)
    return (float(np.nanmean(per_class)) if counted.any() else 0.0), [float(v) for v in per_class]
