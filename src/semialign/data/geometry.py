"""From an image's own grid to the network's and back: orientation, spacing and size.

Volumes are turned to the nearest RAS order of axes (canonical) and resampled to the plan's spacing; pictures are
resampled to the plan's size, and volumes too where the plan names one. Nothing is interpolated for the orientation:
axes are only swapped and flipped. Volumes of which a network sees slices stay volumes here, in as many slices as they
have: only the two axes of the slices are resampled.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from semialign.common.errors import UserError
from semialign.data.grid import Grid, Image
from semialign.data.resample import resize, resize_label

T = TypeVar("T")


class GeometryPlan(Protocol):
    """What this module reads of a plan."""

    @property
    def dimensions(self) -> int:
        """2 for pictures and slices of volumes, 3 for volumes."""

    @property
    def slice_axis(self) -> int | None:
        """The canonical axis across which volumes are cut into slices; ``None`` for pictures and whole volumes."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size in mm along the canonical axes (those of a slice), or ``None`` to keep each volume's own."""

    @property
    def volume_size(self) -> tuple[int, ...] | None:
        """Voxels of every volume along the canonical axes, instead of ``spacing``, or ``None``."""

    @property
    def picture_size(self) -> tuple[int, ...] | None:
        """Rows and columns of a picture, or a slice's size, or ``None`` to keep each one's own."""


def require_fit(grid: Grid, plan: GeometryPlan) -> None:
    """Raise :class:`UserError` where the image's dimensionality is not the plan's."""
    pictures = plan.dimensions == 2 and plan.slice_axis is None
    if grid.picture and not pictures:
        raise UserError("a picture, but the model is for volumes; give volumes (NIfTI, NRRD, MHA, DICOM series)")
    if not grid.picture and pictures:
        raise UserError("a volume, but the model is for pictures; give pictures (PNG, JPG, TIFF)")


def orientation(grid: Grid) -> np.ndarray:
    """Return nibabel's orientation (3, 2) of a volume: for each of its axes the nearest RAS axis and the sign."""
    import nibabel

    return np.asarray(nibabel.orientations.io_orientation(grid.affine))


def canonical_view(array: np.ndarray, grid: Grid) -> np.ndarray:
    """Return a view of ``array`` (..., *S) on ``grid`` with its spatial axes in RAS order; writing to it writes there.

    A picture is returned as it is.
    """
    if grid.picture:
        return array
    turn = orientation(grid)
    lead = array.ndim - len(turn)
    order = np.argsort(turn[:, 0]).astype(int)
    view = array.transpose(*range(lead), *(lead + order))
    flips: tuple[Any, ...] = tuple(slice(None, None, int(turn[axis, 1])) for axis in order)
    return view[(..., *flips)]


def canonical_shape(grid: Grid) -> tuple[int, ...]:
    """Return the grid's size along the RAS axes (rows and columns for a picture)."""
    return tuple(int(grid.shape[axis]) for axis in _canonical_order(grid))


def canonical_extent(mask: np.ndarray, grid: Grid) -> tuple[int, ...]:
    """Return the size of the smallest box around ``mask`` (the grid's shape, not empty) along the RAS axes, voxels."""
    rest = [tuple(other for other in range(mask.ndim) if other != axis) for axis in range(mask.ndim)]
    return tuple(int(np.ptp(np.flatnonzero(mask.any(axis=rest[axis])))) + 1 for axis in _canonical_order(grid))


def canonical_spacing(grid: Grid) -> tuple[float, ...]:
    """Return the grid's voxel size in mm along the RAS axes (pixels for a picture)."""
    return tuple(grid.spacing[axis] for axis in _canonical_order(grid))


def network_shape(grid: Grid, plan: GeometryPlan) -> tuple[int, ...]:
    """Return the size (*S) that an image on ``grid`` has for the network. Errors as :func:`require_fit`."""
    require_fit(grid, plan)
    shape, axis = canonical_shape(grid), plan.slice_axis
    size = plan.picture_size if plan.dimensions == 2 else plan.volume_size
    if size is not None:
        return tuple(size) if axis is None else with_axis(size, axis, shape[axis])
    if grid.picture or plan.spacing is None:
        return shape
    own = canonical_spacing(grid)
    spacing = plan.spacing if axis is None else with_axis(plan.spacing, axis, own[axis])
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, own, spacing, strict=True))


def with_axis(within: Sequence[T], axis: int, across: T) -> tuple[T, ...]:
    """Return the three numbers of a volume from the two ``within`` a slice and the one ``across`` slices."""
    return (*within[:axis], across, *within[axis:])


def network_spacing(grid: Grid, plan: GeometryPlan) -> tuple[float, ...]:
    """Return the voxel size in mm of the image as the network sees it; it covers the image's extent exactly.

    It is the plan's spacing up to the rounding to whole voxels (pixels of the network's grid for a picture).
    """
    shape = network_shape(grid, plan)
    own = zip(canonical_shape(grid), canonical_spacing(grid), shape, strict=True)
    return tuple(1.0 if grid.picture else n * s / m for n, s, m in own)


def to_network(image: Image, plan: GeometryPlan) -> np.ndarray:
    """Return the image as the network sees it: float32 (C, *S), a new array. Errors as :func:`require_fit`."""
    shape = network_shape(image.grid, plan)
    # A copy even where nothing changes: normalisation works in place.
    array = np.array(canonical_view(image.array, image.grid), np.float32, order="C")
    return resize(array, shape)


def label_to_network(
    label: np.ndarray, grid: Grid, plan: GeometryPlan, *, num_classes: int | None = None
) -> np.ndarray:
    """Return a label (*S) on the network's grid, in its own integer type.

    ``num_classes``: values outside 0..num_classes-1 (ignore) are taken from the nearest voxel; without it, only
    negative ones are. Errors as :func:`require_fit`.
    """
    shape = network_shape(grid, plan)
    classes = int(label.max()) + 1 if num_classes is None else num_classes
    return np.ascontiguousarray(resize_label(canonical_view(label, grid), shape, classes))


def _canonical_order(grid: Grid) -> list[int]:
    if grid.picture:
        return list(range(len(grid.shape)))
    return [int(axis) for axis in np.argsort(orientation(grid)[:, 0])]
