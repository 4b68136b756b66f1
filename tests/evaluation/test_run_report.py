"""A run's page made from its folder: which pictures it shows and in what order, groups of classes, what was learned."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from semialign.common.errors import UserError
from semialign.evaluation.report_cases import chosen
from semialign.evaluation.reporting import report
from semialign.evaluation.run_report import report_run


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({}, []),
        ({"a": 0.5}, [("a", "worst")]),
        ({"a": 0.9, "b": 0.1}, [("b", "worst"), ("a", "best")]),
        ({"a": 0.9, "b": 0.1, "c": 0.5}, [("b", "worst"), ("c", "median"), ("a", "best")]),
        ({"e": 0.4, "d": 0.3, "c": 0.9, "b": 0.1, "a": 0.5}, [("b", "worst"), ("e", "median"), ("c", "best")]),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, [("a", "worst"), ("b", "median"), ("c", "best")]),
    ],
)
def test_pictures_stand_worst_first(dice: dict[str, float], expected: list[tuple[str, str]]) -> None:
    assert list(chosen(dice).items()) == expected


@pytest.fixture(scope="module")
def run(trained: Callable[[Any], Path], any_case: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two classes, ball and hole, copied so that it may be written to."""
    return shutil.copytree(trained(any_case), tmp_path_factory.mktemp("report") / "run")


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]*>", "\n", page.read_text(encoding="utf-8"))


def test_groups_come_from_the_labelled_cases(run: Path) -> None:
    found = json.loads((run / "fingerprint.json").read_text())
    swapped = found | {"class_frequencies": {"background": 0.9, "ball": 0.01, "hole": 0.09}}
    (run / "fingerprint.json").write_text(json.dumps(swapped))
    page = text_of(report_run(run, accelerator="cpu"))
    groups = json.loads((run / "validation" / "evaluation" / "summary.json").read_text())["groups"]
    assert {name: of["classes"] for name, of in groups.items()} == {"head": ["hole"], "tail": ["ball"]}
    assert "By frequency in the labelled cases" in page
    assert "head: hole; tail: ball; groups by" in page
    assert "What was learned of each class" not in page
    renamed = found | {"class_frequencies": {"background": 0.9, "sphere": 0.01, "hole": 0.09}}
    (run / "fingerprint.json").write_text(json.dumps(renamed))
    assert "By frequency in the labelled cases" not in text_of(report_run(run, accelerator="cpu"))


def test_what_a_plug_in_learned_is_drawn(run: Path) -> None:
    names = ("background", "ball", "hole")
    with open(run / "proxies.csv", "w", newline="") as handle:
        figures = {"norm": 1, "spread": 0.5, "share": 0.3} | {f"cos {name}": 0.125 for name in names}
        table = csv.DictWriter(handle, ["step", "network", "class", *figures])
        table.writeheader()
        table.writerows({"step": step, "network": "student", "class": n} | figures for step in (1, 2) for n in names)
    page = text_of(report_run(run, accelerator="cpu"))
    assert page.count("What was learned of each class") == 2  # the heading, and the link to it
    assert "ball and hole: 0.125" in page


def test_how_sure_the_model_is_stands_on_the_page(run: Path) -> None:
    page = text_of(report(run, accelerator="cpu"))
    assert "Uncertainty and calibration" in page
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count('<input type="range"') == 2  # a slider a case
    # The entropy is drawn, not only given a place.
    assert len(re.findall(r'<image data-layer="entropy"[^>]* href="data:image/png;base64,[^"]+"', text)) == 2
    found = json.loads((run / "validation" / "evaluation" / "calibration.json").read_text())
    assert found["cases"] == ["g", "h"]
    # Every voxel but those that nobody annotated (two of 24 columns) is counted once for every class.
    assert [sum(of["voxels"]) for of in found["classes"].values()] == [2 * 22 * 24 * 12] * 3
    assert sum(sum(of["hits"]) for of in found["classes"].values()) == 2 * 22 * 24 * 12


