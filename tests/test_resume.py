"""A run that is killed, at whatever moment, and resumed ends as one that was never stopped."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from semialign.common.errors import UserError
from semialign.evaluation.run_report import report_run
from semialign.training.checkpoint import load_checkpoint

PATIENCE = 900  # seconds; a shared machine may be slow
SETTINGS = ("log_steps=4", "validations=4", "workers=1", "precision=float32", "optimiser=sgd", "learning_rate=0.03")


class Line:
    """Runs ``semialign train`` on the pictures, as a user does."""

    def __init__(self, data: Any, folder: Path) -> None:
        self.data, self.folder = data, folder

    def start(self, run: str, *more: str, method: str = "mean-teacher", steps: int = 24) -> subprocess.Popen[str]:
        """Start a training into ``run``; checkpoints every 5 steps, rows every 4."""
        options = ["--split", self.data.split, "--prepared", self.data.folder, "--output", self.folder / run]
        options += ["--accelerator", "cpu", "--method", method, "--steps", steps]
        command = [sys.executable, "-m", "semialign.cli.main", "train", self.data.raw, *options]
        at_once = ["learnt=null"] if method == "mean-teacher" else []  # or it would see labels alone
        command += ["--set", *SETTINGS, *at_once, *(more or ("checkpoint_steps=5",))]
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=os.environ
        )

    def resume(self, run: str, **options: Any) -> None:
        """Go on with ``run``, with nothing of what it was started with but the data."""
        command = [sys.executable, "-m", "semialign.cli.main", "train", self.data.raw, "--split", self.data.split]
        command += ["--prepared", self.data.folder, "--output", self.folder / run, "--accelerator", "cpu", "--resume"]
        done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", timeout=PATIENCE)
        assert done.returncode == 0, done.stderr

    def whole(self, run: str, *more: str, **options: Any) -> Path:
        """Train without a stop; the run folder."""
        _, errors = (process := self.start(run, *more, **options)).communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return self.folder / run


@pytest.fixture(scope="module")
def line(tiny_2d: Any, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Trainings of this file, in a folder of their own."""
    return Line(tiny_2d, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def whole(line: Line) -> Path:
    """The run that was never stopped."""
    return line.whole("whole")


def _rows(path: Path) -> list[dict[str, str]]:
    try:  # not asked first whether it exists: a run that starts anew may be taking it away
        with open(path, newline="") as handle:
            return [{**row, "seconds": ""} for row in csv.DictReader(handle)]
    except FileNotFoundError:
        return []


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def _require_equal(run: Path, whole: Path) -> None:
    for name in ("last.pt", "best.pt"):
        states = [load_checkpoint(folder / name) for folder in (run, whole)]
        for part in ("model", "optimisers", "means"):
            assert _same(states[0][part], states[1][part]), f"{name}: {part}"
        places = [{k: v for k, v in state["place"].items() if "seconds" not in k} for state in states]
        assert places[0] == places[1]
        assert states[0]["training"] == states[1]["training"]
    for name in ("log.csv", "validation.csv"):
        assert _rows(run / name) == _rows(whole / name), name
    assert not list(run.glob(".writing-*")), "what the killed process left is gone"


def _wait_until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Kill ``process`` once ``happened``; it is held still while that is looked at."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"ended before it could be killed: {process.communicate()[1]}")
        if happened():
            os.kill(process.pid, signal.SIGSTOP)
            if happened():
                process.kill()
                process.communicate()
                assert process.returncode == -signal.SIGKILL
                return
            os.kill(process.pid, signal.SIGCONT)
    process.kill()
    raise AssertionError("nothing happened")


def test_killed_between_checkpoints(line: Line, whole: Path) -> None:
    run = line.folder / "between"
    # Rows of step 8 are written, the checkpoint of step 5 too; steps 6 to 8 and more are lost.
    _wait_until(line.start("between"), lambda: len(_rows(run / "log.csv")) >= 2 and (run / "last.pt").exists())
    assert 2 <= len(_rows(run / "log.csv")) < 6
    line.resume("between")
    _require_equal(run, whole)


def test_killed_while_writing_a_checkpoint(line: Line, whole: Path, tiny_2d: Any) -> None:
    run = line.folder / "writing"

    def writes() -> bool:
        return (run / "last.pt").exists() and any(run.glob(".writing-*-last.pt"))

    _wait_until(line.start("writing", "checkpoint_steps=1"), writes)
    assert any(run.glob(".writing-*-last.pt"))
    state = load_checkpoint(run / "last.pt")
    assert 0 < state["place"]["steps_done"] < 24
    # By the Python function this time, whatever else it is asked for.
    _resume(tiny_2d, run, method="cps", settings={"steps": 3, "seed": 9})
    end = load_checkpoint(run / "last.pt")
    assert end["training"]["checkpoint_steps"] == 1
    _require_equal(run, _with(whole, end, line.folder / "whole-often"))


def _with(whole: Path, end: dict[str, Any], folder: Path) -> Path:
    """Copy ``whole`` as if its checkpoints had been written as often as those of ``end``."""
    shutil.copytree(whole, folder)
    for name in ("last.pt", "best.pt"):
        state = load_checkpoint(folder / name)
        state["training"]["checkpoint_steps"] = end["training"]["checkpoint_steps"]
        torch.save(state, folder / name)
    return folder


def test_killed_before_the_first_checkpoint(whole: Path, line: Line, tiny_2d: Any) -> None:
    run = line.folder / "early"
    run.mkdir()
    for name in ("config.yaml", "split.json", "log.csv"):
        shutil.copy(whole / name, run / name)
    _resume(tiny_2d, run, method="supervised", settings={"steps": 2})
    _require_equal(run, whole)


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to spoil."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def _resume(data: Any, run: Path, **changes: Any) -> None:
    from semialign.training.train import train

    options: dict[str, Any] = {"split": data.split, "prepared": data.folder, "output": run, "resume": True} | changes
    train(data.raw, accelerator="cpu", report=False, **options)


def test_a_finished_run_stays_as_it_is(finished: Path, whole: Path, tiny_2d: Any) -> None:
    before = (finished / "last.pt").read_bytes()
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps(result | {"peak_memory_bytes": 2**50}))
    _resume(tiny_2d, finished)
    assert (finished / "last.pt").read_bytes() == before
    assert json.loads((finished / "result.json").read_text())["peak_memory_bytes"] == 2**50, "of the training"
    _require_equal(finished, whole)


