"""The prepared store: compressed, chunked arrays on disk, memory-mapped, read patch by patch (blosc2)."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import cannot_write, read_json, write_json, written_whole

CHUNK = {2: 256, 3: 64}
BLOCK = {2: 128, 3: 16}
POINTS = 2000


class Store:
    """Prepared cases in one folder: ``CASE.image.b2nd`` (C, *S) float16, ``CASE.label.b2nd`` (*S) int16, ``CASE.json``.

    float16 halves disk and reading; normalised intensities lose nothing that training could see. ``CASE.json`` is
    written last, so a case is there whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._open = lru_cache(maxsize=4096)(_open)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def has(self, case: str, key: str) -> bool:
        """Whether ``case`` is stored whole and was made from what ``key`` names."""
        about = self.folder / f"{case}.json"
        return about.exists() and read_json(about).get("key") == key

    def write(self, case: str, image: np.ndarray, label: np.ndarray | None, key: str) -> None:
        """Store a case. ``label`` is ``None`` for one whose label may not be opened."""
        about = self.folder / f"{case}.json"
        about.unlink(missing_ok=True)
        _save(self.folder / f"{case}.image.b2nd", image.astype(np.float16))
        points: dict[str, list[list[int]]] = {}
        if label is not None:
            _save(self.folder / f"{case}.label.b2nd", label.astype(np.int16))
            points = _class_points(label)
        write_json(about, {"key": key, "shape": list(image.shape[1:]), "labelled": label is not None, "points": points})

    def about(self, case: str) -> dict[str, Any]:
        """Return a case's ``shape`` (*S), whether it is ``labelled``, and sampled ``points`` of each class."""
        return _about(self.folder / f"{case}.json")

    def image(self, case: str) -> Any:
        """Return the (C, *S) array of a case; slicing it reads only what is asked for."""
        return self._open(self.folder / f"{case}.image.b2nd")

    def label(self, case: str) -> Any:
        """Return the (*S) label of a case; slicing it reads only what is asked for."""
        return self._open(self.folder / f"{case}.label.b2nd")


def read_box(array: Any, low: Sequence[int], high: Sequence[int], outside: float) -> np.ndarray:
    """Return ``array[..., low:high]`` along its last axes; what lies beyond the array is filled with ``outside``."""
    lead = array.ndim - len(low)
    shape = array.shape[lead:]
    inside = tuple(slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in zip(low, high, shape, strict=True))
    part = np.asarray(array[(slice(None),) * lead + inside])
    if all(a >= 0 and b <= n for a, b, n in zip(low, high, shape, strict=True)):
        return part
    size = [b - a for a, b in zip(low, high, strict=True)]
    result = np.full((*array.shape[:lead], *size), outside, part.dtype)
    where = tuple(slice(s.start - a, s.start - a + max(s.stop - s.start, 0)) for s, a in zip(inside, low, strict=True))
    if part.size:
        result[(slice(None),) * lead + where] = part
    return result


@lru_cache(maxsize=4096)
def _about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = read_json(path)
    about["points"] = {int(value): np.asarray(at, np.int64) for value, at in about["points"].items()}
    return about


def _open(path: Path) -> Any:
    import blosc2

    # A loader worker reads one small patch at a time; threads would only fight with the training step.
    blosc2.set_nthreads(1)
    try:
        return blosc2.open(str(path), mode="r", mmap_mode="r")
    except (FileNotFoundError, RuntimeError) as error:
        raise UserError(f"{path}: missing or damaged; delete it and run `semialign prepare` again") from error


def _save(path: Path, array: np.ndarray) -> None:
    import blosc2

    dims = 2 if array.ndim - (array.dtype == np.float16) == 2 else 3
    lead = array.ndim - dims
    chunks = (1,) * lead + tuple(min(n, CHUNK[dims]) for n in array.shape[lead:])
    blocks = (1,) * lead + tuple(min(n, BLOCK[dims]) for n in array.shape[lead:])
    with written_whole(path) as temporary:
        try:
            blosc2.asarray(
                np.ascontiguousarray(array),
                urlpath=str(temporary),
                mode="w",
                chunks=chunks,
                blocks=blocks,
                cparams={"codec": blosc2.Codec.LZ4, "clevel": 5},
            )
        except RuntimeError as error:  # blosc2 reports a full disk so
            raise cannot_write(path, OSError(28, "No space left on device")) from error


def _class_points(label: np.ndarray) -> dict[str, list[list[int]]]:
    """Return up to ``POINTS`` evenly spaced voxels of each foreground class, to place patches on."""
    points = {}
    for value in np.unique(label):
        if value > 0:
            at = np.flatnonzero(label == value)
            at = at[np.linspace(0, len(at) - 1, min(len(at), POINTS)).astype(int)]
            points[str(int(value))] = np.stack(np.unravel_index(at, label.shape), 1).tolist()
    return points
