"""Validation on whole cases, on the network's grid."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from semialign.common.components import keep_largest
from semialign.data.plan import Plan
from semialign.data.store import Store
from semialign.inference.sliding_window import predict_planes

OVERLAP = 0.25  # a validation ranks checkpoints; half of the windows of a prediction do


def validate_case(predict: Callable[[Tensor], Tensor], store: Store, plan: Plan, case: str, classes: int) -> np.ndarray:
    """Return Dice of every foreground class (C-1,) of one case; NaN where neither label nor prediction holds it."""
    image = torch.from_numpy(np.asarray(store.image(case)[:]).astype(np.float32))
    label = torch.from_numpy(np.asarray(store.label(case)[:]).astype(np.int64))
    predicted = torch.zeros_like(label)
    patch, axis = plan.patch_size, plan.slice_axis
    for planes in predict_planes(image, predict, patch=patch, slice_axis=axis, overlap=OVERLAP, batch=2):
        part = planes.probabilities.argmax(0).cpu()
        predicted.narrow(planes.axis, planes.start, part.shape[planes.axis]).copy_(part)
    keep_largest(predicted.numpy(), plan.keep_largest)  # in place; as a prediction is written
    seen = label >= 0
    predicted, label = predicted[seen], label[seen]
    overlap = torch.bincount(label[predicted == label], minlength=classes).float()
    total = torch.bincount(label, minlength=classes) + torch.bincount(predicted, minlength=classes)
    return (2 * overlap / total)[1:].numpy()


def mean_dice(scores: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """Return the mean over classes and each class's mean over the cases that have it (NaN where none has)."""
    table = np.stack(scores)
    counted = ~np.isnan(table)
    per_class = np.where(counted, table, 0).sum(0) / np.maximum(counted.sum(0), 1)
    per_class = np.where(counted.any(0), per_class, np.nan)
    return (float(np.nanmean(per_class)) if counted.any() else 0.0), [float(v) for v in per_class]
