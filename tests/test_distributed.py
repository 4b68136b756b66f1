"""Two processes train as one: equal weights, different data, resumable, and a mistake still is one line."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anchors_of_ranks import instances

from semialign.training.checkpoint import load_checkpoint

PATIENCE = 900  # seconds
SCRIPT = Path(__file__).parent / "support" / "two_ranks.py"
SETTINGS = {"steps": 6, "checkpoint_steps": 3, "log_steps": 2, "validations": 2, "workers": 0, "precision": "float32"}

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this PyTorch has no gloo, which connects processes without GPUs",
)


def _environment() -> dict[str, str]:
    # Fabric would take this process for one of a group that somebody else has started.
    told = ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "GROUP_RANK")
    return {name: value for name, value in os.environ.items() if name not in told}


Script = Callable[..., tuple[Path, subprocess.CompletedProcess[str]]]
Train = Callable[..., tuple[Path, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def script(tiny: dict[int, Any], tmp_path_factory: pytest.TempPathFactory) -> Script:
    """Run the script that trains on two processes; returns the folder (run folder ``run``) and how it ended."""

    def run(
        method: str, *, dims: int = 2, data: Any = None, resume: Path | None = None, fail: bool = False, **more: Any
    ) -> Any:
        data, folder = data or tiny[dims], tmp_path_factory.mktemp("two")
        timed = {key: value for key, value in SETTINGS.items() if key != "steps"}
        arguments = {
            "watch": folder,
            "fail": fail,
            "data": data.raw,
            "split": data.split,
            "prepared": data.folder,
            "output": resume or folder / "run",
            "method": method,
            "resume": resume is not None,
            "settings": {
                **(timed if "minutes" in more else SETTINGS),
                "batch_labelled": 1,
                "batch_unlabelled": 1,
                **more,
            },
            "accelerator": "cpu",
            "devices": 2,
            "report": False,
        }
        command = [sys.executable, str(SCRIPT), json.dumps(arguments, default=str)]
        return folder, subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=PATIENCE, env=_environment(), check=False
        )

    return run


@pytest.fixture(scope="module")
def train_two(script: Script) -> Train:
    """Train on two processes; returns the folder and both processes' notes."""

    def run(method: str, **options: Any) -> tuple[Path, list[dict[str, Any]]]:
        folder, done = script(method, **options)
        assert done.returncode == 0, done.stderr
        return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]

    return run


@pytest.fixture(scope="module")
def both(train_two: Train) -> tuple[Path, list[dict[str, Any]]]:
    """A mean teacher trained by two processes."""
    return train_two("mean-teacher", learnt=None, start=0.0)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return [{**row, "seconds": ""} for row in csv.DictReader(handle)]


