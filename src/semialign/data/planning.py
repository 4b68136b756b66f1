"""Planning: sizes, spacing, normalisation and network for a data set's fingerprint and the hardware at hand."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.data.plan import Normalisation, Plan

ACCELERATORS = ("auto", "cpu", "cuda", "gpu")
_FLAT = 1.5  # voxels, of a median size: volumes of one slice


@dataclass(frozen=True)
class Budget:
    """What the hardware at hand allows."""

    name: str
    voxels: int
    """Of a 3D patch."""
    pixels: int
    """Of a patch of a slice, at most."""
    picture: int
    """Pixels that a picture is resized to, at most."""
    widths: tuple[int, ...]
    batch: int
    """Labelled pictures or slices a step; volumes take 2."""
    unlabelled: float
    """Unlabelled patches of volumes a step for each labelled one; pictures and slices take one each."""
    coverage: float
    """Volumes of which a 3D patch covers less than this share are planned slice by slice; others are coarsened until a
    patch covers as much, at most by a factor of 2 an axis."""
    context: float = 0.0
    """Slices are coarsened until a patch covers so many times the extent of what is labelled along each axis, or the
    whole slice, at most by a factor of 2 an axis; 0 coarsens none."""
    enough: int | None = None
    """Pixels of a patch of a slice that shows as much (default: ``pixels``); one that would not is larger."""


def budget_at_hand(accelerator: str = "auto") -> Budget:
    """Return the budget for the processor or the GPU that is there.

    The processor's is set for steps of a fifth of a second on two cores: there, context is worth more than depth, so
    that volumes larger than four patches are seen slice by slice. Every second labelled volume has an unlabelled one
    beside it: a step with as many takes three times a step on labels, so that in the same time less is learned.
    Pictures and slices are small, because many steps on them teach more than fine ones, and do better with as many
    unlabelled ones. The GPU's follows its memory: a 3D U-Net of width 32 at bfloat16 takes some 5 kB a voxel.
    Raises :class:`UserError` where a GPU is asked for and none is there.
    """
    import torch

    if accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise UserError(f"--accelerator {accelerator}: no GPU is seen here; use cpu or auto")
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        voxels = int(min(160**3, max(64**3, memory / (2 * 5_000 * 4))))
        return Budget(
            f"gpu with {memory >> 30} GiB", voxels, 512 * 512, 512 * 512, (32, 64, 128, 256, 320, 320), 8, 1.0, 0.0
        )
    return Budget("processor", 96_000, 160 * 160, 96 * 96, (16, 32, 64, 128, 128, 128), 4, 0.5, 0.25, 2.2, 112 * 112)


def make_plan(
    fingerprint: dict[str, Any],
    *,
    channel_names: Sequence[str],
    class_names: Sequence[str],
    budget: Budget,
    dimensions: int | None = None,
    slice_axis: int | None = None,
) -> Plan:
    """Return the default plan for a data set's fingerprint (see :mod:`semialign.data.fingerprint`).

    ``dimensions``: 2 plans for the slices of volumes, across ``slice_axis`` (default: the axis of coarsest spacing), 3
    for volumes; by default the budget's ``coverage`` decides, and single slices are planned as such.
    """
    volumes = not fingerprint["picture"]
    size = np.array(fingerprint["median_size"], float)
    spacing: np.ndarray | None = None
    picture_size: tuple[int, ...] | None = None
    axis: int | None = None
    if volumes:
        spacing, most = np.array(fingerprint["median_spacing"], float), budget.voxels
        flat = bool((size < _FLAT).any())
        if dimensions == 2 or (dimensions is None and (flat or size.prod() * budget.coverage > most)):
            axis = slice_axis if slice_axis in (0, 1, 2) else _across(spacing, size)
            extent = np.delete(np.array(fingerprint.get("median_extent") or size, float), axis)
            size, spacing, enough = np.delete(size, axis), np.delete(spacing, axis), budget.enough or budget.pixels
            shown = np.minimum(size, budget.context * extent) / size
            spacing, size = _target_spacing(spacing, size, (shown * size).prod() / enough)
            most = int(np.clip((shown * size).prod(), enough, budget.pixels))
        else:
            spacing, size = _target_spacing(spacing, size, size.prod() * budget.coverage / most)
        patch = _patch(size, spacing, most, len(budget.widths))
    else:
        shrink = min(1.0, math.sqrt(budget.picture / float(size.prod())))
        patch = np.array([max(32, 32 * round(n * shrink / 32)) for n in size])
        while patch.prod() > budget.picture and patch.max() > 32:
            patch[patch.argmax()] -= 32  # rounding went up
        picture_size = tuple(int(n) for n in patch)
    strides, kernels = _pooling(patch, spacing if spacing is not None else np.ones(2), len(budget.widths))
    batch = 2 if len(patch) == 3 else budget.batch
    return Plan(
        dimensions=len(patch),
        slice_axis=axis,
        spacing=None if spacing is None else tuple(round(float(s), 4) for s in spacing),
        picture_size=picture_size,
        normalisation=tuple(_normalisations(fingerprint, channel_names)),
        patch_size=tuple(int(n) for n in patch),
        widths=budget.widths[: len(strides)],
        strides=strides,
        kernels=kernels,
        mirror_axes=_mirror_axes(class_names, volumes, axis),
        batch_labelled=batch,
        batch_unlabelled=round(batch * (budget.unlabelled if len(patch) == 3 else 1)),
        keep_largest=tuple(map(tuple, fingerprint.get("one_piece", ()))),
        made_for=budget.name,
    )


def _normalisations(fingerprint: dict[str, Any], channel_names: Sequence[str]) -> list[Normalisation]:
    result = []
    for name, seen in zip(channel_names, fingerprint["intensities"], strict=True):
        if name.upper() == "CT":
            # The window holds what the labelled structures show; nnU-Net's rule (0.5 and 99.5 percentiles).
            result.append(Normalisation("ct", seen["low"], seen["high"], seen["mean"], max(seen["std"], 1e-3)))
        elif fingerprint["picture"]:
            # Three times the usual range: nothing of an ordinary picture, but a single hot pixel of 16 bits.
            spread = seen["high"] - seen["low"] or math.inf
            low, high = (v if math.isfinite(v) else None for v in (seen["low"] - spread, seen["high"] + spread))
            result.append(Normalisation("picture", low, high, seen["mean"], max(seen["std"], 1e-3)))
        else:
            result.append(Normalisation("z-score"))
    return result


def _mirror_axes(class_names: Sequence[str], volumes: bool, slice_axis: int | None) -> tuple[int, ...]:
    """Return the axes to flip: all for pictures and for one structure, right-left for several, none where sides count.

    Flipping teaches the wrong thing where classes differ by side (left and right kidney), and head and feet or front
    and back are never exchanged in a scan; one structure alone gains more from variety than it loses. Of slices, the
    axis across them is left out and those after it move up.
    """
    words = {word for name in class_names for word in re.split(r"[^a-z]+", name.lower())}
    if not volumes:
        return (0, 1)
    sided = bool(words & {"left", "right", "l", "r", "lt", "rt"})
    axes = (0, 1, 2) if len(class_names) == 2 else () if sided else (0,)
    if slice_axis is None:
        return axes
    return tuple(axis - (axis > slice_axis) for axis in axes if axis != slice_axis)


def _across(spacing: np.ndarray, size: np.ndarray) -> int:
    """Return the axis that slices lie across: that of one voxel, else that of largest spacing.

    Of equals the last one, so that isotropic scans are cut into axial slices.
    """
    flat = np.flatnonzero(size < _FLAT)
    return int(flat[-1] if len(flat) else np.flatnonzero(spacing >= 0.99 * spacing.max())[-1])


def _target_spacing(spacing: np.ndarray, size: np.ndarray, excess: float) -> tuple[np.ndarray, np.ndarray]:
    """Return spacing and size, coarsened until there are ``excess`` times fewer voxels, by a factor of 2 at most."""
    target, size = spacing.copy(), size.copy()
    limit, enough = 2 * spacing, size.prod() / max(excess, 1.0)
    while size.prod() > enough:
        # Coarsen the finest axes first, so that anisotropy falls rather than grows.
        finest = (target <= target.min() * 1.05) & (target * 1.05 <= limit)
        if not finest.any():
            break
        target[finest] *= 1.05
        size[finest] /= 1.05
    return target, size


def _patch(size: np.ndarray, spacing: np.ndarray, voxels: int, levels: int) -> np.ndarray:
    patch = np.ceil(size).astype(int)
    while True:
        strides, _ = _pooling(patch, spacing, levels)
        unit = np.prod(np.array(strides), axis=0)
        patch = unit * np.ceil(patch / unit).astype(int)
        if patch.prod() <= voxels or np.all(patch <= unit):
            return patch
        # Take from the axis that covers the most of the median volume, so that coverage stays even.
        axis = int(np.argmax(np.where(patch > unit, patch / size, -1)))
        patch[axis] -= unit[axis]


def _pooling(
    patch: np.ndarray, spacing: np.ndarray, levels: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Halve an axis while 4 voxels stay and its spacing is within a factor 2 of the finest.

    A kernel is 1 along an axis until the others have come within a factor 2 of its spacing, and 3 from there on.
    """
    now, at = spacing.astype(float).copy(), patch.astype(float).copy()
    strides: list[tuple[int, ...]] = [(1,) * len(patch)]
    kernels = [tuple(3 if s < 2 * now.min() else 1 for s in now)]
    while len(strides) < levels:
        pools = (at >= 8) & (now < 2 * now[at >= 8].min() if (at >= 8).any() else False)
        if not pools.any():
            break
        step = np.where(pools, 2, 1)
        now, at = now * step, at / step
        strides.append(tuple(int(s) for s in step))
        kernels.append(tuple(3 if k == 3 or s < 2 * now.min() else 1 for s, k in zip(now, kernels[-1], strict=True)))
    return tuple(strides), tuple(kernels)
