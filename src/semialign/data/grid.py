"""Images as arrays ``(C, *S)`` in the index order of their files, and grids that place them.

Volumes are indexed ``i, j, k``, pictures ``row, column``. Affines are millimetres in RAS+, whatever the format says.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie: ``shape`` (spatial) and the index-to-RAS ``affine`` (4, 4) in mm.

    A picture without physical size has an identity affine and ``picture`` set; its distances are pixels.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    picture: bool = False

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis, mm (pixels for a picture)."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)])


@dataclass(frozen=True)
class Image:
    """An image as read: ``array`` (C, *S), its grid, and the ending of its format (``dicom`` for a series folder)."""

    array: np.ndarray
    grid: Grid
    ending: str


def difference(label: Grid, image: Grid) -> str | None:
    """Return how two grids differ (size, spacing, orientation or position) in words, or ``None`` where they agree."""
    if label.shape != image.shape:
        return f"size {by(label.shape)} instead of {by(image.shape)}"
    if label.picture or image.picture:
        return None
    if not np.allclose(label.spacing, image.spacing, rtol=1e-3, atol=1e-4):
        return f"spacing {by(label.spacing)} mm instead of {by(image.spacing)} mm"
    ours, theirs = (grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (label, image))
    if not np.allclose(ours, theirs, atol=1e-2):
        return "another orientation"
    # Some tools round origins; a tenth of a voxel moves no label.
    if np.abs(label.affine[:3, 3] - image.affine[:3, 3]).max() > 0.1 * min(image.spacing):
        return "another position (origin)"
    return None


def by(values: tuple[float, ...]) -> str:
    """Return sizes as people write them, ``3 x 4``."""
    return " x ".join(f"{v:g}" for v in values)
