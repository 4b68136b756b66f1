"""A network of slices on volumes, from the command line to figures: it learns, goes on, predicts and is compared."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from command_line import Line

from semialign.data.plan import load_plan
from semialign.training.train import train

# Everything called one ball scores under 0.2. Most slices are bare noise, which instance norm makes as loud as a ball:
# it takes some hundred steps to learn to tell the two apart.
BAR = 0.6
# A small network, since the plan made for a processor is larger than these volumes need.
PLAN = {
    "dimensions": 2,
    "patch_size": [16, 16],
    "widths": [8, 16, 16],
    "strides": [[1, 1], [2, 2], [2, 2]],
    "kernels": [[3, 3]] * 3,
}
SETTINGS = {
    "method": "supervised",
    "steps": 240,
    "foreground": 0.2,
    "log_steps": 10,
    "optimiser": "sgd",
    "learning_rate": 0.03,
    "weight_decay": 1e-4,
    "clip_norm": 12.0,
    "validations": 2,
    "checkpoint_steps": 120,
    "batch_labelled": 6,
    "batch_unlabelled": 6,
    "workers": 0,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan and the settings as a recipe."""
    path = tmp_path_factory.mktemp("recipe") / "slices.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "plan": PLAN}))
    return path


@pytest.fixture(scope="module")
def run(tiny_3d: Any, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the slices of the tiny volumes, with its report."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"recipe": str(recipe), "split": tiny_3d.split, "prepared": folder / "prepared", "accelerator": "cpu"}
    return train(tiny_3d.raw, output=folder / "run", **options)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_it_learns_and_its_predictions_score_as_validated(
    tiny_3d: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(run / "validation.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    best = max(float(row["mean_dice"]) for row in rows)
    assert best > BAR
    plan = load_plan(run.parent / "prepared" / "plan.yaml")
    assert (plan.dimensions, plan.slice_axis) == (2, 2), "2 mm slices of 1 mm pixels"
    assert "report.html" in {path.name for path in run.iterdir()}
    line, out = Line(capsys), tmp_path / "out"
    inputs = [tiny_3d.raw / "imagesTr" / f"{case}_0000.nii.gz" for case in "gh"]
    line.works("predict", run, *inputs, "--output", out, "--accelerator", "cpu", "--probabilities")
    scores = []
    for case in "gh":
        source, found = (
            nibabel.load(path) for path in (tiny_3d.raw / "labelsTr" / f"{case}.nii.gz", out / f"{case}.nii.gz")
        )
        np.testing.assert_array_equal(found.affine, source.affine)
        label, predicted = np.asarray(source.dataobj), np.asarray(found.dataobj)
        seen = label != 3
        scores += [dice((predicted == value) & seen, (label == value) & seen) for value in (1, 2)]
        assert np.load(out / f"{case}_probabilities.npy").shape == (3, 24, 24, 12)
    assert np.mean(scores) == pytest.approx(best, abs=0.03)  # predicted with more overlap, in half precision
    line.works("evaluate", out, tiny_3d.raw / "labelsTr")
    line.works("report", run)


def test_a_run_of_slices_is_gone_on_with(tiny_3d: Any, recipe: Path, run: Path, tmp_path: Path) -> None:
    common = {"split": tiny_3d.split, "prepared": run.parent / "prepared", "accelerator": "cpu", "report": False}
    common |= {"method": "mean-teacher"}  # with the unlabelled stream
    few = {"steps": 4, "checkpoint_steps": 2, "validations": 0, "learnt": None}
    whole = train(tiny_3d.raw, recipe=str(recipe), settings=few, output=tmp_path / "whole", **common)
    again = train(tiny_3d.raw, recipe=str(recipe), settings=few, output=tmp_path / "whole", resume=True, **common)
    assert again == whole
    assert json.loads((whole / "result.json").read_text())["steps"] == 4


def test_a_benchmark_compares_slices_with_volumes(
    tiny_3d: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = json.loads(tiny_3d.split.read_text())
    split |= {"validation": split["validation"][:1], "test": split["validation"][1:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    volumes = recipe.with_name("volumes.yaml")
    whole = {"patch_size": [16, 16, 8], "widths": [4], "strides": [[1, 1, 1]], "kernels": [[3, 3, 3]]}
    volumes.write_text(yaml.safe_dump({**SETTINGS, "plan": whole}))
    bench = {
        "name": "slices",
        "seeds": [0],
        "datasets": [{"name": "tiny", "data": str(tiny_3d.raw), "split": str(tmp_path / "split.json")}],
        "entries": [{"name": "2D", "recipe": str(recipe)}, {"name": "3D", "recipe": str(volumes)}],
    }
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(bench))
    options = ("--output", tmp_path / "out", "--accelerator", "cpu", "--steps", 3)
    Line(capsys).works("bench", tmp_path / "bench.yaml", *options)
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [(r["entry"], r["state"]) for r in result["runs"]] == [("2D", "finished"), ("3D", "finished")]
    plans = [load_plan(path) for path in (tmp_path / "out" / "prepared").glob("*/plan.yaml")]
    assert sorted(plan.dimensions for plan in plans) == [2, 3]
