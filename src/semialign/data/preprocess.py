"""From a raw case to what the network sees: orientation, spacing, normalised intensities."""

import math

import numpy as np

from semialign.common.errors import UserError
from semialign.data.dataset import Case, Dataset, check_label, read_case
from semialign.data.geometry import label_to_network, to_network
from semialign.data.image_io import read_grid, read_label
from semialign.data.plan import Normalisation, Plan

IGNORED = -1


def normalise(array: np.ndarray, plan: Plan) -> np.ndarray:
    """Normalise ``array`` (C, *S) float32 in place, channel by channel, and return it.

    Raises :class:`UserError` where the number of channels is not the plan's.
    """
    if len(array) != len(plan.normalisation):
        raise UserError(f"{len(array)} channels where the plan has {len(plan.normalisation)}")
    for channel, how in zip(array, plan.normalisation, strict=True):
        _normalise_channel(channel, how)
    return array


def preprocess_image(case: Case, plan: Plan) -> np.ndarray:
    """Return a case's image as the network sees it: float32 (C, *S)."""
    return normalise(to_network(read_case(case, len(plan.normalisation)), plan), plan)


def preprocess_label(case: Case, plan: Plan, dataset: Dataset) -> np.ndarray:
    """Return a case's label on the network's grid: int16 (*S), -1 where nobody annotated.

    Raises :class:`UserError` where label and image do not fit (see :func:`check_label`).
    """
    assert case.label is not None
    label, grid = read_label(case.label)
    of_image = read_grid(case.images[0])
    check_label(case.label, label, grid, of_image, dataset)
    ignored = label == dataset.ignore  # before the cast: 65535 is a usual choice
    label = label.astype(np.int16)
    label[ignored] = IGNORED
    return label_to_network(label, of_image, plan, num_classes=dataset.num_classes)


def _normalise_channel(channel: np.ndarray, how: Normalisation) -> None:
    if how.scheme == "z-score":
        # Percentiles keep one hot voxel from squeezing the rest; a sample of a large volume tells them as well.
        # The step shares no factor with any axis, or it might see one slice alone.
        step = max(1, channel.size // 1_000_000)
        while math.gcd(step, channel.size) > 1:
            step += 1
        seen = channel.ravel()[::step]
        low, high = np.percentile(seen, [0.1, 99.9])
        np.clip(channel, low, high, out=channel)
        mean, std = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
    elif how.scheme in ("ct", "picture"):
        if how.low is not None or how.high is not None:
            np.clip(channel, how.low, how.high, out=channel)
        mean, std = how.mean, how.std
    else:
        raise UserError(f"plan.yaml: unknown normalisation '{how.scheme}'; there are ct, picture, z-score")
    channel -= mean
    channel /= max(std, 1e-8 * max(1.0, abs(mean)))
