"""The raw layout: names, channels, labels and what else lies in the folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_data import describe, organ, save_picture, save_volume, volumes

from semialign.common.errors import UserError
from semialign.data.dataset import Case, case_from_files, check_label, load_dataset, read_case
from semialign.data.image_io import read_grid, read_label


def touch(folder: Path, *names: str) -> None:
    """Files of no content: load_dataset looks at names alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def refused(root: Path, *words: str) -> None:
    """The data set is refused in one line that says ``words``."""
    with pytest.raises(UserError) as error:
        load_dataset(root)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_case_without_label_is_unlabelled(tmp_path: Path) -> None:
    describe(tmp_path, {"background": 0, "liver": 1, "ignore": 7, "spleen": 2}, ["CT"], name="Abdomen")
    touch(tmp_path / "imagesTr", "b_0000.nii.gz", "a_0000.nii.gz")
    touch(tmp_path / "labelsTr", "b.nii.gz")
    dataset = load_dataset(tmp_path)
    assert dataset.name == "Abdomen"
    assert list(dataset.cases) == ["a", "b"]
    assert dataset.with_label == ["b"]
    assert dataset.cases["a"] == Case("a", (tmp_path / "imagesTr" / "a_0000.nii.gz",), None)
    assert dataset.cases["b"].label == tmp_path / "labelsTr" / "b.nii.gz"
    assert (dataset.num_classes, dataset.class_names) == (3, ["background", "liver", "spleen"])
    assert dataset.ignore == 7


def test_only_the_last_number_of_a_name_is_the_channel(tmp_path: Path) -> None:
    describe(tmp_path)
    touch(tmp_path / "imagesTr", "p_0000_0000.nii.gz", "p_0001_0000.nii.gz", "q.r_0000.nii.gz", "00000_0000.nii.gz")
    touch(tmp_path / "labelsTr", "p_0000.nii.gz", "00000.nii.gz")
    dataset = load_dataset(tmp_path)
    assert list(dataset.cases) == ["00000", "p_0000", "p_0001", "q.r"]
    assert dataset.with_label == ["00000", "p_0000"]