def test_both_end_with_the_same_weights(both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, notes = both
    assert notes[0]["weights"] == notes[1]["weights"]
    assert [note["steps"] for note in notes] == [6, 6]
    assert notes[0]["best"] == notes[1]["best"]
    state = load_checkpoint(folder / "run" / "last.pt")
    assert not any(name.startswith(("module.", "_forward_module.")) for name in state["model"])


def test_they_see_different_data(both: tuple[Path, list[dict[str, Any]]], tiny_2d: Any) -> None:
    _, (first, second) = both
    assert not set(first["images"]) & set(second["images"])
    assert len(set(first["seeds"] + second["seeds"])) == 12, "and draw other noise, in every step"
    labelled = len(tiny_2d.prepared.split.labelled)
    assert labelled == 2
    for one, other in zip(first["labelled"], second["labelled"], strict=True):
        assert one != other, "two cases, two processes: each has one of them in every step"
    # Three unlabelled cases are drawn without repeats over both: steps by turns, first the one, then the other.
    order = [case for pair in zip(first["unlabelled"], second["unlabelled"], strict=True) for case in pair]
    for epoch in range(4):
        assert sorted(order[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]


def test_both_find_the_labels_learnt_at_the_same_step(train_two: Train) -> None:
    _, notes = train_two("mean-teacher", learnt=5.0, start=0.0)
    assert notes[0]["weights"] == notes[1]["weights"], "of which the step and the mean loss are two"
    assert [len(note["unlabelled"]) for note in notes] == [5, 5], "from the second step of six on"


def test_validation_is_shared_out_and_put_together(both: tuple[Path, list[dict[str, Any]]], tiny_2d: Any) -> None:
    from semialign.inference.model import load_trained
    from semialign.training.validation import mean_dice, validate_case

    folder, _ = both
    rows = _rows(folder / "run" / "validation.csv")
    assert [row["step"] for row in rows] == ["3", "6"]
    model, prepared = load_trained(folder / "run", checkpoint="last", accelerator="cpu"), tiny_2d.prepared
    with torch.inference_mode():
        scores = [
            validate_case(model.method.predict, prepared.store, prepared.plan, case, 2)
            for case in prepared.split.validation
        ]
    assert float(rows[-1]["mean_dice"]) == pytest.approx(mean_dice(scores)[0], abs=2e-5)


def test_one_log_of_both(both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = both
    assert [row["step"] for row in _rows(folder / "run" / "log.csv")] == ["2", "4", "6"]


def test_resumed_it_ends_with_the_same_weights(train_two: Train, both: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, notes = both
    _, again = train_two("mean-teacher", learnt=None, start=0.0, resume=folder / "at-step-3")
    assert [note["weights"] for note in again] == [note["weights"] for note in notes]
    assert [note["images"] for note in again] == [note["images"][3:] for note in notes]
    for name in ("log.csv", "validation.csv"):
        assert _rows(folder / "at-step-3" / name) == _rows(folder / "run" / name)


def _command(data: Any, run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "semialign.cli.main", "train", str(data.raw), "--prepared", str(data.folder)]
    command += ["--output", str(run), "--accelerator", "cpu", "--devices", "2", *more]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE, env=_environment())


def test_a_mistake_ends_both_with_one_line(tiny_2d: Any, tmp_path: Path) -> None:
    broken = tmp_path / "split.json"
    broken.write_text('{"labelled": ["nobody"]}')
    done = _command(tiny_2d, tmp_path / "run", "--split", str(broken))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_ends_both_with_one_line(tiny_2d: Any, both: Any) -> None:
    done = _command(tiny_2d, both[0] / "run", "--split", str(tiny_2d.split))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "holds a run already" in done.stderr


def test_a_full_disk_ends_both_with_one_line(script: Script) -> None:
    folder, done = script("supervised", fail=True)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    started = [int(path.name.partition("-")[2]) for path in folder.glob("process-*")]
    assert len(started) == 2
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


METHODS = [("supervised", 3), ("ua-mt", 2), ("cps", 3), ("bcp", 2), ("magicnet", 3), ("dhc", 2), ("generic-ssl", 3)]


@pytest.mark.full
@pytest.mark.parametrize(("method", "dims"), METHODS)
def test_every_method_trains_on_two(train_two: Train, method: str, dims: int) -> None:
    _, notes = train_two(method, dims=dims)
    assert notes[0]["weights"] == notes[1]["weights"]


@pytest.mark.full
def test_batch_norms_end_with_the_same_statistics(train_two: Train, tiny_2d: Any, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(tiny_2d.folder, prepared)
    plan = yaml.safe_load((prepared / "plan.yaml").read_text(encoding="utf-8"))
    plan |= {"network": "vnet", "norm": "batch", "widths": [4, 4, 8, 8, 8], "kernels": [[3, 3]] * 5}
    plan |= {"strides": [[1, 1], *[[2, 2]] * 4], "patch_size": [48, 48]}
    (prepared / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    data = tiny_2d._replace(folder=prepared)
    folder, notes = train_two("mean-teacher", data=data, learnt=None, start=0.0)
    model = load_checkpoint(folder / "run" / "last.pt")["model"]
    assert any(name.endswith("running_var") and (value != 1).any() for name, value in model.items())
    assert notes[0]["weights"] == notes[1]["weights"]


def test_minutes_end_together(train_two: Train) -> None:
    _, notes = train_two("supervised", minutes=0.05, workers=1)
    assert notes[0]["weights"] == notes[1]["weights"]
    assert notes[0]["steps"] == notes[1]["steps"]


@pytest.mark.full
def test_the_command_trains_on_two(tiny_2d: Any, tmp_path: Path) -> None:
    done = _command(tiny_2d, tmp_path / "run", "--split", str(tiny_2d.split), "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: ") == 1
    assert (tmp_path / "run" / "result.json").exists()


def test_class_anchors_are_those_of_all_processes_together(tmp_path: Path) -> None:
    from semialign.losses.proxy import class_anchors

    script = SCRIPT.with_name("anchors_of_ranks.py")
    started = [
        subprocess.Popen([sys.executable, str(script), str(r), "2", str(tmp_path / "meet"), str(tmp_path / f"{r}.pt")])
        for r in range(2)
    ]
    assert [process.wait(PATIENCE) for process in started] == [0, 0]
    embeddings, classes = instances()
    anchors, there = class_anchors(embeddings, classes, 4)
    assert there.tolist() == [True, True, True, False]
    for rank in range(2):
        its, present = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(present, there)
        torch.testing.assert_close(its, anchors)


def test_a_plugin_trains_on_two_processes(train_two: Train) -> None:
    _, notes = train_two("cps", plugins=["scdl"], scdl={"embedding": 8, "samples": 8}, start=0.0)
    assert notes[0]["weights"] == notes[1]["weights"]
    assert [note["steps"] for note in notes] == [6, 6]


@pytest.fixture(scope="module")
def generated(tiny_2d: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny pictures whole, of which SemiGDA keeps latents."""
    from semialign.data.plan import write_plan
    from semialign.data.prepare import prepare

    folder = tmp_path_factory.mktemp("whole-pictures")
    plan = dataclasses.replace(tiny_2d.prepared.plan, picture_size=(32, 32), patch_size=(32, 32))
    write_plan(folder / "plan.yaml", plan)
    return tiny_2d._replace(folder=folder, prepared=prepare(tiny_2d.raw, tiny_2d.split, output=folder))


SHARES = {"steps": 10, "checkpoint_steps": 1, "autoencoder_share": 0.2, "align_share": 0.4, "validations": 1}


@pytest.mark.full
def test_semigda_trains_on_two_through_all_its_stages(train_two: Train, generated: Any) -> None:
    folder, notes = train_two("semigda", data=generated, **SHARES)
    assert notes[0]["weights"] == notes[1]["weights"], "and the scale of the latents, which is measured"
    assert [note["steps"] for note in notes] == [10, 10]
    assert not set(notes[0]["images"]) & set(notes[1]["images"])
    terms = ("reconstruction", "align labelled", "agreement")
    logged = [[term for term in terms if row.get(term)] for row in _rows(folder / "run" / "log.csv")]
    assert logged == [["reconstruction"], *[["align labelled"]] * 2, *[["align labelled", "agreement"]] * 2]
    made = [(name, place) for note in notes for name, place in note["kept"]]
    assert all(note["kept"] for note in notes)
    assert len({name for name, _ in made}) == 1, "one file, of the same weights"
    assert len(set(made)) == len(made), "in which no place is written twice, by one or by both"
    assert not list((folder / "run").glob("latents-*"))
    _, again = train_two("semigda", data=generated, resume=folder / "at-step-3")  # the first of stage align
    assert [note["weights"] for note in again] == [note["weights"] for note in notes]
