"""Folders of predictions against folders of labels, through the function and the command."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.grid import Grid
from semialign.data.image_io import read_label, write_label
from semialign.evaluation.evaluate import cases_of_part, evaluate
from semialign.evaluation.metrics import score_case

DATA = Path(os.environ.get("SEMIALIGN_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
AFFINE = np.diag([0.75, 0.75, 2.5, 1.0])  # exact in the float32 of a NIfTI header
LABELS = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}


def volume(seed: int, shape: tuple[int, ...] = (12, 11, 7)) -> np.ndarray:
    """A label map with a liver, a spleen and some noise between them."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[1:8, 2:8, 1:5] = 1
    label[9:11, 1:5, 2:6] = 2
    return np.where(rng.random(shape) < 0.05, rng.integers(0, 3, shape), label).astype(np.uint8)


def save(folder: Path, case: str, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path = folder / f"{case}.nii.gz"
    write_label(path, label, Grid(label.shape, affine))
    return path


def save_negative(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(-volume(0).astype(np.int16), AFFINE), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and labels of three cases; the labels belong to a data set that names the classes."""
    for seed, case in enumerate(("b", "a", "c")):
        save(tmp_path / "data" / "labelsTr", case, volume(seed))
        save(tmp_path / "predicted", case, volume(seed + 10))
    describe(tmp_path / "data" / "dataset.json")
    return tmp_path / "predicted", tmp_path / "data" / "labelsTr"


def describe(path: Path, labels: dict[str, int] = LABELS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))


def test_scores_are_those_of_each_pair(folders):
    predicted, labels = folders
    found = evaluate(predicted, labels, tolerance=1.0)
    assert list(found.scores) == ["a", "b", "c"]
    for case, scores in found.scores.items():
        pair = [read_label(folder / f"{case}.nii.gz")[0] for folder in folders]
        classes = {"liver": 1, "spleen": 2}
        assert list(scores) == score_case(*pair, spacing=(0.75, 0.75, 2.5), classes=classes, ignore=3, tolerance=1.0)
    dice = np.array([[score.dice for score in scores] for scores in found.scores.values()])
    assert found.summary["mean"]["dice"] == pytest.approx(dice.mean())
    assert found.case_dice() == pytest.approx(dict(zip("abc", dice.mean(axis=1), strict=True)))
    assert found.summary["units"] == "mm"
    assert found.summary["class_values"] == {"liver": 1, "spleen": 2}
    assert not list(predicted.glob("evaluation"))  # the function writes nothing unasked


def test_workers_change_nothing(folders):
    assert evaluate(*folders, workers=1) == evaluate(*folders, workers=3)


def test_progress_tells_every_case(folders):
    told = []
    evaluate(*folders, workers=2, progress=lambda *step: told.append(step))
    assert told == [("cases scored", 1, 3), ("cases scored", 2, 3), ("cases scored", 3, 3)]


def test_statuses_and_ignored_voxels_from_files(tmp_path):
    describe(tmp_path / "dataset.json")
    empty = np.zeros((6, 6, 6), np.uint8)
    with_liver, with_spleen, hidden = empty.copy(), empty.copy(), empty.copy()
    with_liver[2:4, 2:4, 2:4], with_spleen[1:3, 1:3, 1:3] = 1, 2
    hidden[:3] = 3
    for case, prediction, label in (
        ("missed", empty, with_liver),
        ("spurious", with_spleen, with_liver),
        ("hidden", with_spleen, hidden),  # the predicted spleen lies where nobody annotated
    ):
        save(tmp_path / "predicted", case, prediction)
        save(tmp_path / "labels", case, label)
    found = evaluate(tmp_path / "predicted", tmp_path / "labels")
    statuses = {case: [score.status for score in scores] for case, scores in found.scores.items()}
    assert statuses == {
        "missed": ["missed", "absent"],
        "spurious": ["missed", "spurious"],
        "hidden": ["absent", "absent"],
    }
    assert found.case_dice() == {"missed": 0.0, "spurious": 0.0}
    assert found.case_dice(nothing=1.0) == {"missed": 0.0, "spurious": 0.0, "hidden": 1.0}
    assert found.class_rows()[1] | {"dice": None} == {
        "name": "spleen",
        "dice": None,
        "iou": 0.0,
        "hd95": None,
        "asd": None,
        "nsd": 0.0,
        "scored": 0,
        "absent": 2,
        "missed": 0,
        "spurious": 1,
        "infinite": 1,
    }


def test_a_rule_that_averages_all_distances_leaves_none_out(tmp_path):
    label = np.zeros((8, 8), np.uint8)
    label[2:5, 2:5] = 1
    for folder, array in (("labels", label), ("predicted", np.zeros_like(label))):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    ours, theirs = (evaluate(tmp_path / "predicted", tmp_path / "labels", rule=rule) for rule in ("default", "dhc"))
    assert [found.class_rows()[0]["infinite"] for found in (ours, theirs)] == [1, 0]
    assert ["distances are infinite" in " ".join(found.notes()) for found in (ours, theirs)] == [True, False]
    assert theirs.class_rows()[0]["hd95"] == 128


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/labels")
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", os.fsencode(tmp_path) + b"/labels/caf\xe9.png")
    with pytest.raises(UserError, match=r"caf\\udce9\.png: its name is not UTF-8; rename it"):
        evaluate(tmp_path / "labels", tmp_path / "labels")
    assert not (tmp_path / "labels" / "evaluation").exists()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_pictures_are_scored_in_pixels(tmp_path, ending):
    label = np.zeros((30, 40), np.uint8)
    label[5:20, 5:25] = 1
    for folder, array in (("labels", label), ("predicted", np.roll(label, 3, axis=1))):
        write_label(tmp_path / folder / f"one{ending}", array, Grid(label.shape, np.eye(4), picture=True))
    found = evaluate(tmp_path / "predicted", tmp_path / "labels")
    assert found.summary["units"] == "pixels"
    [score] = found.scores["one"]
    assert (score.hd95, score.dice) == (3.0, pytest.approx(17 / 20))


def test_formats_may_differ_between_prediction_and_label(folders, tmp_path):
    predicted, labels = folders
    before = evaluate(predicted, labels)
    for path in predicted.glob("*.nii.gz"):
        write_label(tmp_path / "mha" / path.name.replace(".nii.gz", ".mha"), *read_label(path))
    assert evaluate(tmp_path / "mha", labels).scores == before.scores


def test_one_file_against_one_file_and_against_a_folder(folders):
    predicted, labels = folders
    expected = evaluate(predicted, labels).scores["b"]
    assert evaluate(predicted / "b.nii.gz", labels / "b.nii.gz").scores == {"b": expected}
    assert evaluate(predicted / "b.nii.gz", labels).scores == {"b": expected}
    assert evaluate(predicted, labels / "b.nii.gz").scores == {"b": expected}
    (predicted / "b.nii.gz").rename(predicted / "of-another-name.nii.gz")
    found = evaluate(predicted / "of-another-name.nii.gz", labels / "b.nii.gz")
    assert found.scores == {"of-another-name": expected}


def test_class_names_come_from_the_prediction_folder_or_the_option(folders, tmp_path):
    predicted, labels = folders
    (labels.parent / "dataset.json").unlink()
    for name, place, given in (
        ("in predictions", predicted, None),
        ("in labels", labels, None),
        ("given folder", tmp_path / "else", tmp_path / "else"),
        ("given", tmp_path / "else", tmp_path / "else" / "dataset.json"),
    ):
        describe(place / "dataset.json", {"background": 0, "spleen": 2, name: 1})
        assert list(evaluate(predicted, labels, dataset_json=given).summary["class_values"]) == [name, "spleen"]


def test_without_dataset_json_every_value_of_any_case_is_a_class(folders):
    predicted, labels = folders
    (labels.parent / "dataset.json").unlink()
    other = volume(5)
    other[0, 0, 0] = 7
    save(labels, "c", other)
    found = evaluate(predicted, labels)
    assert found.summary["class_values"] == {"class 1": 1, "class 2": 2, "class 7": 7}
    assert [scores[2].status for scores in found.scores.values()] == ["absent", "absent", "missed"]
    assert any("no dataset.json" in note for note in found.notes())


def test_what_has_no_partner_is_named_and_left_out(folders):
    predicted, labels = folders
    (labels / "a.nii.gz").unlink()
    (predicted / "c.nii.gz").unlink()
    found = evaluate(predicted, labels)
    assert list(found.scores) == ["b"]
    assert (found.summary["without_label"], found.summary["without_prediction"]) == (["a"], ["c"])
    assert "left out, no label: a" in found.notes()
    assert "labels without a prediction, not scored: 1" in found.notes()


def test_cases_asked_for_must_all_be_there(folders):
    predicted, labels = folders
    assert list(evaluate(predicted, labels, cases=["c", "a"]).scores) == ["a", "c"]
    (predicted / "c.nii.gz").unlink()
    (predicted / "b.nii.gz").unlink()
    with pytest.raises(UserError, match="predicted: no prediction for 2 of 3 cases: b, c; predict them first"):
        evaluate(predicted, labels, cases=["a", "b", "c"])
    (labels / "a.nii.gz").unlink()
    with pytest.raises(UserError, match="labelsTr: no label for 1 of 1 cases: a;"):
        evaluate(predicted, labels, cases=["a"])


def test_few_cases_say_their_standard_error(folders):
    found = evaluate(*folders)
    error = np.std(list(found.case_dice().values()), ddof=1) / np.sqrt(3)
    assert f"3 cases only: standard error of the mean Dice {error:.3f}" in found.notes()


def test_published_rules_say_what_they_are_for(folders):
    found = evaluate(*folders, rule="ga")
    assert found.summary["rule"] == "ga"
    assert "only to compare with tables" in found.notes()[0]


def test_parts_of_a_split(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"labelled": ["a"], "test": ["b", "c"], "validation": []}))
    assert cases_of_part(path, "test") == ("b", "c")
    with pytest.raises(UserError, match=r"split.json: no validation cases"):
        cases_of_part(path, "validation")
    with pytest.raises(UserError, match="unknown part 'tset'; did you mean 'test'"):
        cases_of_part(path, "tset")
    path.write_text('["a"]')
    with pytest.raises(UserError, match="a split file holds lists"):
        cases_of_part(path, "test")


def run_cli(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_command_writes_and_prints(folders, capsys):
    predicted, labels = folders
    code, out, _ = run_cli(capsys, predicted, labels)
    assert code == 0
    assert all(word in out for word in ("liver", "HD95 mm", "NSD 2 mm", "rule default"))
    summary = json.loads((predicted / "evaluation" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["classes"]["liver"]["scored"] == 3
    rows = list(csv.DictReader((predicted / "evaluation" / "cases.csv").open()))
    assert [(row["case"], row["class"]) for row in rows[:3]] == [("a", "liver"), ("a", "spleen"), ("b", "liver")]
    assert f"{summary['mean']['dice']:.3f}" in out
    # A second run is not confused by what the first one wrote.
    assert run_cli(capsys, predicted, labels)[0] == 0


def test_command_scores_a_part_of_a_split(folders, capsys, tmp_path):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"labelled": ["a"], "validation": ["b"], "test": ["c"]}))
    for extra, expected in (([], {"c"}), (["--part", "validation"], {"b"})):
        output = tmp_path / "scores"
        assert run_cli(capsys, *folders, "--split", split, *extra, "--output", output)[0] == 0
        assert {row["case"] for row in csv.DictReader((output / "cases.csv").open())} == expected


def test_command_prints_infinite_distances_beside_the_mean(folders, capsys):
    predicted, labels = folders
    blank = np.zeros_like(volume(0))
    save(predicted, "a", blank)
    code, out, _ = run_cli(capsys, predicted, labels)
    assert code == 0
    assert "+1∞" in out
    assert "2 distances are infinite" in out


FREQUENCIES = {"background": 0.9, "liver": 0.08, "spleen": 0.02}


def fingerprint(folder: Path, frequencies: dict[str, float] = FREQUENCIES) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "fingerprint.json").write_text(json.dumps({"class_frequencies": frequencies}))
    return folder


def test_groups_are_made_of_their_classes(folders):
    found = evaluate(*folders, frequencies={"liver": 0.08, "spleen": 0.02})
    liver, spleen = found.class_rows()
    head, tail = found.group_rows()
    assert (head | {"name": "liver"}, tail | {"name": "spleen"}) == (liver, spleen)
    assert (head["name"], tail["name"]) == ("head", "tail")
    assert found.summary["groups"]["tail"]["classes"] == ["spleen"]
    assert any(note.startswith("head: liver; tail: spleen; groups by the classes' share") for note in found.notes())
    plain = evaluate(*folders)
    assert (plain.group_rows(), plain.summary["groups"]) == ([], {})
    assert plain.class_rows() == found.class_rows()


def test_a_class_that_is_not_scored_keeps_its_group_out(folders):
    found = evaluate(*folders, frequencies={"heart": 0.3, "liver": 0.08, "spleen": 0.02})
    assert {name: of["classes"] for name, of in found.summary["groups"].items()} == {
        "middle": ["liver"],
        "tail": ["spleen"],
    }


def test_command_groups_by_a_run_or_a_fingerprint(folders, capsys, tmp_path):
    predicted, labels = folders
    save(predicted, "a", np.zeros_like(volume(0)))
    run = fingerprint(tmp_path / "run")
    for place in (run, run / "fingerprint.json"):
        code, out, _ = run_cli(capsys, predicted, labels, "--frequencies", place)
        assert code == 0
        rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
        assert rows["head"] == rows["liver"]
        assert "+1∞" in rows["tail"]
    summary = json.loads((predicted / "evaluation" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["groups"]["tail"]["infinite"] == 1
    _, out, _ = run_cli(
        capsys, predicted, labels, "--frequencies", fingerprint(run, {"bg": 1.0, "liver": 0, "spleen": 0})
    )
    assert "the classes have no groups" in out


def test_frequencies_that_do_not_fit_are_one_line_and_code_2(folders, capsys, tmp_path):
    predicted, labels = folders
    run = fingerprint(tmp_path / "run", {"background": 0.9, "lever": 0.08, "spleen": 0.02})
    code, _, err = run_cli(capsys, predicted, labels, "--frequencies", run)
    assert code == 2
    assert "class 'liver' has no frequency; did you mean 'lever'" in err
    assert "no such file" in run_cli(capsys, predicted, labels, "--frequencies", tmp_path / "none")[2]
    (labels.parent / "dataset.json").unlink()
    code, _, err = run_cli(capsys, predicted, labels, "--frequencies", run)
    assert code == 2
    assert "add --dataset-json" in err


MISTAKES = {
    "another size": (lambda p, q: save(p, "b", volume(0, (12, 11, 8))), "b.nii.gz: size 12 x 11 x 8 instead of"),
    "another spacing": (lambda p, q: save(p, "b", volume(0), np.eye(4)), "b.nii.gz: spacing 1 x 1 x 1 mm instead of"),
    "unknown value": (lambda p, q: save(p, "b", volume(0) + 9), "b.nii.gz: value 9 is no class; correct the file"),
    "ignore predicted": (lambda p, q: save(p, "b", volume(0) * 0 + 3), "b.nii.gz: value 3 is no class"),
    "negative label": (lambda p, q: save_negative(q / "b.nii.gz"), "b.nii.gz: value -2 is no class"),
    "damaged": (lambda p, q: (p / "b.nii.gz").write_bytes(b"no image"), "b.nii.gz: not a readable"),
    "twice": (lambda p, q: write_label(p / "b.nii", *read_label(p / "b.nii.gz")), "a second file of case b"),
    "no names shared": (
        lambda p, q: [path.rename(p / f"x{path.name}") for path in sorted(p.iterdir())],
        "has a label of the same name",
    ),
    "empty folder": (lambda p, q: [path.unlink() for path in p.iterdir()], "predicted: no label files in this folder"),
    "broken names": (lambda p, q: (q.parent / "dataset.json").write_text("{"), "dataset.json: not valid JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_code_2(folders, capsys, mistake):
    spoil, expected = MISTAKES[mistake]
    spoil(*folders)
    code, _, err = run_cli(capsys, *folders)
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith("error:")]
    assert expected in line
    assert "Traceback" not in err
    assert not (folders[0] / "evaluation").exists()  # nothing half-written


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rule", "gaa"], "unknown rule 'gaa'; did you mean 'ga'"),
        (["--tolerance", "-1"], "tolerance -1.0: must be"),
        (["--tolerance", "nan"], "tolerance nan: must be"),
        (["--part", "test"], "add --split FILE"),
        (["--split", "nowhere.json"], "nowhere.json: no such file"),
        (["--dataset-json", "nowhere.json"], "nowhere.json: no such file"),
    ],
)
def test_wrong_options_are_one_line_and_code_2(folders, capsys, arguments, expected):
    code, _, err = run_cli(capsys, *folders, *arguments)
    assert code == 2
    assert expected in err


def test_wrong_places_are_one_line_and_code_2(folders, capsys):
    predicted, labels = folders
    assert "nowhere: no such file or folder" in run_cli(capsys, predicted / "nowhere", labels)[2]
    assert "give " + str(labels) in run_cli(capsys, predicted, labels.parent)[2]


def test_background_alone_cannot_be_scored_without_names(folders, capsys):
    predicted, labels = folders
    (labels.parent / "dataset.json").unlink()
    for folder in folders:
        for case in "abc":
            save(folder, case, volume(0) * 0)
    code, _, err = run_cli(capsys, predicted, labels)
    assert code == 2
    assert "name the classes by --dataset-json" in err


def test_pictures_and_volumes_together_are_refused(folders):
    predicted, labels = folders
    picture = np.eye(20, dtype=np.uint8)
    for folder in folders:
        write_label(folder / "picture.png", picture, Grid(picture.shape, np.eye(4), picture=True))
    with pytest.raises(UserError, match="both pictures and volumes"):
        evaluate(predicted, labels)


def test_real_labels_shifted_agree_with_simpleitk(tmp_path):
    labels = DATA / "hippocampus" / "labelsTr"
    if not labels.is_dir():
        pytest.skip(f"needs the hippocampus data set in {DATA}")
    sitk = pytest.importorskip("SimpleITK")
    names = sorted(path.name for path in labels.glob("*.nii.gz"))[:4]
    for name in names:
        label, grid = read_label(labels / name)
        write_label(tmp_path / name, np.roll(label, 1, axis=0), grid)
    found = evaluate(tmp_path, labels)
    assert list(found.summary["class_values"]) == ["anterior", "posterior"]
    for name in names:
        truth, shifted = (sitk.ReadImage(str(folder / name), sitk.sitkUInt8) for folder in (labels, tmp_path))
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(truth, shifted)
        for score in found.scores[name.removesuffix(".nii.gz")]:
            assert score.dice == pytest.approx(overlap.GetDiceCoefficient(score.value))
            assert score.iou == pytest.approx(overlap.GetJaccardCoefficient(score.value))
            # Shifted by one voxel of 1 mm, no surface is farther away than that.
            assert score.hd95 == 1.0
            assert 0 < score.asd < 1
            assert score.nsd == 1.0
