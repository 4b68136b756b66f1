"""2018 Atrial Segmentation Challenge as UA-MT gives it: ``ID/mri_norm2.h5`` with ``image`` and ``label`` (i, j, k).

The intensities are normalised (zero mean, unit deviation) by the distributor and are stored x 1000 as 16-bit numbers.
The files carry no geometry; the challenge's scans are 0.625 mm in every direction.
"""

from functools import partial
from pathlib import Path

import numpy as np

from semialign.data.grid import Grid, Image
from semialign.data.importers.base import FoundCase, LoadedCase, Published
from semialign.data.importers.readers import as_int16, read_h5

_FILE = "mri_norm2.h5"
_SPACING = 0.625  # mm
_SCALE = 1000.0


def recognise(source: Path) -> bool:
    """Whether folders of ``source`` hold ``mri_norm2.h5``."""
    return next(source.glob(f"*/{_FILE}"), None) is not None


def find(source: Path) -> Published:
    """List the cases: a folder each, its name the id."""
    paths = sorted(source.glob(f"*/{_FILE}"))
    cases = [FoundCase(path.parent.name, path, partial(_load, path)) for path in paths]
    return Published("LeftAtrium", ("MRI",), {"background": 0, "left atrium": 1}, cases)


def _load(path: Path) -> LoadedCase:
    image, label = read_h5(path, dimensions=3)
    grid = Grid(image.shape, np.diag([_SPACING, _SPACING, _SPACING, 1.0]))
    return LoadedCase((Image(as_int16(path, image, _SCALE)[None], grid, ".nii.gz"),), label)
