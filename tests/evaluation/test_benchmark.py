"""Benchmarks from file to page: what is run, skipped, gone on with and recorded; training stands in."""

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json
from semialign.evaluation.benchmark import bench, list_runs
from semialign.evaluation.benchmark_machine import forget_peak
from semialign.inference.predictor import PredictionSummary

sys.path.append(str(Path(__file__).parents[1] / "support"))
from stand_in_bench import pictures, stand, trial

__all__ = ["pictures", "stand", "trial"]  # fixtures


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"runs": [{k: v for k, v in run.items() if k != "seconds"} for run in value["runs"]]}


def test_the_whole_matrix(trial, stand, pictures):
    result = bench(trial())
    split = read_json(pictures / "split.json")
    assert [(t["method"], t["settings"]["seed"]) for t in stand.trained] == [
        ("supervised", 0), ("mean-teacher", 0), ("supervised", 0),
        ("supervised", 1), ("mean-teacher", 1), ("supervised", 1),
    ]  # fmt: skip
    assert stand.trained[1]["settings"] == {"weight": 0.5, "steps": 10, "minutes": None, "seed": 0}
    folders = [t["prepared"].name for t in stand.trained[:3]]
    assert folders == ["pictures", "pictures", "pictures-all-labels"]
    # The ceiling's labels are those of training cases; test and validation stay what they are.
    ceiling = stand.trained[2]["split"]
    assert ceiling.labelled == tuple(split["labelled"] + split["unlabelled"])
    assert (ceiling.validation, ceiling.test) == (tuple(split["validation"]), tuple(split["test"]))
    assert stand.trained[0]["split"].labelled == tuple(split["labelled"])
    # Only test cases are predicted, by both checkpoints.
    assert {names for _, _, names in stand.predicted} == {tuple(f"{case}_0000.png" for case in split["test"])}
    assert [which for _, which, _ in stand.predicted[:2]] == ["last", "best"]
    value = read_json(result.output / "bench.json")
    assert value == json.loads(json.dumps(result.value))
    assert len(value["runs"]) == 6
    assert len(value["results"]) == 3
    run = value["runs"][1]
    assert (run["entry"], run["seed"], run["folder"]) == ("mean teacher", 0, "runs/pictures/mean-teacher/seed-0")
    assert run["settings"]["method_settings"]["weight"] == 0.5
    assert run["protocol"] == split["protocol"]
    assert {row["case"] for row in run["checkpoints"]["best"]["scores"]} == set(split["test"])
    assert (run["checkpoints"]["best"]["step"], run["checkpoints"]["last"]["step"]) == (5, 10)
    assert run["checkpoints"]["last"]["summary"]["rule"] == "default"
    assert "| mean teacher | 2 | last |" in (result.output / "bench.md").read_text(encoding="utf-8")


def test_scores_are_those_of_the_predictions(trial, stand, pictures):
    value = bench(trial(seeds=[0])).value
    run = value["runs"][0]
    folder = trial().parent / "out" / run["folder"] / "predictions" / "last"
    dice = []
    for case in read_json(pictures / "split.json")["test"]:
        truth = np.asarray(Image.open(pictures / "labelsTr" / f"{case}.png")) > 0
        found = np.asarray(Image.open(folder / f"{case}.png")) > 0
        dice.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert min(dice) > 0
    assert value["results"][0]["checkpoints"]["last"]["dice"]["mean"] == pytest.approx(np.mean(dice))


def test_groups_come_from_the_fingerprint_of_runs_on_the_labels_of_the_split(trial, stand, pictures):
    (name,) = (name for name in read_json(pictures / "dataset.json")["labels"] if name != "background")

    def prepared(options: dict[str, Any]) -> None:
        split = {"background": 0.9, "another": 0.09, name: 0.01}
        ceiling = {"background": 0.9, "another": 0.01, name: 0.09}
        found = ceiling if options["split"].unlabelled == () else split
        write_json(options["output"] / "fingerprint.json", {"class_frequencies": found})

    stand.before_result = prepared
    result = bench(trial())
    for row in result.value["results"]:
        for of in row["checkpoints"].values():
            assert list(of["groups"]) == ["tail"]
            assert of["groups"]["tail"]["classes"] == [name]
            assert of["groups"]["tail"]["dice"] == pytest.approx(of["dice"])
            if row["entry"] != "labels only":
                assert of["groups"]["tail"]["difference"] == of["difference"]
    text = (result.output / "bench.md").read_text(encoding="utf-8")
    assert text.index("Test scores by group of classes") < text.index("Test scores by class")


