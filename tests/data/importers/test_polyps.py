"""Kvasir-SEG and CVC-ClinicDB joined, tested on each apart and on CVC-300."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.image_io import read_label
from semialign.data.importers import import_dataset

FORMS = {
    "Kvasir-SEG": ("images", "masks", ".jpg"),
    "CVC-ClinicDB": ("Original", "Ground Truth", ".tif"),
    "CVC-300": ("images", "masks", ".png"),
}


def make(root: Path, count: int = 4) -> Path:
    """The owners' folders, ``count`` pictures each, called 1, 2, ... in all of them."""
    for place, (name, (images, masks, ending)) in enumerate(FORMS.items()):
        for number in range(1, count + 1):
            rng = np.random.default_rng(100 * place + number)
            mask = np.zeros((40, 48), np.uint8)
            mask[4 + number : 20 + number, 8 + place : 30] = 255
            picture = rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)
            for folder, array in ((images, picture), (masks, mask)):
                (root / name / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / name / folder / f"{number}{ending}")
    return root


def test_the_sets_become_one_and_ids_tell_them_apart(tmp_path: Path) -> None:
    done = import_dataset("polyps", make(tmp_path / "in"), tmp_path / "out")
    assert (done.cases, done.labelled) == (12, 12)
    assert list(done.notes[:3]) == ["CVC-300: 4 cases", "CVC-ClinicDB: 4 cases", "Kvasir-SEG: 4 cases"]
    dataset = load_dataset(tmp_path / "out")
    assert set(dataset.cases) == {f"{name}_{number}" for name in FORMS for number in range(1, 5)}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["name"] == "polyps"
    for place, name in enumerate(FORMS):
        label = read_label(tmp_path / "out" / "labelsTr" / f"{name}_2.png")[0]
        assert (label > 0).sum() == 16 * (22 - place)
    picture = Image.open(tmp_path / "out" / "imagesTr" / "CVC-ClinicDB_3_0000.png")
    np.testing.assert_array_equal(picture, np.random.default_rng(103).integers(0, 255, (40, 48, 3)).astype(np.uint8))


def test_what_is_no_collection_of_sets(tmp_path: Path) -> None:
    source = make(tmp_path / "in")
    with pytest.raises(UserError, match="use `semialign import polyp`"):
        import_dataset("polyps", source / "Kvasir-SEG", tmp_path / "out")
    shutil.copytree(source / "CVC-300", source / "CVC_300")
    with pytest.raises(UserError, match="would be called as those of CVC-300; rename one") as caught:
        import_dataset("polyps", source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    for name in ("CVC_300", "CVC-300", "CVC-ClinicDB"):
        shutil.rmtree(source / name)
    with pytest.raises(UserError, match="not several polyp folders"):
        import_dataset("polyps", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trained_together_tested_apart(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "in")
    main(["import", "polyps", "in", "polyps"])
    split = ["split", "polyps", "--labelled", "2", "--test", "3", "--test-match", "^CVC-300_", "--output", "split.json"]
    main(split)
    parts = json.loads(Path("split.json").read_text())
    assert {f"CVC-300_{number}" for number in range(1, 5)} < set(parts["test"])
    assert {part: len(parts[part]) for part in ("labelled", "unlabelled", "test")} == {
        "labelled": 2,
        "unlabelled": 3,
        "test": 7,
    }
    # Predictions: right everywhere but on CVC-300, where nothing is found.
    Path("predictions").mkdir()
    for case in parts["test"]:
        label = np.asarray(Image.open(f"polyps/labelsTr/{case}.png"))
        Image.fromarray(label * (not case.startswith("CVC-300"))).save(f"predictions/{case}.png")
    capsys.readouterr()
    main(["evaluate", "predictions", "polyps/labelsTr", "--split", "split.json", "--group-by", "^([^_]+)_"])
    shown = capsys.readouterr().out
    summary = json.loads(Path("predictions/evaluation/summary.json").read_text())
    groups = summary["case_groups"]
    assert {name: of["cases"] for name, of in groups.items()} == {
        name: sum(case.startswith(f"{name}_") for case in parts["test"]) for name in sorted(groups)
    }
    assert {name: of["dice"] for name, of in groups.items()} == {name: float(name != "CVC-300") for name in groups}
    assert (groups["CVC-300"]["missed"], groups["CVC-300"]["infinite"]) == (4, 4)
    assert "CVC-300 (4)" in shown
    assert "CVC-300 (4)" in Path("predictions/evaluation/report.html").read_text(encoding="utf-8")


def test_a_match_that_fits_nothing_is_one_line(tmp_path: Path, capsys: Any) -> None:
    import_dataset("polyps", make(tmp_path / "in"), tmp_path / "out")
    for options, message in (
        (["--test-match", "EndoScene"], "no case of"),
        (["--test-match", "("], "not a regular expression"),
        (["--test-match", "^CVC", "--test", "4"], "4 cases beside those of --test-match have a label"),
    ):
        assert main(["split", str(tmp_path / "out"), "--labelled", "2", *options]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
