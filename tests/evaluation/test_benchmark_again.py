"""Benchmarks that are stopped, fail or change, and are called again; training stands in."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from stand_in_bench import pictures, stand, trial

from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json
from semialign.evaluation.benchmark import bench, list_runs
from semialign.inference.predictor import PredictionSummary

__all__ = ["pictures", "stand", "trial"]  # fixtures


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"runs": [{k: v for k, v in run.items() if k != "seconds"} for run in value["runs"]]}


def test_a_second_call_does_nothing_and_says_the_same(trial, stand):
    first = bench(trial()).value
    stand.trained.clear()
    stand.predicted.clear()
    lines: list[str] = []
    assert bench(trial(), tell=lines.append).value == first
    assert (stand.trained, stand.predicted) == ([], [])
    assert lines == ["6 runs, 6 of them finished before; equal number of steps: 10 a run (not equal time)"]


@pytest.mark.parametrize("moment", ["on_train", "before_result"])
def test_a_killed_matrix_ends_as_one_that_was_not(trial, stand, tmp_path, moment):
    whole = bench(trial(), output=tmp_path / "whole").value

    def kill(options: dict[str, Any]) -> None:
        if len(stand.trained) == 10:
            raise KeyboardInterrupt

    setattr(stand, moment, kill)
    with pytest.raises(KeyboardInterrupt):
        bench(trial(), output=tmp_path / "killed")
    assert len(read_json(tmp_path / "killed" / "bench.json")["runs"]) == 3
    states = [state for _, state in list_runs(trial(), output=tmp_path / "killed")]
    assert states == ["finished"] * 3 + ["interrupted"] + ["new"] * 2
    setattr(stand, moment, lambda options: None)
    again = bench(trial(), output=tmp_path / "killed").value
    assert len(stand.trained) == 6 + 3 + 1 + 3
    assert stand.trained[10]["resume"] == (moment == "before_result")
    assert timeless(again) == timeless(whole)
    assert (tmp_path / "killed" / "bench.md").read_text(encoding="utf-8") == (
        tmp_path / "whole" / "bench.md"
    ).read_text()


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_random_moments_it_ends_the_same(trial, stand, tmp_path, monkeypatch, seed):
    bench(trial(), output=tmp_path / "whole")
    chance = random.Random(seed)

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before = chance.random() < 0.08
            if before:
                raise KeyboardInterrupt
            done = function(*arguments, **options)
            if chance.random() < 0.08:
                raise KeyboardInterrupt
            return done

        return call

    with monkeypatch.context() as patched:
        patched.setattr("semialign.training.train.train", mortal(stand.train))
        patched.setattr("semialign.inference.predictor.predict", mortal(stand.predict))
        for module in ("benchmark", "benchmark_run", "results"):
            patched.setattr(f"semialign.evaluation.{module}.write_json", mortal(write_json))
        kills = 0
        while True:
            try:
                bench(trial(), output=tmp_path / "killed")
                break
            except KeyboardInterrupt:
                kills += 1
    assert kills > 1
    whole, killed = (read_json(tmp_path / name / "bench.json") for name in ("whole", "killed"))
    assert timeless(killed) == timeless(whole)
    assert (tmp_path / "killed" / "bench.md").read_text(encoding="utf-8") == (
        tmp_path / "whole" / "bench.md"
    ).read_text()


def test_killed_between_training_and_scores_trains_no_second_time(trial, stand, monkeypatch):
    def kill(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semialign.inference.predictor.predict", kill)
    with pytest.raises(KeyboardInterrupt):
        bench(trial(seeds=[0]))
    monkeypatch.setattr("semialign.inference.predictor.predict", stand.predict)
    bench(trial(seeds=[0]))
    assert len(stand.trained) == 3


def test_a_failed_run_is_recorded_and_tried_again(trial, stand):
    def fail(options: dict[str, Any]) -> None:
        if options["method"] == "mean-teacher":
            raise UserError("run: no memory") if options["settings"]["seed"] == 0 else ValueError("odd\nand long")

    stand.on_train = fail
    result = bench(trial())
    assert result.failed == {
        "pictures, mean teacher, seed 0": "run: no memory",
        "pictures, mean teacher, seed 1": "ValueError: odd and long",
    }
    states = {(run["entry"], run["seed"]): run["state"] for run in result.value["runs"]}
    assert states["mean teacher", 0] == states["mean teacher", 1] == "failed"
    assert list(states.values()).count("finished") == 4
    folder = result.output / "runs" / "pictures" / "mean-teacher"
    assert "raise UserError" in (folder / "seed-1" / "error.txt").read_text()
    assert not (folder / "seed-0" / "error.txt").exists()
    assert "| mean teacher | 2 | all runs failed |" in (result.output / "bench.md").read_text(encoding="utf-8")
    stand.on_train = lambda options: None
    stand.trained.clear()
    assert bench(trial()).failed == {}
    assert [t["method"] for t in stand.trained] == ["mean-teacher"] * 2


def test_a_case_that_cannot_be_predicted_fails_the_run(trial, stand, monkeypatch):
    summary = PredictionSummary(failed={Path("x.png"): "x.png: broken"})
    monkeypatch.setattr("semialign.inference.predictor.predict", lambda *arguments, **options: summary)
    assert set(bench(trial(seeds=[0])).failed.values()) == {"x.png: broken"}


def test_changed_settings_are_done_again_and_said(trial, stand):
    bench(trial())
    stand.trained.clear()
    lines: list[str] = []
    entries = yaml.safe_load(trial().read_text())["entries"]
    entries[1]["settings"]["weight"] = 0.7
    changed = trial(entries=entries)
    assert [state for _, state in list_runs(changed)] == ["finished", "changed", "finished"] * 2
    leftover = trial().parent / "out/runs/pictures/mean-teacher/seed-0/leftover"
    leftover.touch()
    value = bench(trial(entries=entries), tell=lines.append).value
    assert [(t["method"], t["resume"]) for t in stand.trained] == [("mean-teacher", False)] * 2
    assert not leftover.exists()
    assert sum("settings or its data have changed" in line for line in lines) == 2
    assert [run["settings"]["method_settings"].get("weight") for run in value["runs"][:3]] == [None, 0.7, None]


def test_the_number_of_workers_is_no_change(trial, stand):
    bench(trial())
    changed = trial(training={"steps": 10, "workers": 1})
    assert {state for _, state in list_runs(changed)} == {"finished"}
    changed = trial(training={"steps": 10, "learning_rate": 0.5})
    assert {state for _, state in list_runs(changed)} == {"changed"}
    entries = yaml.safe_load(changed.read_text())["entries"]
    entries[0]["labels"] = "all"
    changed = trial(entries=entries)
    assert [state for _, state in list_runs(changed)][:3] == ["changed", "finished", "finished"]


def test_a_better_name_is_no_change(trial, stand):
    bench(trial(seeds=[0]))
    entries = yaml.safe_load(trial().read_text())["entries"]
    entries[1]["name"] = "Mean Teacher"
    stand.trained.clear()
    value = bench(trial(seeds=[0], entries=entries)).value
    assert stand.trained == []
    assert [row["entry"] for row in value["results"]] == ["labels only", "Mean Teacher", "all labels"]


def test_another_split_prepares_anew(trial, stand, tmp_path, pictures):
    bench(trial(seeds=[0]))
    old = tmp_path / "out" / "prepared" / "pictures" / "plan.yaml"
    old.touch()
    split = read_json(pictures / "split.json")
    split["labelled"].append(split["unlabelled"].pop())
    write_json(tmp_path / "other.json", split)
    datasets = [{"name": "pictures", "data": str(pictures), "split": "other.json"}]
    lines: list[str] = []
    bench(trial(seeds=[0], datasets=datasets), tell=lines.append)
    assert not old.exists()
    assert sum("is made anew" in line for line in lines) == 2
    split["protocol"] = "a better name"
    write_json(tmp_path / "other.json", split)
    assert {state for _, state in list_runs(trial(seeds=[0], datasets=datasets))} == {"finished"}


@pytest.fixture
def own(pictures, tmp_path) -> Path:
    """A copy of the data that may be changed."""
    return shutil.copytree(pictures, tmp_path / "own")


def sets(own: Path) -> list[dict[str, str]]:
    return [{"name": "pictures", "data": str(own), "split": str(own / "split.json")}]


def redrawn(own: Path, case: str) -> None:
    """Another label of the case, drawn over the old one."""
    path = own / "labelsTr" / f"{case}.png"
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 3, 1)).save(path)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_a_test_label_that_was_mended_is_scored_anew_and_trains_nothing(trial, stand, own):
    before = bench(trial(datasets=sets(own))).value
    case = read_json(own / "split.json")["test"][0]
    redrawn(own, case)
    assert {state for _, state in list_runs(trial(datasets=sets(own)))} == {"test labels changed"}
    lines: list[str] = []
    after = bench(trial(datasets=sets(own)), tell=lines.append).value
    assert len(stand.trained) == 6
    assert sum("scored anew" in line for line in lines) == 6
    for old, new in zip(before["runs"], after["runs"], strict=True):
        changed = {
            name
            for name, dice in new["checkpoints"]["last"]["case_dice"].items()
            if dice != old["checkpoints"]["last"]["case_dice"][name]
        }
        assert changed == {case}
        assert new["predict_seconds"] == old["predict_seconds"] is not None
    names = read_json(own / "dataset.json")
    names["labels"] = {"renamed" if value else name: value for name, value in names["labels"].items()}
    write_json(own / "dataset.json", names)
    bench(trial(datasets=sets(own)))
    assert len(stand.trained) == 6
    assert "renamed" in (trial().parent / "out" / "bench.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("part", "changed"), [("labelled", 6), ("validation", 6), ("unlabelled", 2)])
def test_a_label_that_teaches_trains_anew_what_it_taught(trial, stand, own, part, changed):
    bench(trial(datasets=sets(own)))
    redrawn(own, read_json(own / "split.json")[part][0])
    states = [state for _, state in list_runs(trial(datasets=sets(own)))]
    assert states.count("changed") == changed
    assert set(states[2::3]) == {"changed"}  # all labels


def test_it_says_which_state_of_semialign_trained(trial, stand, monkeypatch):
    commits = "semialign.evaluation.benchmark_run.source_commit"
    monkeypatch.setattr(commits, lambda: "one")
    bench(trial(seeds=[0]))

    def kill(options: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    stand.before_result = kill
    with pytest.raises(KeyboardInterrupt):
        bench(trial())
    monkeypatch.setattr(commits, lambda: "two")
    stand.before_result = lambda options: None
    value = bench(trial()).value
    assert [run["commit"] for run in value["runs"]] == ["one"] * 3 + ["one, then two", "two", "two"]
    text = (trial().parent / "out" / "bench.md").read_text(encoding="utf-8")
    assert "Trained with more than one state of semialign: one; one, then two; two." in text


def test_killed_while_it_deletes_it_goes_on(trial, stand, monkeypatch):
    bench(trial(seeds=[0]))
    entries = yaml.safe_load(trial().read_text())["entries"]
    entries[1]["settings"]["weight"] = 0.7
    delete = shutil.rmtree

    def killed(folder: Path, **options: Any) -> None:
        if (Path(folder) / "bench-run.json").exists():
            (Path(folder) / "bench-run.json").unlink()
            raise KeyboardInterrupt
        delete(folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr("semialign.evaluation.benchmark_data.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            bench(trial(seeds=[0], entries=entries))
    value = bench(trial(seeds=[0], entries=entries)).value
    assert [run["state"] for run in value["runs"]] == ["finished"] * 3
    assert [run["settings"]["method_settings"].get("weight") for run in value["runs"]] == [None, 0.7, None]