def test_peak_memory_is_recorded_where_it_is_that_of_the_run(trial, stand, monkeypatch):
    for own, expected in ((True, 2**30), (False, None)):
        monkeypatch.setattr("semialign.evaluation.benchmark_run.forget_peak", lambda own=own: own)
        value = bench(trial(seeds=[0], output=f"out-{own}")).value
        assert {run["peak_memory_bytes"] for run in value["runs"]} == {expected}
        assert {row["peak_memory_bytes"]["mean"] for row in value["results"]} == {expected}


def test_the_peak_of_earlier_runs_is_forgotten():
    resource = pytest.importorskip("resource")
    large = np.ones((100, 2**17))  # 100 MiB
    del large
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not forget_peak():
        pytest.skip("this system cannot set a process's peak memory back")
    assert before - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 80 * 2**10  # KiB, where that can be done


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
    assert sum("settings have changed" in line for line in lines) == 2
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


def test_only_runs_what_it_names_and_keeps_the_rest(trial, stand):
    bench(trial(), only=["mean teacher"])
    assert {t["method"] for t in stand.trained} == {"mean-teacher"}
    value = bench(trial(), only=["pictures", "labels only"]).value
    assert [row["entry"] for row in value["results"]] == ["labels only", "mean teacher"]
    assert "Not run yet: all labels." in (trial().parent / "out" / "bench.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="did you mean 'labels only'"):
        bench(trial(), only=["label only"])


def test_overrides_are_recorded_and_leave_finished_runs_alone(trial, stand, tmp_path):
    bench(trial(seeds=[0]))
    result = bench(trial(), steps=3, seeds=[5])
    assert result.output == tmp_path / "out-steps-3"
    assert result.value["overrides"] == {"steps": 3, "seeds": [5]}
    assert [run["seed"] for run in result.value["runs"]] == [5, 5, 5]
    assert {run["settings"]["training"]["steps"] for run in result.value["runs"]} == {3}
    assert "steps 3, seeds [5]" in (result.output / "bench.md").read_text(encoding="utf-8")
    assert {state for _, state in list_runs(trial(seeds=[0]))} == {"finished"}


def test_without_validation_only_the_last_checkpoint_counts(trial, stand, tmp_path, pictures):
    split = read_json(pictures / "split.json")
    split["unlabelled"] += split.pop("validation")
    write_json(tmp_path / "other.json", split)
    datasets = [{"name": "pictures", "data": str(pictures), "split": "other.json"}]
    value = bench(trial(datasets=datasets)).value
    assert {which for _, which, _ in stand.predicted} == {"last"}
    assert list(value["results"][0]["checkpoints"]) == ["last"]
    assert "No validation cases" in (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")


def test_a_best_checkpoint_of_the_last_step_is_predicted_once(trial, stand):
    stand.best_step = 10
    run = bench(trial(seeds=[0])).value["runs"][0]
    assert {which for _, which, _ in stand.predicted} == {"last"}
    assert run["checkpoints"]["best"] == run["checkpoints"]["last"]


def test_data_that_do_not_fit_stop_before_any_run(trial, stand, tmp_path, pictures):
    split = read_json(pictures / "split.json")
    write_json(tmp_path / "none.json", split | {"test": []})
    with pytest.raises(UserError, match=r"none\.json: no test cases"):
        bench(trial(datasets=[{"name": "a", "data": str(pictures), "split": "none.json"}]))
    bare = tmp_path / "bare"
    shutil.copytree(pictures, bare)
    (bare / "labelsTr" / f"{split['unlabelled'][0]}.png").unlink()
    datasets = [{"name": "a", "data": "bare", "split": "bare/split.json"}]
    with pytest.raises(UserError, match="no entry can have labels: all"):
        bench(trial(datasets=datasets))
    bench(trial(datasets=datasets), only=["labels only"])
    (bare / "labelsTr" / f"{split['test'][0]}.png").unlink()
    stand.trained.clear()
    with pytest.raises(UserError, match="it cannot be scored"):
        bench(trial(datasets=datasets), only=["mean teacher"])
    assert stand.trained == []


def test_a_planted_leak_stops_before_any_run_and_no_unlabelled_label_is_read(trial, stand, tmp_path, pictures):
    split, leaky = read_json(pictures / "split.json"), tmp_path / "leaky"
    shutil.copytree(pictures, leaky)
    for case in split["unlabelled"] + split["labelled"]:  # stood-in training reads none; nor may anything else
        (leaky / "labelsTr" / f"{case}.png").write_bytes(b"poison")
    options = {"datasets": [{"name": "a", "data": "leaky", "split": "leaky/split.json"}], "seeds": [0]}
    options["entries"] = yaml.safe_load(trial().read_text())["entries"][:2]
    assert bench(trial(**options), output=tmp_path / "clean").failed == {}
    stand.trained.clear()
    source, copy = (leaky / "imagesTr" / f"{case}_0000.png" for case in (split["labelled"][1], split["test"][2]))
    Image.open(source).save(copy, optimize=True)
    for output in ("clean", "fresh"):
        with pytest.raises(UserError, match=f"{copy}: a test case with the same voxels as {source}, a case for"):
            bench(trial(**options), output=tmp_path / output)
    assert stand.trained == []
    assert not (tmp_path / "fresh" / "runs").exists()
    assert main(["bench", str(trial(**options))]) == 2


def test_validation_and_test_may_not_share_a_case(trial, stand, tmp_path, pictures):
    split = read_json(pictures / "split.json")
    write_json(tmp_path / "both.json", split | {"validation": split["test"]})  # to choose the checkpoint by test cases
    with pytest.raises(UserError, match="stands in both validation and test; leave it in one"):
        bench(trial(datasets=[{"name": "a", "data": str(pictures), "split": "both.json"}]))
    assert stand.trained == []


def test_folders_that_no_benchmark_made_are_left_alone(trial, stand, tmp_path):
    mine = tmp_path / "out" / "runs" / "pictures" / "labels-only" / "seed-0"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="was not made by a benchmark"):
        bench(trial())
    assert (mine / "thesis.txt").exists()
    shutil.rmtree(mine)
    prepared = tmp_path / "out" / "prepared" / "pictures"
    prepared.mkdir(parents=True)
    (prepared / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="was not made by a benchmark"):
        bench(trial())
    assert (prepared / "thesis.txt").exists()


def test_time_left_is_told_from_finished_runs(trial, stand, monkeypatch):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr("semialign.evaluation.benchmark_run.time.monotonic", lambda: next(clock))
    lines: list[str] = []
    bench(trial(seeds=[0], training={"minutes": 2}), tell=lines.append)
    runs = [line for line in lines if line.startswith("run ")]
    assert runs[0] == "run 1 of 3: pictures, labels only, seed 0 (at least 6 min 0 s left)"
    assert runs[1].endswith("mean teacher, seed 0 (about 1 min 40 s left)")
    assert runs[2].endswith("all labels, seed 0 (about 50 s left)")


def test_dry_run_lists_and_writes_nothing(trial, stand, tmp_path, capsys):
    assert main(["bench", str(trial()), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(":")[0] == "new          pictures, labels only, seed 0"
    assert lines[-1] == "6 runs, 0 finished"
    assert not (tmp_path / "out").exists()


def test_command_prints_tables_and_exits_1_where_a_run_failed(trial, stand, capsys):
    assert main(["bench", str(trial()), "--only", "labels only"]) == 0
    captured = capsys.readouterr()
    assert "labels only" in captured.out
    assert "bench.md" in captured.out
    assert "run 4 of 6" not in captured.err
    assert "run 2 of 2: pictures, labels only, seed 1" in captured.err

    def fail(options: dict[str, Any]) -> None:
        raise UserError("run: no memory")

    stand.on_train = fail
    assert main(["bench", str(trial())]) == 1
    assert "error: pictures, mean teacher, seed 0: run: no memory" in capsys.readouterr().err
    assert main(["bench", str(trial(name="other", output="other"))]) == 1
    assert "all runs failed" in capsys.readouterr().out
    assert main(["bench", str(trial(seeds=[]))]) == 2