def test_a_run_is_not_overwritten(finished: Path, tiny_2d: Any) -> None:
    for name in ("last.pt", "nothing"):
        (finished / name).unlink(missing_ok=True)
        with pytest.raises(UserError, match="holds a run already; add --resume"):
            _resume(tiny_2d, finished, resume=False)


def test_nothing_to_resume(tmp_path: Path, tiny_2d: Any) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        _resume(tiny_2d, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_cases_are_refused(finished: Path, tiny_2d: Any) -> None:
    # A validation case that becomes a training case, unnoticed, would spoil every figure.
    from semialign.data.splits import Split

    now = tiny_2d.prepared.split
    other = Split(now.labelled + now.validation, now.unlabelled)
    with pytest.raises(UserError, match="other labelled cases") as error:
        _resume(tiny_2d, finished, split=other)
    assert "\n" not in str(error.value)


def test_another_plan_is_refused(finished: Path, tiny_2d: Any) -> None:
    state = load_checkpoint(finished / "last.pt")
    state["plan"]["patch_size"] = [16, 16]
    torch.save(state, finished / "last.pt")
    with pytest.raises(UserError, match="made with other plan"):
        _resume(tiny_2d, finished)


def test_before_the_first_checkpoint_too(finished: Path, tiny_2d: Any) -> None:
    for path in finished.glob("*.pt"):
        path.unlink()
    config = yaml.safe_load((finished / "config.yaml").read_text())
    changed = config | {"plan": config["plan"] | {"patch_size": [16, 16]}}
    (finished / "config.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match=r"config\.yaml: was made with other plan"):
        _resume(tiny_2d, finished)
    (finished / "config.yaml").write_text("")
    with pytest.raises(UserError, match="is not whole, and nothing is trained yet; delete"):
        _resume(tiny_2d, finished)


def test_other_classes_are_refused(finished: Path, tiny_2d: Any) -> None:
    state = load_checkpoint(finished / "last.pt")
    state["class_names"] = ["background", "lesion"]
    torch.save(state, finished / "last.pt")
    with pytest.raises(UserError, match="made with other class names"):
        _resume(tiny_2d, finished)


def test_a_damaged_checkpoint_is_named(finished: Path, tiny_2d: Any) -> None:
    os.truncate(finished / "last.pt", 500)
    with pytest.raises(UserError, match=r"last\.pt: not a readable checkpoint"):
        _resume(tiny_2d, finished)


def test_a_new_run_may_start_from_the_best_weights_of_another(whole: Path, tmp_path: Path, tiny_2d: Any) -> None:
    still = {"steps": 1, "learning_rate": 1e-20, "weight_decay": 0.0, "validations": 0, "workers": 0, "seed": 5}
    for method in ("mean-teacher", "ua-mt"):  # what the weights are called decides, not the method's name
        run = tmp_path / method
        _resume(tiny_2d, run, resume=False, init=whole, method=method, settings=still)
        started = load_checkpoint(whole / "best.pt")["model"]
        for key, value in load_checkpoint(run / "last.pt")["model"].items():
            if key.startswith("network."):  # the teacher moves at the first step already
                assert torch.allclose(value, started[key], atol=1e-6), key


def test_where_a_run_started_from_is_on_record_and_taken_up_again(whole: Path, tmp_path: Path, tiny_2d: Any) -> None:
    still = {"steps": 1, "learning_rate": 1e-20, "weight_decay": 0.0, "validations": 0, "workers": 0, "seed": 5}
    run = tmp_path / "run"
    _resume(tiny_2d, run, resume=False, init=whole, method="mean-teacher", settings=still)
    assert yaml.safe_load((run / "config.yaml").read_text())["init"] == str((whole / "best.pt").resolve())
    before = load_checkpoint(run / "last.pt")["model"]
    for path in (*run.glob("*.pt"), run / "result.json"):  # as if it had been killed before its first checkpoint
        path.unlink()
    _resume(tiny_2d, run)
    assert _same(load_checkpoint(run / "last.pt")["model"], before)


def test_it_is_said_where_that_run_saw_the_test_cases(whole: Path, tmp_path: Path, tiny_2d: Any) -> None:
    split = json.loads(Path(tiny_2d.split).read_text())
    seen = split["labelled"][0]
    other = split | {"labelled": split["labelled"][1:], "test": [*split.get("test", ()), seen]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    options: dict[str, Any] = {"method": "mean-teacher", "settings": {"steps": 1, "validations": 0, "workers": 0}}
    (tmp_path / "prepared").mkdir()
    shutil.copy(tiny_2d.folder / "plan.yaml", tmp_path / "prepared")
    options |= {"split": tmp_path / "other.json", "prepared": tmp_path / "prepared", "resume": False}
    with pytest.warns(UserWarning, match=f"has seen 1 of this split's test cases, such as {seen}"):
        _resume(tiny_2d, tmp_path / "run", init=whole, **options)


def test_that_is_said_of_an_unfinished_run_too(finished: Path, tmp_path: Path, tiny_2d: Any) -> None:
    (finished / "result.json").unlink()
    assert json.loads((finished / "data.json").read_text())["root"] == str(tiny_2d.raw.resolve())
    with pytest.raises(UserError, match=r"not finished; .*--resume"):
        report_run(finished)


def test_weights_of_another_method_are_refused_and_leave_no_run(whole: Path, tmp_path: Path, tiny_2d: Any) -> None:
    with pytest.raises(UserError, match="of another method or network") as error:
        _resume(tiny_2d, tmp_path / "run", resume=False, init=whole, method="cps", settings={"steps": 1})
    assert str(error.value).startswith(str(whole))
    assert not (tmp_path / "run").exists()


_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("accelerator", ["cpu", pytest.param("cuda", marks=_GPU)])
def test_optimisers_go_on_where_the_weights_are(
    tiny_2d: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    from semialign.training.loop import Loop
    from semialign.training.train import train

    class Stopped(BaseException):
        pass

    save = Loop._save

    def saved(self: Loop, *arguments: Any) -> None:
        save(self, *arguments)
        raise Stopped

    options: dict[str, Any] = {"split": tiny_2d.split, "prepared": tiny_2d.folder, "output": tmp_path / "run"}
    options |= {"accelerator": accelerator, "report": False}
    settings = {"steps": 4, "checkpoint_steps": 2, "validations": 0, "workers": 0, "optimiser": "adamw"}
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save", saved)
        with pytest.raises(Stopped):
            train(tiny_2d.raw, settings=settings, **options)
    train(tiny_2d.raw, resume=True, **options)
    steps = [value["step"] for value in load_checkpoint(tmp_path / "run/last.pt")["optimisers"][0]["state"].values()]
    assert set(map(float, steps)) == {4.0}


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(line: Line, whole: Path, seed: int) -> None:
    rng, run = random.Random(seed), line.folder / f"any-{seed}"
    process = line.start(run.name)
    while not (run / "config.yaml").exists():
        assert process.poll() is None
        time.sleep(0.01)
    try:
        process.communicate(timeout=rng.uniform(0, 3))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    line.resume(run.name)
    _require_equal(run, whole)


@pytest.mark.full
def test_killed_again_and_again(line: Line, whole: Path) -> None:
    run = line.folder / "again"
    for rows in (1, 3, 5):
        options = ["--resume"] if rows > 1 else []
        process = line.start("again", "checkpoint_steps=5", *options)
        _wait_until(process, lambda rows=rows: len(_rows(run / "log.csv")) >= rows)  # type: ignore[misc]
    line.resume("again")
    _require_equal(run, whole)


@pytest.mark.full
@pytest.mark.parametrize("method", ["supervised", "ua-mt", "cps", "bcp", "magicnet", "dhc", "generic-ssl"])
def test_every_method_resumes(line: Line, method: str) -> None:
    more = ("checkpoint_steps=5", *(("passes=2",) if method == "ua-mt" else ()))
    whole = line.whole(f"whole-{method}", *more, method=method)
    run = line.folder / f"killed-{method}"
    _wait_until(
        line.start(run.name, *more, method=method),
        lambda: len(_rows(run / "log.csv")) >= 3 and (run / "last.pt").exists(),
    )
    line.resume(run.name)
    _require_equal(run, whole)


@pytest.mark.full
def test_resumes_with_the_precision_it_was_started_with(line: Line) -> None:
    more = ("checkpoint_steps=5", "precision=bf16")
    whole, run = line.whole("whole-bf16", *more), line.folder / "killed-bf16"
    _wait_until(line.start(run.name, *more), lambda: len(_rows(run / "log.csv")) >= 2 and (run / "last.pt").exists())
    line.resume(run.name)
    _require_equal(run, whole)
