"""Kept latents: made once, found again by another process, made again where a place was cut short."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semialign.common.errors import UserError
from semialign.data.kept_latents import KeptLatents, make_kept, path_of, remove_kept

SHAPE = (2, 3, 3)


class Maker:
    """Makes latents, and notes for which of the asked."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, i: int) -> Tensor:
        self.made.append(i)
        return torch.full(SHAPE, 0.1 + len(self.made))


def _kept(path: Path) -> KeptLatents:
    make_kept(path, count=5, shape=SHAPE)
    return KeptLatents(path, count=5, shape=SHAPE)


def test_made_once_and_kept_for_the_next_process(tmp_path: Path) -> None:
    path, make = tmp_path / "latents-a", Maker()
    kept = _kept(path)
    first = kept.get([4, 1, 4], make)
    assert make.made == [0, 1]
    assert first[:, 0, 0, 0].tolist() == pytest.approx([1.1, 2.1, 1.1])
    assert torch.equal(kept.get([1, 4], make), first[[1, 0]])
    again = _kept(path)
    assert torch.equal(again.get([4, 1, 3], make)[:2], first[:2])
    assert make.made == [0, 1, 2], "only the third was not there"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_latent_of_zeros_is_not_an_empty_place(tmp_path: Path) -> None:
    path, calls = tmp_path / "latents-a", []

    def make(i: int) -> Tensor:
        calls.append(i)
        return torch.zeros(SHAPE)

    for _ in range(2):
        assert not _kept(path).get([2], make).any()
    assert calls == [0]


def test_a_place_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    path, make = tmp_path / "latents-a", Maker()
    _kept(path).get([0, 1], make)
    with open(path, "r+b") as handle:
        handle.seek(18 * 4 + 4 + 30)  # inside the second place
        handle.write(b"\0\0\0\0")
    latents = _kept(path).get([0, 1], make)
    assert make.made == [0, 1, 1]
    assert latents[:, 0, 0, 0].tolist() == pytest.approx([1.1, 3.1])


def test_a_file_of_another_size_is_made_anew(tmp_path: Path) -> None:
    path, make = tmp_path / "latents-a", Maker()
    path.write_bytes(b"short")
    _kept(path).get([0], make)
    assert make.made == [0]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _kept(tmp_path / "latents-a")

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match="the disk is full"):
        kept.get([0], Maker())


def test_two_that_hold_one_file_open_share_it(tmp_path: Path) -> None:
    make = Maker()
    one, other = _kept(tmp_path / "latents-a"), _kept(tmp_path / "latents-a")
    first = one.get([3], make)
    assert torch.equal(other.get([3], make), first)
    other.get([0], make)
    one.get([0, 3], make)
    assert make.made == [0, 0], "each place once"


def test_files_are_told_apart_and_removed(tmp_path: Path) -> None:
    names = [path_of(tmp_path, key) for key in ("one", "two", "three")]
    assert len(set(names)) == 3
    for path in names:
        path.touch()
    (tmp_path / "last.pt").touch()
    remove_kept(tmp_path, but=names[1])
    assert list(tmp_path.glob("latents-*")) == [names[1]]
    remove_kept(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
