"""The page of an evaluation: with pictures where the images lie beside the labels, without them where they do not."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.phantom import phantom
from semialign.evaluation.reporting import report


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of pictures, and shifted labels as predictions."""
    root = tmp_path_factory.mktemp("evaluation")
    data = phantom(root / "data", cases=5, labelled=2, test=3, dimensions=2, size=(32, 40), workers=1)
    (root / "predictions").mkdir()
    for number, path in enumerate(sorted((data / "labelsTr").iterdir())):
        Image.fromarray(np.roll(np.asarray(Image.open(path)), number, 0)).save(root / "predictions" / path.name)
    return data, root / "predictions"


def test_evaluate_writes_a_page(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data, predictions = folders
    assert main(["evaluate", str(predictions), str(data / "labelsTr")]) == 0
    page = predictions / "evaluation" / "report.html"
    assert str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h3>(Best|Worst|Median): ", text) == ["Worst", "Median", "Best"]
    assert "HD95 over cases, px" in text
    assert "Best: phantom-000" in text
    assert "Calibration" not in text


def test_without_images_there_are_tables_and_box_plots(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, predictions = folders
    labels = shutil.copytree(data / "labelsTr", tmp_path / "labels")
    assert main(["evaluate", str(predictions), str(labels), "--output", str(tmp_path / "out"), "--no-report"]) == 0
    assert not (tmp_path / "out" / "report.html").exists()
    text = report(tmp_path / "out").read_text(encoding="utf-8")
    assert "Worst:" not in text
    assert "Dice over cases" in text
    assert text.count("<table") >= 2
    # Told where the data set is, it shows them after all.
    assert "Worst:" in report(tmp_path / "out" / "summary.json", data=data).read_text(encoding="utf-8")


def test_pictures_are_found_wherever_the_command_is_run(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, predictions = folders
    monkeypatch.chdir(predictions)
    assert main(["evaluate", ".", str(data / "labelsTr"), "--output", str(tmp_path / "out"), "--no-report"]) == 0
    monkeypatch.chdir(tmp_path)
    text = report(tmp_path / "out").read_text(encoding="utf-8")
    assert "Worst:" in text
    assert f"Evaluation of {predictions.name}" in text


def test_a_case_without_image_costs_its_own_picture_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, predictions = folders
    own = shutil.copytree(data, tmp_path / "data")
    (own / "imagesTr" / "phantom-000_0000.png").unlink()
    (own / "labelsTr" / "phantom-000.png").rename(tmp_path / "phantom-000.png")
    labels = shutil.copytree(data / "labelsTr", tmp_path / "labels")
    assert main(["evaluate", str(predictions), str(labels), "--output", str(tmp_path / "out"), "--no-report"]) == 0
    text = report(tmp_path / "out", data=own).read_text(encoding="utf-8")
    assert re.findall("<h3>(Best|Worst|Median): ", text) == ["Worst", "Median"]


def test_scores_stand_where_predictions_are_gone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, predictions = folders
    moved = shutil.copytree(predictions, tmp_path / "moved")
    assert main(["evaluate", str(moved), str(data / "labelsTr"), "--output", str(tmp_path / "out")]) == 0
    shutil.rmtree(moved)
    assert "Worst:" not in report(tmp_path / "out").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="--part test"):
        report(tmp_path / "out", part="test")
