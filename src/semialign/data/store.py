"""The prepared store: compressed, chunked arrays on disk, memory-mapped, read patch by patch (blosc2)."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import read_json, written_whole

CHUNK = {2: 256, 3: 64}
BLOCK = {2: 128, 3: 16}
POINTS = 2000
LARGEST = 60_000.0
"""Beyond it float16 would be infinite."""
KEPT = 100
"""Arrays kept open: each holds a file, and macOS lets a process hold 256."""


class Store:
    """Prepared cases in one folder: ``CASE.image.b2nd`` (C, *S) float16, ``CASE.label.b2nd`` (*S) int16, ``CASE.json``.

    float16 halves disk and reading; normalised intensities lose nothing that training could see. ``CASE.json`` is
    written last, so a case is there whole or not at all. It holds the files' sizes, so that a lost or cut one shows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._open = lru_cache(maxsize=KEPT)(Stored)
        self._about = lru_cache(maxsize=512)(_about)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def has(self, case: str, key: str) -> bool:
        """Whether ``case`` is stored whole and was made from what ``key`` names."""
        try:
            about = read_json(self.folder / f"{case}.json")
            files = {self.folder / name: size for name, size in about["files"].items()}
            return bool(files) and about["key"] == key and all(p.stat().st_size == size for p, size in files.items())
        except (UserError, OSError, KeyError, TypeError, AttributeError):
            return False  # whatever is missing or damaged is made again

    def write(
        self, case: str, image: np.ndarray, label: np.ndarray | None, key: str, *, slice_axis: int | None = None
    ) -> None:
        """Store a case. ``label`` is ``None`` for one whose label may not be opened; none is left in the store then.

        ``slice_axis``: a volume is read in slices across it, so that each lies apart.
        """
        about, of_label = self.folder / f"{case}.json", self.folder / f"{case}.label.b2nd"
        arrays = {self.folder / f"{case}.image.b2nd": np.clip(image, -LARGEST, LARGEST).astype(np.float16)}
        if label is not None:
            arrays[of_label] = label.astype(np.int16)
        described = {"key": key, "shape": list(image.shape[1:]), "labelled": label is not None}
        points = {} if label is None else _class_points(label)
        with ExitStack() as stack:
            # Every byte is written before the first old file is replaced; the description appears last.
            last = stack.enter_context(written_whole(about))
            parts = {path: stack.enter_context(written_whole(path)) for path in arrays}
            for path, array in arrays.items():
                _save(path, parts[path], array, slice_axis)
            files = {path.name: part.stat().st_size for path, part in parts.items()}
            last.write_text(json.dumps({**described, "files": files, "points": points}) + "\n", encoding="utf-8")
            about.unlink(missing_ok=True)
            if label is None:
                of_label.unlink(missing_ok=True)
        self._open.cache_clear()
        self._about.cache_clear()

    def about(self, case: str) -> dict[str, Any]:
        """Return a case's ``shape`` (*S), whether it is ``labelled``, and sampled ``points`` of each class."""
        return self._about(self.folder / f"{case}.json")

    def image(self, case: str) -> "Stored":
        """Return the (C, *S) array of a case; slicing it reads only what is asked for."""
        return self._open(self.folder / f"{case}.image.b2nd")

    def label(self, case: str) -> "Stored":
        """Return the (*S) label of a case; slicing it reads only what is asked for."""
        return self._open(self.folder / f"{case}.label.b2nd")


class Stored:
    """One stored array: slicing reads what is asked for alone. A damaged file raises :class:`UserError`."""

    def __init__(self, path: Path) -> None:
        import blosc2

        # A loader worker reads one small patch at a time; threads would only fight with the training step.
        blosc2.set_nthreads(1)
        self._path = path
        try:
            self._array: Any = blosc2.open(str(path), mode="r", mmap_mode="r")
        except (FileNotFoundError, RuntimeError) as error:
            raise _damaged(path) from error
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        self.ndim = len(self.shape)

    def __getitem__(self, where: Any) -> np.ndarray:
        """Return the slice ``where``."""
        try:
            return np.asarray(self._array[where])
        except RuntimeError as error:
            raise _damaged(self._path) from error


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


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: missing or damaged; delete it and run `semialign prepare` again")


def _about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = dict(read_json(path))
        about["points"] = {int(value): np.asarray(at, np.int32) for value, at in about["points"].items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path) from error
    return about


def _save(path: Path, temporary: Path, array: np.ndarray, slice_axis: int | None) -> None:
    import blosc2

    lead = int(array.dtype == np.float16)  # images have channels
    dims = array.ndim - lead if slice_axis is None else 2

    def sides(largest: int) -> tuple[int, ...]:
        shape = enumerate(array.shape[lead:])
        return (1,) * lead + tuple(1 if axis == slice_axis else min(n, largest) for axis, n in shape)

    try:
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            mode="w",
            chunks=sides(CHUNK[dims]),
            blocks=sides(BLOCK[dims]),
            # One thread, so that the same array is always the same file.
            cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1},
            dparams={"nthreads": 1},
        )
    except RuntimeError as error:  # all that blosc2 says of a full disk
        raise UserError(
            f"{path}: cannot be written, most likely the disk is full; free some space and run the same command again"
        ) from error


def _class_points(label: np.ndarray) -> dict[str, list[list[int]]]:
    """Return up to ``POINTS`` evenly spaced voxels of each foreground class, to place patches on."""
    points = {}
    for value in np.unique(label):
        if value > 0:
            at = np.flatnonzero(label == value)
            at = at[np.linspace(0, len(at) - 1, min(len(at), POINTS)).astype(int)]
            points[str(int(value))] = np.stack(np.unravel_index(at, label.shape), 1).tolist()
    return points
