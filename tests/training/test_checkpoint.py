"""Checkpoints: whole or not at all, never code, and one line for whatever is wrong with one."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semialign.common.errors import UserError
from semialign.training.checkpoint import VERSION, load_checkpoint, load_weights, save_checkpoint

STATE = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "place": {"step": 3, "stage": "train"},
    "names": ["a", "b"],
}


def _refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    state = {**STATE, "odd": {"half": torch.rand(3).bfloat16(), "count": torch.tensor(7), "none": None, "f": 0.1}}
    save_checkpoint(path, state)
    back = load_checkpoint(path)
    assert back["place"] == STATE["place"]
    assert back["names"] == ["a", "b"]
    assert torch.equal(back["model"]["weight"], STATE["model"]["weight"])  # type: ignore[index]
    assert torch.equal(back["odd"]["half"], state["odd"]["half"])  # type: ignore[index]
    assert (back["odd"]["none"], back["odd"]["f"]) == (None, 0.1)
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_optimisers_of_both_kinds_come_back(tmp_path: Path) -> None:
    for make in (torch.optim.SGD, torch.optim.AdamW):
        module = nn.Linear(3, 2)
        optimiser = make(module.parameters(), lr=0.1)  # type: ignore[operator]
        module(torch.rand(4, 3)).sum().backward()
        optimiser.step()
        save_checkpoint(tmp_path / "o.pt", {"optimisers": [optimiser.state_dict()]})
        other = make(module.parameters(), lr=0.1)  # type: ignore[operator]
        other.load_state_dict(load_checkpoint(tmp_path / "o.pt")["optimisers"][0])
        assert str(other.state_dict()) == str(optimiser.state_dict())


@pytest.mark.parametrize("where", ["save", "rename"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, MemoryError])
def test_interrupted_the_old_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: type[BaseException]
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    save = torch.save

    def fail(state: Any, target: Any, *rest: Any) -> None:
        if where == "save":
            save(state, target)
            os.truncate(next(tmp_path.glob(".writing-*")), 100)
        raise kind("stop")

    if where == "save":
        monkeypatch.setattr(torch, "save", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError if kind is OSError else kind):
        save_checkpoint(path, {"model": {}})
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(path)["model"]["weight"], STATE["model"]["weight"])  # type: ignore[index]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_line_and_the_old_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    os.symlink("/dev/full", tmp_path / f".writing-{os.getpid()}-last.pt")
    with pytest.raises(UserError, match="the disk is full") as error:
        save_checkpoint(path, {"model": {"weight": torch.zeros(100_000)}})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]
    assert "place" in load_checkpoint(path)


def test_a_place_that_cannot_be_written_is_not_called_a_full_disk(tmp_path: Path) -> None:
    # A folder stands where the temporary file should go.
    (tmp_path / f".writing-{os.getpid()}-last.pt").mkdir()
    with pytest.raises((UserError, OSError)) as error:
        save_checkpoint(tmp_path / "last.pt", STATE)
    assert "full" not in str(error.value)


def test_what_cannot_be_saved_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a tensor of another device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="another device"):
        save_checkpoint(tmp_path / "last.pt", STATE)


def test_missing_and_empty_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    assert "no such checkpoint" in _refused(path)
    assert "no such checkpoint" in _refused(tmp_path)
    for content in (
        b"",
        b"hello\n",
        b"\x80\x02",
        b"PK\x03\x04 but no archive",
        bytes(range(150, 250)) * 3,
        b"{}" * 400,
    ):
        path.write_bytes(content)
        assert "not a readable checkpoint" in _refused(path), content[:20]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    assert "not a readable checkpoint" in _refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"weight": torch.rand(20_000)}})
    os.truncate(path, int(path.stat().st_size * share))
    assert "not a readable checkpoint" in _refused(path)


class _Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "last.pt", tmp_path / "was-run"
    state = {"version": VERSION, "model": _Evil(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    assert "could run code" in _refused(path)
    assert not target.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert target.exists(), "the crafted file must be able to do harm, or this test shows nothing"


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "last.pt")
    assert "could run code" in _refused(tmp_path / "last.pt")


def test_another_version(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({**STATE, "version": VERSION + 1}, path)
    assert f"of version {VERSION + 1}, this semialign reads {VERSION}" in _refused(path)
    for foreign in ({"state_dict": {}}, [1, 2], torch.zeros(3)):
        torch.save(foreign, path)
        assert "of version None" in _refused(path)


def test_weights_must_fit_by_name_and_shape() -> None:
    path, module = Path("x.pt"), nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_weights(module, good, path)
    assert torch.equal(module.weight, good["weight"])
    for weights, words in (
        ({"weight": good["weight"]}, "'bias'"),
        ({**good, "extra": torch.zeros(1)}, "'extra'"),
        ({**good, "weight": torch.ones(3, 3)}, r"'weight' is \[3, 3\], here \[2, 3\]"),
        ({**good, "weight": torch.ones(1, 3)}, "'weight'"),
        ({}, "'bias'"),
    ):
        with pytest.raises(UserError, match=words) as error:
            load_weights(module, weights, path)
        assert str(error.value).startswith("x.pt: ")
    assert torch.equal(module.weight, good["weight"]), "nothing is loaded in part"


def test_the_first_name_that_does_not_fit_is_always_the_same() -> None:
    module = nn.ModuleDict({name: nn.Linear(2, 2) for name in "abcdefgh"})
    weights = {name: torch.zeros(5) for name in module.state_dict()}
    with pytest.raises(UserError, match="'a\\.bias'"):
        load_weights(module, weights, Path("x.pt"))


# --- Of a run ---------------------------------------------------------------------------------------------------------


def test_checkpoint_says_all_that_prediction_needs(case: Any, trained: Callable[[Any], Path]) -> None:
    state = load_checkpoint(trained(case) / "last.pt")
    assert {"semialign", "method", "training", "method_settings", "plugins", "plan", "class_names"} <= set(state)
    assert state["method"] == case.method
    assert state["place"]["steps_done"] == 50


def test_reloads_bit_equal(case: Any, trained: Callable[[Any], Path], tiny: dict[int, Any]) -> None:
    from semialign.inference.model import load_trained
    from semialign.methods.base import build_method
    from semialign.networks.build import network_of_plan
    from semialign.networks.layout import lay_out

    run, plan = trained(case), tiny[case.dims].prepared.plan
    images = torch.randn(2, len(plan.normalisation), *plan.patch_size, generator=torch.Generator().manual_seed(0))
    for name in ("best", "last"):
        state = load_checkpoint(run / f"{name}.pt")
        torch.manual_seed(123)
        classes = len(state["class_names"])
        settings, plugins = state["method_settings"], state["plugins"]
        method = build_method(case.method, lambda n=classes: network_of_plan(plan, n), settings, plugins, plan=plan)
        method.load_state_dict(state["model"])
        lay_out(method, torch.device("cpu"))  # the other layout rounds differently
        loaded = load_trained(run, checkpoint=name, accelerator="cpu")
        with torch.inference_mode():
            assert torch.equal(loaded.method.predict(images), method.eval().predict(images))
        probabilities = loaded.probabilities(images)
        assert probabilities.dtype == torch.float32
        assert torch.equal(probabilities, load_trained(run, checkpoint=name, accelerator="cpu").probabilities(images))
        assert probabilities.sum(1).sub(1).abs().max() < 0.02
    assert loaded.plan == plan
    assert not loaded.method.training


def test_load_trained_names_what_is_wrong(trained: Callable[[Any], Path], any_case: Any, tmp_path: Path) -> None:
    from semialign.inference.model import load_trained

    run = tmp_path / "run"
    with pytest.raises(UserError, match="no such run folder"):
        load_trained(run)
    run.mkdir()
    with pytest.raises(UserError, match="no such checkpoint"):
        load_trained(run)
    shutil.copy(trained(any_case) / "last.pt", run / "last.pt")
    assert load_trained(run, accelerator="cpu").class_names, "without a best checkpoint the last one is used"
    with pytest.raises(UserError, match="no such checkpoint"):
        load_trained(run, checkpoint="first", accelerator="cpu")
    with pytest.raises(UserError, match="accelerator tpu"):
        load_trained(run, accelerator="tpu")
    state = load_checkpoint(run / "last.pt")
    save_checkpoint(run / "last.pt", {**state, "class_names": [*state["class_names"], "more"]})
    with pytest.raises(UserError, match="another number of classes"):
        load_trained(run, accelerator="cpu")
    save_checkpoint(run / "last.pt", {**state, "method": "cps", "method_settings": {}})
    with pytest.raises(UserError, match="another method"):
        load_trained(run, accelerator="cpu")
    save_checkpoint(run / "last.pt", {"model": {}})
    with pytest.raises(UserError, match="checkpoint"):
        load_trained(run, accelerator="cpu")
