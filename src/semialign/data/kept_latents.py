"""Latents of a frozen encoder, made once and kept in a memory-mapped file."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semialign.common.files import cannot_write, written_whole


def make_kept(path: Path, *, count: int, shape: Sequence[int]) -> None:
    """Make the file ``path`` of ``count`` empty places for latents of ``shape``, unless one of its size is there."""
    size = count * _place(shape).itemsize
    if not path.exists() or path.stat().st_size != size:
        with written_whole(path) as temporary, open(temporary, "wb") as handle:
            handle.truncate(size)


class KeptLatents:
    """The ``count`` places in the file ``path``, which :func:`make_kept` has made, for latents of ``shape`` float32.

    The file has its full size from the start, which a file system that leaves holes does not fill. A place carries the
    checksum of its numbers, so that one which was cut short, by a power failure say, is empty. Several processes may
    read and write: they put the same numbers into a place, and one that is half written is empty to the others.
    """

    def __init__(self, path: Path, *, count: int, shape: Sequence[int]) -> None:
        self.path = Path(path)
        self._place = _place(shape)
        self._there = np.zeros(count, bool)
        self._map = np.memmap(self.path, self._place, mode="r", shape=(count,))

    def get(self, places: Sequence[int], make: Callable[[int], Tensor]) -> Tensor:
        """Return the latents (B, *shape) of ``places``, on the processor; ``make(i)`` gives that of an empty ``i``-th.

        One at a time, since the last bits of a batch's may depend on who else is in it, and a resumed run's would.
        """
        for i, place in enumerate(places):
            if not self._has(place):
                self._put(place, make(i))
        return torch.from_numpy(self._map["latent"][list(places)])

    def _has(self, place: int) -> bool:
        if not self._there[place]:
            self._there[place] = zlib.crc32(self._map["latent"][place].tobytes()) == self._map["check"][place]
        return bool(self._there[place])

    def _put(self, place: int, latent: Tensor) -> None:
        record = np.zeros((), self._place)
        record["latent"] = latent.float().cpu().numpy()
        record["check"] = zlib.crc32(record["latent"].tobytes())
        try:
            # Not through the map: on a full disk that would kill the process without a word.
            with open(self.path, "r+b") as handle:
                handle.seek(place * self._place.itemsize)
                handle.write(record.tobytes())
                handle.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error


def remove_kept(folder: Path, *, but: Path | None = None) -> None:
    """Delete the files of kept latents in ``folder``, ``but`` one."""
    for path in Path(folder).glob("latents-*"):
        if path != but:
            path.unlink(missing_ok=True)


def path_of(folder: Path, key: str) -> Path:
    """Return the file for latents that ``key`` tells from others."""
    return Path(folder) / f"latents-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _place(shape: Sequence[int]) -> np.dtype:
    return np.dtype([("latent", "<f4", tuple(shape)), ("check", "<u4")])
