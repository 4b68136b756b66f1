"""The plan: what preparing, network and loader do with a data set; a YAML file that a person can read and change.

How a plan is made for a data set and the hardware at hand: :mod:`semialign.data.planning`.
"""

import math
from collections.abc import Iterator
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
