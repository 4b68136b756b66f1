"""The phantom data sets as written to disk: layout, split, seeds, user errors."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label as components

from semialign.common.errors import UserError
from semialign.data.dataset import check_label, load_dataset, read_case
from semialign.data.image_io import read_label
from semialign.data.phantom import phantom
from semialign.data.splits import load_split

SYNAPSE = [
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
]
SMALL = (48, 48, 24)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "volumes"
    return phantom(out, cases=5, labelled=2, validation=1, test=1, size=SMALL, seed=3, workers=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "pictures"
    return phantom(out, cases=8, labelled=2, validation=1, test=2, dimensions=2, seed=3, workers=1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_volumes_load_as_a_data_set(volumes):
    dataset = load_dataset(volumes)
    assert dataset.class_names == ["background", *SYNAPSE]
    assert dataset.channel_names == ("CT",)
    assert len(dataset.with_label) == 5
    for case in dataset.cases.values():
        image = read_case(case, 1)
        label, grid = read_label(case.label)
        assert image.array.shape == (1, *SMALL)
        assert image.array.dtype == np.int16
        check_label(case.label, label, grid, image.grid, dataset)
        # The field of view stays near 340 x 340 x 216 mm, whatever the size.
        assert np.allclose(np.multiply(image.grid.spacing, SMALL), (340, 340, 216), rtol=0.07)
        assert image.grid.spacing[2] > image.grid.spacing[0]


def test_split_holds_every_case_once(volumes):
    split = load_split(volumes / "split.json", load_dataset(volumes))
    assert [len(p) for p in (split.labelled, split.unlabelled, split.validation, split.test)] == [2, 1, 1, 1]
    together = split.training + split.validation + split.test
    assert sorted(together) == sorted(load_dataset(volumes).cases)
    assert "--seed 3" in split.protocol


def test_header_carries_units_and_orientation_codes(volumes):
    header = nibabel.load(next((volumes / "imagesTr").iterdir())).header
    assert header.get_xyzt_units()[0] == "mm"
    assert header["sform_code"] > 0


def test_cases_do_not_depend_on_their_number_or_the_workers(volumes, tmp_path):
    other = phantom(tmp_path / "other", cases=3, labelled=1, size=SMALL, seed=3, workers=2)
    one, two = files(volumes), files(other)
    common = [name for name in two if not name.endswith(".json")]
    assert len(common) == 6
    assert all(one[name] == two[name] for name in common)


def test_cases_and_seeds_differ(volumes, tmp_path):
    ours = {name: value for name, value in files(volumes).items() if "imagesTr" in name}
    assert len(set(ours.values())) == len(ours)
    other = phantom(tmp_path / "other", cases=1, labelled=1, size=SMALL, seed=4, workers=1)
    assert not set(files(other).values()) & set(ours.values())


def test_fewer_organs_are_the_same_patients_renumbered(volumes, tmp_path):
    few = load_dataset(phantom(tmp_path / "few", cases=1, labelled=1, size=SMALL, organs=5, seed=3, workers=1))
    every = load_dataset(volumes)
    assert few.class_names == ["background", "spleen", "right kidney", "left kidney", "gallbladder", "liver"]
    name = next(iter(few.cases))
    ours, full = read_label(few.cases[name].label)[0], read_label(every.cases[name].label)[0]
    assert ours.max() == 5
    for organ in SYNAPSE:
        if organ in few.labels:
            assert np.array_equal(ours == few.labels[organ], full == every.labels[organ])
    left_out = np.isin(full, [v for n, v in every.labels.items() if n not in few.labels])
    assert left_out.any()
    assert (ours[left_out] == 0).all()
    images = [read_case(d.cases[name], 1).array for d in (few, every)]
    assert np.array_equal(*images)


def test_hidden_labels_are_those_of_unlabelled_cases(tmp_path):
    out = phantom(tmp_path / "out", cases=6, labelled=2, validation=1, test=1, dimensions=2, hide_labels=True)
    dataset = load_dataset(out)
    split = load_split(out / "split.json", dataset)
    assert len(split.unlabelled) == 2
    assert set(dataset.cases) - set(dataset.with_label) == set(split.unlabelled)


def test_pictures_load_as_a_data_set(pictures):
    dataset = load_dataset(pictures)
    assert dataset.labels == {"background": 0, "lesion": 1}
    assert dataset.channel_names == ("R", "G", "B")
    for case in dataset.cases.values():
        assert read_case(case, 3).array.shape == (3, 128, 128)
        label, _ = read_label(case.label)
        assert set(np.unique(label)) == {0, 1}
        assert components(label)[1] == 1, "one lesion a picture"
    load_split(pictures / "split.json", dataset)


def test_pictures_are_colour_and_differ(pictures, tmp_path):
    names = sorted((pictures / "imagesTr").iterdir())
    arrays = [np.asarray(Image.open(p)) for p in names]
    assert all(a.dtype == np.uint8 and a.shape == (128, 128, 3) for a in arrays)
    assert len({a.tobytes() for a in arrays}) == len(arrays)
    again = phantom(tmp_path / "again", cases=2, labelled=1, dimensions=2, seed=3, workers=2)
    assert all(files(pictures)[n] == v for n, v in files(again).items() if not n.endswith(".json"))


def test_oblong_sizes_are_rows_by_columns(tmp_path):
    out = phantom(tmp_path / "out", cases=1, labelled=1, dimensions=2, size=(40, 64))
    assert Image.open(next((out / "imagesTr").iterdir())).size == (64, 40)


def test_progress_counts_every_case(tmp_path):
    seen = []
    phantom(
        tmp_path / "out",
        cases=3,
        labelled=1,
        dimensions=2,
        size=(16, 16),
        progress=lambda what, done, of: seen.append((done, of)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_description_says_how_to_make_it_again(volumes):
    described = json.loads((volumes / "dataset.json").read_text())
    assert described["numTraining"] == 5
    assert described["file_ending"] == ".nii.gz"
    assert "--size 48 48 24" in described["description"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cases": 3, "labelled": 2, "validation": 1, "test": 1}, "raise --cases"),
        ({"cases": 0, "labelled": 0}, "at least one"),
        ({"cases": 2, "labelled": 0}, "at least one"),
        ({"cases": 2, "labelled": 1, "test": -1}, "negative"),
        ({"cases": 2, "labelled": 1, "size": (12, 48, 24)}, "at least 16"),
        ({"cases": 2, "labelled": 1, "size": (48, 48)}, "3 are wanted"),
        ({"cases": 2, "labelled": 1, "size": (48, 48, 24), "dimensions": 2}, "2 are wanted"),
        ({"cases": 2, "labelled": 1, "dimensions": 4}, "must be 3"),
        ({"cases": 2, "labelled": 1, "organs": 0}, "1 to 13"),
        ({"cases": 2, "labelled": 1, "organs": 14}, "1 to 13"),
        ({"cases": 2, "labelled": 1, "organs": 5, "dimensions": 2}, "no organs"),
        ({"cases": 2, "labelled": 1, "workers": 0}, "at least 1"),
    ],
)
def test_numbers_that_do_not_fit(tmp_path, options, said):
    with pytest.raises(UserError, match=said) as caught:
        phantom(tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists(), "a refused command leaves nothing behind"


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="empty it or give another folder"):
        phantom(tmp_path, cases=1, labelled=1)
    with pytest.raises(UserError, match="give another folder"):
        phantom(tmp_path / "mine.txt", cases=1, labelled=1)
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_an_empty_folder_is_used(tmp_path):
    phantom(tmp_path, cases=1, labelled=1, dimensions=2, size=(16, 16))
    assert len(load_dataset(tmp_path).cases) == 1


def test_a_failure_leaves_no_dataset_json(tmp_path, monkeypatch):
    def fail(*arguments):
        raise UserError("the disk is full")

    monkeypatch.setattr("semialign.data.phantom_pictures.picture", fail)
    with pytest.raises(UserError, match="disk is full"):
        phantom(tmp_path / "out", cases=4, labelled=1, dimensions=2, workers=2)
    assert not (tmp_path / "out").exists(), "the same command works again"
