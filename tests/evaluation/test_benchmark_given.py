"""Another tool's predictions in a benchmark: scored by the same rule, in the same tables, and never trained."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from stand_in_bench import pictures, stand, trial

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.evaluation.benchmark import bench, list_runs
from semialign.evaluation.benchmark_file import load_bench

__all__ = ["pictures", "stand", "trial"]  # fixtures

TOOL = {"name": "their tool", "predictions": "theirs/{dataset}", "train_seconds": 7200, "predict_seconds": 1.5}
OURS = {"name": "labels only", "method": "supervised"}


def predicted(pictures: Path, folder: Path, rows: int = 1) -> Path:
    """The test cases' labels, moved by so many rows."""
    folder.mkdir(parents=True)
    for case in read_json(pictures / "split.json")["test"]:
        label = np.asarray(Image.open(pictures / "labelsTr" / f"{case}.png"))
        Image.fromarray(np.roll(label, rows, 0)).save(folder / f"{case}.png")
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "something else": 1}}')
    return folder


def test_they_stand_in_the_tables(trial, stand, pictures, tmp_path):
    folder = predicted(pictures, tmp_path / "theirs" / "pictures")
    result = bench(trial(entries=[OURS, TOOL | {"parameters": 31_000_000}]))
    assert [t["method"] for t in stand.trained] == ["supervised"] * 2
    rows = {row["entry"]: row for row in result.value["results"]}
    theirs = rows["their tool"]
    dice = []
    for case in read_json(pictures / "split.json")["test"]:
        truth = np.asarray(Image.open(pictures / "labelsTr" / f"{case}.png")) > 0
        dice.append(2 * (truth & np.roll(truth, 1, 0)).sum() / (2 * truth.sum()))
    assert theirs["checkpoints"]["last"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert theirs["checkpoints"]["last"]["difference"] is not None
    assert (theirs["training_seconds"]["median"], theirs["predict_seconds"]["median"]) == (7200, 1.5)
    assert (theirs["steps"]["median"], theirs["seeds"], result.value["planned"]) == (None, [0], 3)
    text = (result.output / "bench.md").read_text(encoding="utf-8")
    assert "| their tool | 2 | as given |" in text
    assert "| their tool | 2 h 0 min | - | 1.50 s | - | 31.00 M | 1 |" in text
    assert "against their tool" in text
    assert "their tool" in (result.output / "report.html").read_text(encoding="utf-8")
    assert rows["labels only"]["parameters"]["median"] == 1234
    assert result.value["runs"][1]["source"] == str(folder)
    lines: list[str] = []
    bench(trial(entries=[OURS, TOOL | {"train_seconds": 60}]), tell=lines.append)
    assert lines[0].startswith("3 runs, 3 of them finished before")  # costs are told, and decide no score
    assert "| their tool | 1 min 0 s |" in (result.output / "bench.md").read_text(encoding="utf-8")


def test_a_folder_a_seed(trial, stand, pictures, tmp_path):
    for seed in (0, 1):
        predicted(pictures, tmp_path / f"seed{seed}", rows=seed)
    entry = {"name": "their tool", "predictions": str(tmp_path / "seed{seed}")}
    (row,) = bench(trial(entries=[entry])).value["results"]
    dice = row["checkpoints"]["last"]["dice"]
    assert (row["seeds"], dice["maximum"], dice["runs"]) == ([0, 1], 1.0, 2)
    assert dice["minimum"] < 1
    assert stand.trained == []


def test_lacking_and_wrong_cases_fail_in_one_line_and_heal(trial, stand, pictures, tmp_path):
    folder = predicted(pictures, tmp_path / "theirs" / "pictures")
    case = read_json(pictures / "split.json")["test"][0]
    (folder / f"{case}.png").rename(tmp_path / "kept.png")
    result = bench(trial(entries=[OURS, TOOL]))
    (reason,) = result.failed.values()
    assert reason == f"{folder}: no prediction for 1 of 4 cases: {case}; predict them first"
    text = (result.output / "bench.md").read_text(encoding="utf-8")
    assert "| their tool | 2 | all runs failed |" in text
    assert f"Failed: their tool: {reason}" in text
    assert not list((tmp_path / "out").glob("runs/pictures/their-tool/**/error.txt"))
    Image.new("L", (5, 5)).save(folder / f"{case}.png")
    (reason,) = bench(trial(entries=[OURS, TOOL])).failed.values()
    assert "size 5 x 5 instead of 32 x 32" in reason
    shutil.move(tmp_path / "kept.png", folder / f"{case}.png")
    assert bench(trial(entries=[OURS, TOOL])).failed == {}
    shutil.rmtree(folder)
    assert list(bench(trial(entries=[OURS, TOOL])).failed.values()) == [f"{folder}: no such file or folder"]


def test_replaced_predictions_are_scored_anew_and_other_files_are_not_looked_at(trial, stand, pictures, tmp_path):
    folder = predicted(pictures, tmp_path / "theirs" / "pictures")
    before = bench(trial(entries=[TOOL])).value["results"][0]["checkpoints"]["last"]["dice"]["mean"]
    (folder / "another.png").write_text("no picture")
    assert [state for _, state in list_runs(trial(entries=[TOOL]))] == ["finished"]
    shutil.rmtree(folder)
    predicted(pictures, folder, rows=0)
    assert [state for _, state in list_runs(trial(entries=[TOOL]))] == ["changed"]
    after = bench(trial(entries=[TOOL])).value["results"][0]["checkpoints"]["last"]["dice"]["mean"]
    assert before < after == 1
    os.utime(next(folder.glob("*.png")), ns=(1, 1))
    assert [state for _, state in list_runs(trial(entries=[TOOL]))] == ["changed"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "cps"}, "leave out 'method'"),
    ({"settings": {"steps": 3}}, "leave out 'settings'"),
    ({"predict_seconds": 0}, "'predict_seconds' must be more than 0"),
    ({"predictions": None}, "'train_seconds' belongs to 'predictions'"),
    ({"predictions": "one"}, "write {dataset} in its path"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_mistakes_are_one_line(tmp_path, changes, message):
    datasets = [{"name": name, "phantom": {}} for name in ("a", "b")]
    value = {"name": "trial", "datasets": datasets, "entries": [TOOL | changes]}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match=r"trial\.yaml: entry 'their tool': ") as caught:
        load_bench(tmp_path / "trial.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