def test_the_decathlons_form_of_dataset_json(tmp_path: Path) -> None:
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "a_0001.nii.gz")
    about = {"modality": {"1": "T2", "0": "T1"}, "labels": {"0": "background", "2": "b", "1": "a"}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    dataset = load_dataset(tmp_path)
    assert dataset.channel_names == ("T1", "T2")
    assert dataset.class_names == ["background", "a", "b"]


@pytest.mark.parametrize("key", ["image_file_ending", "file_ending"])
@pytest.mark.parametrize("ending", [".jpg", "jpg", ".JPG"])
def test_image_and_label_endings_may_differ(tmp_path: Path, key: str, ending: str) -> None:
    more = {key: ending} if key == "file_ending" else {"file_ending": ".png", key: ending}
    describe(tmp_path, channels=["R", "G", "B"], **more)
    touch(tmp_path / "imagesTr", "a_0000.jpg", "b_0000.JPG")
    touch(tmp_path / "labelsTr", "a.png")
    assert load_dataset(tmp_path).with_label == ["a"]
    touch(tmp_path / "imagesTr", "c_0000.png")
    refused(tmp_path, "c_0000.png", ".jpg", "dataset.json", "move it")


def test_hidden_files_and_notes_are_passed_over(tmp_path: Path) -> None:
    describe(tmp_path)
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", ".DS_Store", "._a_0000.nii.gz", "README.md", "list.TXT", "LICENSE")
    touch(tmp_path / "labelsTr", "a.nii.gz", ".DS_Store", "._a.nii.gz", "README.md")
    touch(tmp_path, "paper.pdf", "split-1.json")
    touch(tmp_path / "imagesTs", "t_0000.nii.gz")
    assert list(load_dataset(tmp_path).cases) == ["a"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_0000.nii.gz.part", ("move it",)),
        ("b.nii.gz", ("channel number", "b_0000")),
        ("b_000.nii.gz", ("channel number",)),
        ("b_0000.npz", ("move it",)),
        ("a_0001.nii.gz", ("one channel too many", "dataset.json names 1 channel")),
        ("b_0001.nii.gz", ("dataset.json names 1 channel",)),
        ("a_0000.nrrd", ("same channel", "a_0000.nii.gz", "move")),
    ],
)
def test_an_image_file_that_does_not_fit_is_named(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    describe(tmp_path)
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", name)
    refused(tmp_path, str(tmp_path / "imagesTr" / name), *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("c.nii.gz", ("label without image", "c_0000")),
        ("a_0000.nii.gz", ("no channel number", "rename it to a.nii.gz")),
        ("a.nrrd", ("second label", "a.nii.gz")),
        ("b.npz", ("not a label file",)),
    ],
)
def test_a_label_file_that_does_not_fit_is_named(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    describe(tmp_path)
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz")
    touch(tmp_path / "labelsTr", "a.nii.gz", name)
    refused(tmp_path, str(tmp_path / "labelsTr" / name), *words)


def test_a_dicom_folder_of_labels_is_named(tmp_path: Path) -> None:
    describe(tmp_path)
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz")
    touch(tmp_path / "labelsTr", "a.nii.gz")
    (tmp_path / "labelsTr" / "b").mkdir()
    (tmp_path / "labelsTr" / "b" / "IM1").write_bytes(bytes(128) + b"DICM")
    refused(tmp_path, str(tmp_path / "labelsTr" / "b"), "a DICOM folder", "convert it")


@pytest.mark.parametrize(("have", "lacking"), [((0, 2), 1), ((1, 2), 0), ((0, 1), 2), ((0,), 1)])
def test_a_missing_channel_is_named(tmp_path: Path, have: tuple[int, ...], lacking: int) -> None:
    describe(tmp_path, channels=["T1", "T2", "FLAIR"])
    touch(tmp_path / "imagesTr", *(f"a_000{i}.nii.gz" for i in range(3)), *(f"b_000{i}.nii.gz" for i in have))
    refused(tmp_path, str(tmp_path / "imagesTr" / f"b_000{lacking}.nii.gz"), "missing", "3 channels")


def test_channels_are_in_order_and_may_be_dicom_folders(tmp_path: Path) -> None:
    describe(tmp_path, channels=["CT", "PET"], file_ending=".nii.gz")
    touch(tmp_path / "imagesTr" / "a_0001", "1.dcm")
    touch(tmp_path / "imagesTr" / "a_0000", "1.dcm")
    touch(tmp_path / "imagesTr", "b_0001.nii.gz", "b_0000.nii.gz")
    cases = load_dataset(tmp_path).cases
    assert [p.name for p in cases["a"].images] == ["a_0000", "a_0001"]
    assert [p.name for p in cases["b"].images] == ["b_0000.nii.gz", "b_0001.nii.gz"]


BROKEN: dict[str, tuple[Any, str]] = {
    "not json": ("{channel_names: CT}", "not valid JSON"),
    "not an object": ([1], "object"),
    "no channels": ({"labels": {"background": 0, "a": 1}}, "channel_names"),
    "channels in a list": ({"channel_names": ["CT"], "labels": {"background": 0, "a": 1}}, "channel_names"),
    "channels without number": ({"channel_names": {"CT": "CT"}, "labels": {"background": 0, "a": 1}}, "numbered"),
    "no labels": ({"channel_names": {"0": "CT"}}, "labels"),
    "labels in a list": ({"channel_names": {"0": "CT"}, "labels": ["background", "a"]}, "labels"),
    "a gap": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 2}}, "without gaps"),
    "no background": ({"channel_names": {"0": "CT"}, "labels": {"a": 1, "b": 2}}, "background"),
    "background alone": ({"channel_names": {"0": "CT"}, "labels": {"background": 0}}, "labels"),
    "regions": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": [1, 2]}}, '"a"'),
    "fractional": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1.5}}, '"a"'),
    "negative": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": -1}}, '"a"'),
    "true": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": True}}, '"a"'),
    "ignore is a class": ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "ignore": 1}}, '"ignore"'),
    "odd digits": ({"channel_names": {"0": "CT"}, "labels": {"0": "background", "²": "a"}}, '"'),
    "odd ending": (
        {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".npz"},
        ".npz",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_dataset_json_is_named(tmp_path: Path, fault: str) -> None:
    touch(tmp_path / "imagesTr", "a_0000.nii.gz")
    value, word = BROKEN[fault]
    (tmp_path / "dataset.json").write_text(value if isinstance(value, str) else json.dumps(value))
    refused(tmp_path, str(tmp_path / "dataset.json"), word)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", str(tmp_path / "none"), "no such folder")
    touch(tmp_path, "file")
    refused(tmp_path / "file", "folder is wanted")
    root = tmp_path / "data"
    root.mkdir()
    refused(root, str(root / "dataset.json"), "missing")
    describe(root)
    refused(root, str(root / "imagesTr"), "missing")
    touch(root, "imagesTr")
    refused(root, str(root / "imagesTr"), "a file", "folder")
    (root / "imagesTr").unlink()
    (root / "imagesTr").mkdir()
    refused(root, str(root / "imagesTr"), "no images")
    touch(root / "imagesTr", "a_0000.nii.gz")
    touch(root, "labelsTr")
    refused(root, str(root / "labelsTr"), "a file", "folder")


def test_channels_become_one_array(tmp_path: Path) -> None:
    first, second = organ(seed=0)[0], (organ(seed=1)[0]).astype(np.int16)
    save_volume(tmp_path / "a_0000.nii.gz", first)
    save_volume(tmp_path / "a_0001.nii.gz", second)
    case = case_from_files("a", [tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])
    np.testing.assert_array_equal(read_case(case, 2).array, np.stack([first, second.astype(np.float32)]))
    save_volume(tmp_path / "a_0001.nii.gz", second, spacing=(1, 1, 2))
    with pytest.raises(UserError, match=r"a_0001.nii.gz: spacing 1 x 1 x 2 mm instead of 1 x 1 x 1 mm"):
        read_case(case, 2)


def test_one_coloured_picture_equals_a_file_per_channel(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 10, 3)).astype(np.uint8)
    save_picture(tmp_path / "rgb_0000.png", colours)
    paths = [tmp_path / f"a_000{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        save_picture(path, colours[..., i])
    together = read_case(case_from_files("rgb", [tmp_path / "rgb_0000.png"]), 3).array
    np.testing.assert_array_equal(together, read_case(case_from_files("a", paths), 3).array)
    np.testing.assert_array_equal(together, np.moveaxis(colours, -1, 0))


def test_grey_saved_as_colour_and_the_other_way_round(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (12, 10)).astype(np.uint8)
    save_picture(tmp_path / "rgb.png", np.stack([grey] * 3, -1))
    save_picture(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_case(case_from_files("a", [tmp_path / "rgb.png"]), 1).array[0], grey)
    np.testing.assert_array_equal(read_case(case_from_files("a", [tmp_path / "grey.png"]), 3).array, [grey] * 3)
    with pytest.raises(UserError, match=r"rgb.png: 3 channels where 2 are due"):
        read_case(case_from_files("a", [tmp_path / "rgb.png"]), 2)


def test_one_scan_is_not_taken_for_three(tmp_path: Path) -> None:
    save_volume(tmp_path / "a.nii.gz", organ()[0])
    with pytest.raises(UserError, match=r"a.nii.gz: 1 channel where 3 are due; give a file per channel"):
        read_case(case_from_files("a", [tmp_path / "a.nii.gz"]), 3)


def test_a_lone_grey_channel_is_not_taken_for_a_coloured_picture(tmp_path: Path) -> None:
    describe(tmp_path, channels=("DAPI", "FITC", "TRITC"), file_ending=".png")
    touch(tmp_path / "imagesTr", "a_0000.png", "a_0001.png", "a_0002.png", "b_0000.png")
    refused(tmp_path, "b_0000.png: one file where case a has 3; add its other channels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, value: float) -> None:
    image = organ()[0]
    image[1, 2, 3] = image[4, 5, 6] = value
    save_volume(tmp_path / "a_0000.nii.gz", image)
    with pytest.raises(UserError, match=r"a_0000.nii.gz: 2 voxels are NaN or infinite"):
        read_case(case_from_files("a", [tmp_path / "a_0000.nii.gz"]), 1)


def test_check_label_names_the_stranger(tmp_path: Path) -> None:
    root = volumes(tmp_path)
    dataset = load_dataset(root)
    case = dataset.cases["a"]
    assert case.label is not None
    label, grid = read_label(case.label)
    check_label(case.label, label, grid, read_grid(case.images[0]), dataset)
    label[0, 0, 0] = 5
    with pytest.raises(UserError, match=r"a.nii.gz: label value 5 is not in dataset.json"):
        check_label(case.label, label, grid, read_grid(case.images[0]), dataset)
    ignoring = load_dataset(describe(root, {"background": 0, "organ": 1, "ignore": 5}))
    check_label(case.label, label, grid, read_grid(case.images[0]), ignoring)
