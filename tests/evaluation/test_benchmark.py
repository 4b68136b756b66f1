"""Benchmarks from file to page: what is run, refused and recorded; training stands in."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from stand_in_bench import pictures, stand, trial

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json
from semialign.evaluation.benchmark import bench, list_runs
from semialign.evaluation.benchmark_machine import forget_peak

__all__ = ["pictures", "stand", "trial"]  # fixtures


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


def test_a_pattern_that_knows_no_patients_stops_before_any_run(trial, stand, pictures):
    data = {"name": "a", "data": str(pictures), "split": str(pictures / "split.json")}
    with pytest.raises(UserError, match=r"data set a: group_by patient\\d\+: does not match case"):
        bench(trial(datasets=[data | {"group_by": r"patient\d+"}]))
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
