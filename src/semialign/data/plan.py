"""The plan: what preparing, network and loader do with a data set; a YAML file that a person can read and change."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError, closest
from semialign.common.files import read_yaml, write_text
from semialign.config import from_mapping, to_mapping

VERSION = 1
SCHEMES = ("ct", "picture", "z-score")
NETWORKS = ("unet", "vnet")
NORMS = ("batch", "instance", "none")
ACCELERATORS = ("auto", "cpu", "cuda", "gpu")


@dataclass(frozen=True)
class Normalisation:
    """How one channel's intensities become numbers near 0 with spread near 1."""

    scheme: str
    """``ct`` (fixed window, mean and spread), ``z-score`` (the case's own), ``picture`` (fixed mean and spread)."""
    low: float | None = None
    """``ct``, ``picture``: lower end of the window (HU, grey value)."""
    high: float | None = None
    """``ct``, ``picture``: upper end of the window."""
    mean: float = 0.0
    """``ct``, ``picture``: taken off."""
    std: float = 1.0
    """``ct``, ``picture``: divided by."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Written by ``semialign prepare``; edit ``plan.yaml`` and prepare again to change anything."""

    dimensions: int
    """2 for pictures and for slices of volumes, 3 for volumes."""
    slice_axis: int | None = None
    """Slices: the axis across which volumes are cut, 0 right-left, 1 back-front, 2 foot-head; null for all else."""
    spacing: tuple[float, ...] | None
    """Volumes: mm between voxels after resampling, along right-left, back-front, foot-head (of slices, two of them)."""
    volume_size: tuple[int, ...] | None = None
    """Volumes: every one is resized to so many voxels along these axes, whatever its extent; ``spacing`` is null."""
    picture_size: tuple[int, ...] | None
    """Pictures, slices: every one is resized to so many voxels along its two axes; null leaves sizes alone."""
    normalisation: tuple[Normalisation, ...]
    """One a channel."""
    patch_size: tuple[int, ...]
    """What the network sees at once, voxels."""
    network: str = "unet"
    """``unet``, or ``vnet`` of the published comparisons: five levels, strides of 2, kernels of 3."""
    norm: str = "instance"
    """``vnet``: ``batch``, ``instance`` or ``none``; the U-Net's is instance."""
    dropout: bool = False
    """``vnet``: whether half of the channels are dropped at the bottleneck and before the head in training."""
    widths: tuple[int, ...]
    """Channels of the network's levels."""
    strides: tuple[tuple[int, ...], ...]
    """Step into each level along each axis."""
    kernels: tuple[tuple[int, ...], ...]
    """Kernel at each level along each axis."""
    mirror_axes: tuple[int, ...]
    """Axes that augmentation flips; of slices, the first of their two axes is 0."""
    batch_labelled: int
    """Labelled patches a step."""
    batch_unlabelled: int
    """Unlabelled patches a step."""
    keep_largest: tuple[tuple[int, ...], ...] = ()
    """Groups of classes; of each, prediction keeps the largest connected piece, as every labelled case shows one."""
    made_for: str
    """The hardware that sizes were chosen for."""
    version: int = VERSION
    """Of this file's form."""

    @property
    def for_pictures(self) -> bool:
        """Whether cases are pictures, neither volumes nor slices of them."""
        return self.dimensions == 2 and self.slice_axis is None


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
    for volumes; by default the budget's ``coverage`` decides.
    """
    volumes = not fingerprint["picture"]
    size = np.array(fingerprint["median_size"], float)
    spacing: np.ndarray | None = None
    picture_size: tuple[int, ...] | None = None
    axis: int | None = None
    if volumes:
        spacing, most = np.array(fingerprint["median_spacing"], float), budget.voxels
        if dimensions == 2 or (dimensions is None and size.prod() * budget.coverage > most):
            axis = slice_axis if slice_axis in (0, 1, 2) else _coarsest(spacing)
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


def load_plan(path: Path) -> Plan:
    """Read a plan; :class:`UserError` for an unknown key, a wrong type, or sizes that do not fit one another."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a plan")
    if value.get("version", VERSION) != VERSION:
        raise UserError(
            f"{path}: of version {value['version']}, this semialign reads {VERSION}; prepare the data again"
        )
    try:
        plan = from_mapping(Plan, value, str(path))
    except TypeError as error:
        raise UserError(f"{path}: a key is missing; delete the file and prepare the data again") from error
    require_sound(plan, str(path))
    return plan


def require_sound(plan: Plan, where: str) -> None:
    """Raise :class:`UserError`, which begins with ``where``, for sizes and names that do not fit one another."""
    fault = next(_faults(plan), None)
    if fault:
        raise UserError(f"{where}: {fault}")


def with_defaults(plan: Any) -> Any:
    """Return a plan's plain values, as a checkpoint holds them, with the fields that are newer than it."""
    newer = {field.name: field.default for field in fields(Plan) if field.default is not MISSING}
    return newer | plan if isinstance(plan, dict) else plan


