"""How sure a model is of the cases it is scored on: entropy and calibration, gathered while it predicts.

Probabilities pass by in a few planes at a time (:mod:`semialign.inference.output`); what is kept of a case is a byte a
voxel and some counts.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import written_whole
from semialign.data.geometry import canonical_shape, canonical_view
from semialign.data.grid import difference
from semialign.data.image_io import read_label
from semialign.evaluation.calibration import Calibration

if TYPE_CHECKING:
    from torch import Tensor

    from semialign.data.dataset import Case
    from semialign.data.grid import Grid
    from semialign.inference.sliding_window import Planes

PER_BIT = 100.0
"""Steps of the kept entropy in a bit; 255 of them hold what 5 equally likely classes have, more is cut."""


@dataclass(frozen=True)
class Certainty:
    """How sure a model was of one case.

    ``entropy``: uint8 (*S) on the image's grid in RAS order, in bits times :data:`PER_BIT`; 1 bit is a coin between two
    classes. ``unsure``: its mean over the predicted foreground, in bits; ``None`` without any. ``seconds``: what
    predicting took.
    """

    entropy: np.ndarray
    unsure: float | None
    calibration: Calibration
    seconds: float


class Gather:
    """Watches predictions and leaves ``folder/CASE.npz`` of each; see ``observe`` of ``predict``.

    ``labels``: the label file of each case. ``made_by``: of each case, what its figures hang on; it is kept with them.
    """

    def __init__(self, folder: Path, labels: Mapping[str, Path], *, made_by: Mapping[str, str]) -> None:
        self.folder, self.labels, self.made_by = folder, labels, made_by

    @contextmanager
    def __call__(self, case: Case, grid: Grid) -> Iterator[Callable[[Planes], None]]:
        """Yield what takes the planes of ``case``; its file is written when all have come.

        Raises :class:`UserError` for a label that does not lie on its image's ``grid``.
        """
        path = self.labels[case.id]
        label, own = read_label(path)
        if apart := difference(own, grid):
            raise UserError(f"{path}: label has {apart}, unlike its image; resample the label to the image's grid")
        begun = time.monotonic()
        planes = _Planes(canonical_view(label, grid), canonical_shape(grid))
        yield planes.add
        counts = planes.counts or Calibration.nothing(0)
        with written_whole(certainty_path(self.folder, case.id)) as temporary:
            np.savez_compressed(
                temporary,
                entropy=planes.entropy,
                unsure=np.float64(planes.total / planes.voxels if planes.voxels else np.nan),
                seconds=np.float64(time.monotonic() - begun),
                made_by=np.str_(self.made_by[case.id]),
                voxels=counts.voxels,
                probability=counts.probability,
                hits=counts.hits,
            )


def certainty_path(folder: Path, case: str) -> Path:
    """Return where the certainty of ``case`` is kept."""
    return Path(folder) / f"{case}.npz"


def made_by(path: Path) -> str | None:
    """Return what the figures in ``path`` belong to; ``None`` where they are missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return str(kept["made_by"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def load_certainty(path: Path) -> Certainty | None:
    """Read what :class:`Gather` left; ``None`` where it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            unsure = float(kept["unsure"])
            return Certainty(
                kept["entropy"],
                None if np.isnan(unsure) else unsure,
                Calibration(kept["voxels"], kept["probability"], kept["hits"]),
                float(kept["seconds"]),
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


class _Planes:
    """What is gathered of one case while its planes come."""

    def __init__(self, label: np.ndarray, shape: tuple[int, ...]) -> None:
        self.label, self.entropy = label, np.zeros(shape, np.uint8)
        self.counts: Calibration | None = None
        self.total, self.voxels = 0.0, 0

    def add(self, part: Planes) -> None:
        import torch

        from semialign.evaluation.calibration import count

        values = part.probabilities.float()
        stop = part.start + values.shape[1 + part.axis]
        box = tuple(slice(part.start, stop) if a == part.axis else slice(None) for a in range(self.label.ndim))
        entropy = bits(values)
        foreground = entropy[values.max(0).indices > 0]
        self.total, self.voxels = self.total + float(foreground.sum()), self.voxels + len(foreground)
        self.entropy[box] = (entropy * PER_BIT).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        label = torch.from_numpy(self.label[box].astype(np.int32)).to(values.device)
        found = count(values, label)
        self.counts = found if self.counts is None else self.counts + found


def bits(probabilities: Tensor) -> Tensor:
    """Return the entropy (*S), in bits, of probabilities (K, *S)."""
    import math

    import torch

    return torch.special.entr(probabilities).sum(0) / math.log(2)
