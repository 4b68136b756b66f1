"""Checkpoints that do not fit, carry code or could not be written, and a store damaged unseen."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Line
from raw_data import (
    contents,
    cut,
    describe,
    unfinished,
    volumes,
)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Line(capsys)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A faultless data set: a and b labelled, c not."""
    return volumes(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def trained(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of three steps, and the prepared folder."""
    from semialign.training.train import train

    root = tmp_path_factory.mktemp("trained")
    settings = {"steps": 3, "workers": 0, "precision": "float32"}
    run = train(
        sound,
        method="supervised",
        prepared=root / "out",
        output=root / "run",
        settings=settings,
        accelerator="cpu",
        report=False,
    )
    return run, root / "out"


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def spoilt(path: Path, how: str, marker: Path) -> tuple[str, ...]:
    """Spoil the checkpoint; returns words the line must hold."""
    import torch

    if how == "another version":
        torch.save(torch.load(path, weights_only=True) | {"version": 99}, path)
        return "version 99", "train again"
    if how == "no version":
        torch.save({"model": {}}, path)
        return "version None", "train again"
    if how == "a list":
        torch.save([1, 2], path)
        return ("version None",)
    if how == "code":
        torch.save(torch.load(path, weights_only=True) | {"extra": Evil(f"touch {marker}")}, path)
        return "could run code", "not loaded"
    if how == "cut":
        cut(path)
    else:
        path.write_bytes(b"" if how == "empty" else b"text")
    return ("not a readable checkpoint",)


@pytest.mark.parametrize("how", ["another version", "no version", "a list", "code", "cut", "empty", "text"])
def test_a_checkpoint_that_cannot_be_used(
    how: str, line: Line, trained: tuple[Path, Path], sound: Path, tmp_path: Path
) -> None:
    run, marker = tmp_path / "run", tmp_path / "marker"
    shutil.copytree(trained[0], run)
    words = (run / "last.pt", *spoilt(run / "last.pt", how, marker))
    before = contents(run)
    data = [sound, "--prepared", trained[1]]
    line.refuses("train", *data, "--output", run, "--resume", *QUICK, words=words)
    line.refuses("train", *data, "--output", tmp_path / "new", "--init", run, *QUICK, words=words)
    image = sound / "imagesTr" / "c_0000.nii.gz"
    line.refuses("predict", run, image, "--output", tmp_path / "predicted", words=words)
    assert not marker.exists()
    assert not (tmp_path / "new").exists()
    assert contents(run) == before


def test_a_run_of_another_number_of_classes(
    line: Line, trained: tuple[Path, Path], sound: Path, tmp_path: Path
) -> None:
    raw, run = tmp_path / "raw", trained[0]
    shutil.copytree(sound, raw)
    describe(raw, {"background": 0, "organ": 1, "spleen": 2})
    before, data = contents(run), [raw, "--prepared", tmp_path / "out"]
    words = (run / "last.pt", "another number of classes")
    line.refuses(
        "train", *data, "--method", "supervised", "--output", tmp_path / "new", "--init", run, *QUICK, words=words
    )
    line.refuses("train", *data, "--output", run, "--resume", *QUICK, words=(run / "last.pt", "other class names"))
    line.refuses("train", sound, "--prepared", trained[1], "--output", run, *QUICK, words=(run, "holds a run already"))
    line.refuses("train", sound, "--method", "cps", "--init", run, *QUICK, words=("of another method or network",))
    assert contents(run) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_while_training_leaves_the_last_checkpoint(
    line: Line, trained: tuple[Path, Path], sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    run, save, saved = tmp_path / "run", torch.save, []

    def full(state: Any, target: Any) -> None:
        saved.append(target)
        if len(saved) == 2:
            target.write(b"half") if hasattr(target, "write") else Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, target)

    arguments = ["train", sound, "--prepared", trained[1], "--output", run, "--method", "supervised"]
    arguments += ["--steps", 4, "--set", "checkpoint_steps=2", "workers=0", "precision=float32"]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        line.refuses(*arguments, words=(run / "last.pt", "disk is full"))
    assert not unfinished(run)
    assert torch.load(run / "last.pt", weights_only=True)["place"]["steps_done"] == 2
    line.works(*arguments, "--resume")
    assert torch.load(run / "last.pt", weights_only=True)["place"]["steps_done"] == 4


def test_a_store_damaged_unseen_is_named_by_the_loader(
    line: Line, trained: tuple[Path, Path], sound: Path, tmp_path: Path
) -> None:
    prepared = tmp_path / "out"
    shutil.copytree(trained[1], prepared)
    for path in prepared.glob("store/*.image.b2nd"):
        raw = bytearray(path.read_bytes())  # the size stays: only decompressing shows it
        raw[200:-400] = b"\xff" * (len(raw) - 600)
        path.write_bytes(raw)
    arguments = ["train", sound, "--prepared", prepared, "--steps", 3]
    for workers in (0, 1):
        said = line.refuses(*arguments, "--output", f"run{workers}", "--set", f"workers={workers}", words=("damaged",))
        assert said.startswith(f"error: {prepared / 'store'}")