def _faults(plan: Plan) -> Iterator[str]:
    """Yield what is wrong with a plan that a person may have changed; later checks rely on earlier ones."""
    dims, levels = plan.dimensions, len(plan.widths)
    if dims not in (2, 3):
        yield f"dimensions must be 2 or 3, not {dims}"
    if plan.slice_axis is not None:
        yield from _slice_faults(plan)
    rows = (plan.patch_size, *plan.strides, *plan.kernels)
    if not levels == len(plan.strides) == len(plan.kernels) or any(len(row) != dims for row in rows):
        yield "widths, strides and kernels must have a row for every level and a number for every axis"
    if not levels or min(n for row in (plan.widths, *rows) for n in row) < 1:
        yield "widths, strides, kernels and patch_size must be whole numbers above 0"
    if max(plan.strides[0]) > 1 or any(n % 2 == 0 for row in plan.kernels for n in row):
        yield "the first strides must be 1 and all kernels odd"
    steps = np.prod(np.array(plan.strides), axis=0)
    if np.any(np.array(plan.patch_size) % steps):
        yield f"patch_size {list(plan.patch_size)} must be multiples of {steps.tolist()}, the strides' product"
    yield from _network_faults(plan)
    sized = {"spacing": plan.spacing, "volume_size": plan.volume_size, "picture_size": plan.picture_size}
    for name, sizes in sized.items():
        if sizes is not None and (len(sizes) != dims or not all(0 < s < math.inf for s in sizes)):
            yield f"{name} {list(sizes)} must be {dims} numbers above 0, or null"
    if plan.volume_size is not None and (dims == 2 or plan.spacing is not None):
        yield "volume_size is for volumes, instead of spacing; set one of the two to null"
    if not set(plan.mirror_axes) <= set(range(dims)):
        yield f"mirror_axes {list(plan.mirror_axes)} must be among {list(range(dims))}"
    if plan.batch_labelled < 1 or plan.batch_unlabelled < 0:
        yield "batch_labelled must be at least 1 and batch_unlabelled at least 0"
    for how in plan.normalisation:
        if how.scheme not in SCHEMES:
            yield f"unknown normalisation '{how.scheme}'{closest(how.scheme, SCHEMES)}"
        if not (math.isfinite(how.mean) and 0 < how.std < math.inf):
            yield "a normalisation's mean must be a number and its std a number above 0"
        if how.low is not None and how.high is not None and not how.low < how.high:
            yield f"a normalisation's low ({how.low:g}) must be below its high ({how.high:g})"


def _slice_faults(plan: Plan) -> Iterator[str]:
    if plan.dimensions != 2:
        yield "slice_axis is for slices of volumes; set it to null, or make a plan with dimensions 2"
    if plan.slice_axis not in (0, 1, 2):
        yield f"slice_axis {plan.slice_axis} must be 0 (right-left), 1 (back-front) or 2 (foot-head)"
    if plan.volume_size is not None:
        yield "volume_size is for whole volumes; set it to null, slices have picture_size instead"
    if plan.spacing is not None and plan.picture_size is not None:
        yield "spacing and picture_size both set the size of slices; set one of the two to null"


def _network_faults(plan: Plan) -> Iterator[str]:
    for what, name, known in (("network", plan.network, NETWORKS), ("norm", plan.norm, NORMS)):
        if name not in known:
            yield f"unknown {what} '{name}'{closest(name, known)}"
    if plan.network == "unet" and (plan.norm != "instance" or plan.dropout):
        yield "norm and dropout are for network vnet; set that, or norm: instance and dropout: false"
    once, twice, three = ([n] * plan.dimensions for n in (1, 2, 3))
    form = [list(row) for row in (*plan.strides, *plan.kernels)]
    if plan.network == "vnet" and form != [once, *[twice] * 4, *[three] * 5]:
        yield (
            "network vnet needs widths of five numbers, such as [16, 32, 64, 128, 256], "
            f"strides {[once, *[twice] * 4]} and kernels {[three] * 5}"
        )
    if len(plan.widths) > 1 and plan.norm != "none" and np.prod(plan.patch_size) == np.prod(plan.strides):
        yield f"patch_size {list(plan.patch_size)} leaves one voxel at the last level, too few for a norm; double it"


def write_plan(path: Path, plan: Plan) -> None:
    """Write the plan as YAML with a comment above every field."""
    import dataclasses
    import json

    lines = ["# Made by `semialign prepare`. Change what you like and prepare again.", ""]
    documented = field_comments(Plan)
    for field in dataclasses.fields(plan):
        lines += [f"# {documented[field.name]}"] if field.name in documented else []
        value = to_mapping(plan)[field.name]
        lines.append(f"{field.name}: {json.dumps(value)}")  # JSON is YAML, one line a field
    write_text(path, "\n".join(lines) + "\n")


def field_comments(kind: type) -> dict[str, str]:
    """Return the docstring that stands under each field of a dataclass, by field name."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = str(text.value.value)
    return found


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


def _coarsest(spacing: np.ndarray) -> int:
    """Return the axis of largest spacing; of equals the last one, so that isotropic scans are cut into axial slices."""
    return int(np.flatnonzero(spacing >= 0.99 * spacing.max())[-1])


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
