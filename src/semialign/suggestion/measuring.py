"""What is measured of one case, without its label, and kept in a file, so that a stopped command goes on."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semialign.common.files import written_whole
from semialign.data.dataset import Case, read_case
from semialign.data.geometry import canonical_shape, to_network
from semialign.data.preprocess import normalise
from semialign.evaluation.certainty import PER_BIT

if TYPE_CHECKING:
    from semialign.inference.model import TrainedModel
    from semialign.suggestion.views import View

Say = Callable[[str, int, int], None]
BORDER = 2
"""Voxels around what is predicted that count as its border."""
LOOSE = 0.01
"""Share of the voxels, the most unsure ones, that counts where nothing is predicted."""
_FORM = 2  # of the kept files


@dataclass(frozen=True)
class Measured:
    """What was measured of a case. ``entropy`` and ``disagreement``: means in bits over what is predicted and border.

    ``found``: voxels predicted as any structure. ``blocks``: features, see :class:`~semialign.suggestion.views.Pass`.
    """

    entropy: float
    disagreement: float
    found: int
    blocks: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Maps:
    """A case's prediction and entropy, (*S) in RAS order on its image's grid; the entropy is uint8, see PER_BIT."""

    prediction: np.ndarray
    entropy: np.ndarray


def measured_path(folder: Path, name: str) -> Path:
    """Return where the measurements of a case are kept; ``name``: its id, of a labelled one ``labelled/ID``."""
    return folder / "cases" / f"{name}.npz"


def key_of(case: Case, checkpoints: Sequence[Path], *, overlap: float) -> str:
    """Return what tells measurements of other checkpoints, images or settings apart."""
    files = [*checkpoints, *(path for path in _files(case) if path.exists())]
    about = [[str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in files]
    return hashlib.sha256(json.dumps([_FORM, about, overlap]).encode()).hexdigest()[:16]


def measure(
    case: Case,
    models: Sequence[TrainedModel],
    views: Mapping[str, View],
    *,
    overlap: float,
    batch: int | None,
    say: Say,
) -> tuple[Measured, Maps]:
    """Measure ``case``. Raises :class:`UserError` where its image cannot be read."""
    import torch

    from semialign.inference.output import most_probable, resampled
    from semialign.inference.sliding_window import predict_planes
    from semialign.suggestion.views import Pass, bits

    plan, model = models[0].plan, models[0]
    image = read_case(case, len(plan.normalisation))
    seen = torch.from_numpy(normalise(to_network(image, plan), plan))
    one_pass, size = Pass(models, views), tuple(seen.shape[1:])
    planes = predict_planes(
        torch.cat([seen, torch.ones_like(seen[:1])]),
        one_pass,
        patch=plan.patch_size,
        slice_axis=plan.slice_axis,
        overlap=overlap,
        batch=batch or (1 if model.device.type == "cpu" else 4),
    )
    shape = canonical_shape(image.grid)
    prediction = np.zeros(shape, np.uint8 if len(model.class_names) <= 256 else np.uint16)
    entropy, apart = np.zeros(shape, np.float16), np.zeros(shape, np.float16)
    for part in resampled(planes, size, shape):
        values = part.probabilities.float()
        stop = part.start + values.shape[1 + part.axis]
        box = tuple(slice(part.start, stop) if a == part.axis else slice(None) for a in range(len(shape)))
        prediction[box] = most_probable(values[:-1]).cpu().numpy()
        entropy[box] = bits(values[:-1]).cpu().numpy()
        apart[box] = values[-1].cpu().numpy()
        say("planes of this case", stop, shape[part.axis])
    means = means_around(prediction > 0, entropy, apart)
    blocks = tuple(block.numpy() for block in one_pass.described())
    kept = np.rint(entropy.astype(np.float32) * PER_BIT).clip(0, 255).astype(np.uint8)
    return Measured(means[0], means[1], int(np.count_nonzero(prediction)), blocks), Maps(prediction, kept)


def keep(path: Path, measured: Measured, maps: Maps, *, key: str) -> None:
    """Write what was measured to ``path``, whole or not at all."""
    blocks: dict[str, Any] = {f"block{i}": block for i, block in enumerate(measured.blocks)}
    with written_whole(path) as temporary:
        np.savez_compressed(
            temporary,
            key=np.str_(key),
            prediction=maps.prediction,
            map=maps.entropy,
            entropy=np.float64(measured.entropy),
            disagreement=np.float64(measured.disagreement),
            found=np.int64(measured.found),
            **blocks,
        )


def means_around(found: np.ndarray, *maps: np.ndarray) -> list[float]:
    """Return the mean of each of ``maps`` (*S) over ``found`` (*S, bool) and its border.

    Where nothing is found, the voxels count that are largest in the first map: a hundredth of all.
    """
    if not found.any():
        count = max(1, round(LOOSE * found.size))
        places = np.argpartition(maps[0].ravel(), -count)[-count:]
        return [float(values.ravel()[places].mean(dtype=np.float64)) for values in maps]
    box, around = with_border(found)
    return [float(values[box][around].mean(dtype=np.float64)) for values in maps]


def with_border(found: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box around ``found`` (*S, bool; not empty) and its border, and what of that box they are."""
    from scipy.ndimage import binary_dilation

    box = []
    for axis in range(found.ndim):
        span = np.flatnonzero(found.any(tuple(a for a in range(found.ndim) if a != axis)))
        box.append(slice(max(int(span[0]) - BORDER, 0), int(span[-1]) + BORDER + 1))
    return tuple(box), binary_dilation(found[tuple(box)], iterations=BORDER)


def load_measured(path: Path, key: str) -> Measured | None:
    """Read what :func:`keep` left; ``None`` where it is missing, broken, or of another ``key``."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != key or "map" not in kept or "prediction" not in kept:
                return None
            blocks = tuple(kept[name] for name in sorted((n for n in kept if n.startswith("block")), key=_number))
            return Measured(float(kept["entropy"]), float(kept["disagreement"]), int(kept["found"]), blocks)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def load_maps(path: Path) -> Maps:
    """Read the maps of a case that was measured."""
    with np.load(path, allow_pickle=False) as kept:
        return Maps(kept["prediction"], kept["map"])


def _number(name: str) -> int:
    return int(name.removeprefix("block"))


def _files(case: Case) -> list[Path]:
    files = [path for path in case.images if path.is_file()]
    return files + [inner for path in case.images if path.is_dir() for inner in sorted(path.iterdir())]