def test_predictions_are_made_again_where_they_do_not_fit(run: Path) -> None:
    report_run(run, accelerator="cpu")
    label, sure = run / "validation" / "g.nii.gz", run / "validation" / "certainty" / "g.npz"

    def changes(**options: Any) -> set[str]:
        before = {path: path.stat().st_mtime_ns for path in (label, sure) if path.exists()}
        report_run(run, accelerator="cpu", **options)
        return {path.name for path in (label, sure) if path.stat().st_mtime_ns != before.get(path)}

    assert changes() == set()
    assert changes(checkpoint="last") == {"g.nii.gz", "g.npz"}
    assert changes(checkpoint="last") == set()
    sure.write_bytes(sure.read_bytes()[:100])
    assert changes(checkpoint="last") == {"g.nii.gz", "g.npz"}
    sure.unlink()  # a run of an earlier version has predictions alone
    assert changes(checkpoint="last") == {"g.nii.gz", "g.npz"}


def test_an_image_that_was_mended_is_predicted_anew(run: Path, tmp_path: Path) -> None:
    data = shutil.copytree(json.loads((run / "data.json").read_text())["root"], tmp_path / "data")
    report_run(run, data=data, accelerator="cpu")
    before = (run / "validation" / "g.nii.gz").read_bytes()
    path = data / "imagesTr" / "g_0000.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.roll(np.asarray(image.dataobj), 4, 0), image.affine), path)
    report_run(run, data=data, accelerator="cpu")
    assert (run / "validation" / "g.nii.gz").read_bytes() != before


def test_a_mistake_deletes_nothing(run: Path) -> None:
    report_run(run, accelerator="cpu")
    kept = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=r"checkpoint 'lst'.*did you mean 'last'"):
        report_run(run, checkpoint="lst", accelerator="cpu")
    with pytest.raises(UserError, match="accelerator"):
        report_run(run, checkpoint="last", accelerator="gpuu")
    assert sorted(run.rglob("*")) == kept


def test_the_page_names_its_checkpoint(run: Path) -> None:
    note = "these cases chose the checkpoint"
    best, last = (text_of(report_run(run, checkpoint=name, accelerator="cpu")) for name in ("best", "last"))
    assert note in best
    assert note not in last
    for page, name in ((best, "best"), (last, "last")):
        assert re.search(rf"Checkpoint\s+{name}\s", page)


def test_a_label_that_was_mended_is_scored_and_calibrated_anew(run: Path, tmp_path: Path) -> None:
    data = shutil.copytree(json.loads((run / "data.json").read_text())["root"], tmp_path / "data")
    report_run(run, data=data, accelerator="cpu")

    def figures() -> tuple[Any, Any]:
        of = run / "validation" / "evaluation"
        calibration, summary = (json.loads((of / f"{name}.json").read_text()) for name in ("calibration", "summary"))
        return [found["hits"] for found in calibration["classes"].values()], summary["mean"]["dice"]

    before = figures()
    path = data / "labelsTr" / "g.nii.gz"
    label = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.roll(np.asarray(label.dataobj), 4, 0), label.affine), path)
    report_run(run, data=data, accelerator="cpu")
    after = figures()
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_a_data_set_of_more_classes_by_now_is_refused(run: Path, tmp_path: Path) -> None:
    data = shutil.copytree(json.loads((run / "data.json").read_text())["root"], tmp_path / "data")
    about = json.loads((data / "dataset.json").read_text())
    names = [name for name in about["labels"] if name != "ignore"]
    about["labels"] = {name: place for place, name in enumerate([*names, "another"])}
    (data / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"dataset\.json: has 4 classes \(background included\), but .* learnt 3"):
        report_run(run, data=data, accelerator="cpu")


def test_a_run_folder_with_less_in_it_still_gives_a_page(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    shutil.rmtree(old / "validation", ignore_errors=True)
    for name in ("fingerprint.json", "log.csv", "validation.csv"):
        (old / name).unlink()
    (old / "result.json").write_text("{}")
    page = text_of(report(old, accelerator="cpu"))
    assert "Data at a glance" in page  # the parts of the split are known still
    assert "Training loss" not in page
    assert "Scores per class" in page


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        report(tmp_path / "none")
    with pytest.raises(UserError, match=r"no run, benchmark or evaluation lies here"):
        report(tmp_path)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"did you mean .*evaluation\?"):
        report(tmp_path)
    (tmp_path / "config.yaml").write_text("method: cps")
    with pytest.raises(UserError, match=r"not finished; .*--resume"):
        report(tmp_path)


def test_data_that_have_moved_are_asked_for(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    (moved / "data.json").write_text(json.dumps({"name": "Tiny", "root": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match=r"gone: the data set of .* --data"):
        report(moved)
