"""nnU-Net's raw data sets, both versions."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset


def save(path: Path, seed: int, high: int = 900) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, high, (9, 8, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def describe(root: Path, **changed: Any) -> None:
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "tumour": 1, "ignore": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described | changed))


def make_raw(root: Path, **changed: Any) -> Path:
    for case in range(2):
        for channel in range(2):
            save(root / "imagesTr" / f"x_{case:03d}_{channel:04d}.nii.gz", 10 * case + channel)
        save(root / "labelsTr" / f"x_{case:03d}.nii.gz", 50 + case, 3)
    describe(root, **changed)
    return root


def test_version_2_with_test_and_further_images(tmp_path: Path) -> None:
    source = make_raw(tmp_path / "Dataset001_Tumour")
    for folder, case in (("imagesTs", "y_001"), ("imagesUn", "z_0000")):
        for channel in range(2):
            save(source / folder / f"{case}_{channel:04d}.nii.gz", len(folder) + 20 * channel)
    save(source / "labelsTs" / "y_001.nii.gz", 7, 3)
    done = import_dataset("nnunet", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (4, 2, 2)
    dataset = load_dataset(tmp_path / "out")
    assert dataset.name == "Dataset001_Tumour"
    assert (dataset.labels, dataset.ignore) == ({"background": 0, "tumour": 1}, 2)
    assert sorted(dataset.cases) == ["x_000", "x_001", "y_001", "z_0000"]
    assert dataset.cases["y_001"].label is None  # labels of the test set stay out
    copy = tmp_path / "out" / "imagesTr" / "x_001_0001.nii.gz"
    assert copy.read_bytes() == (source / "imagesTr" / "x_001_0001.nii.gz").read_bytes()
    without = import_dataset("nnunet", source, tmp_path / "without", test_images=False)
    assert sorted(load_dataset(without.target).cases) == ["x_000", "x_001", "z_0000"]


def test_headers_whose_voxels_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "Dataset002"
    for folder, name in (("imagesTr", "x_0000"), ("labelsTr", "x")):
        (source / folder).mkdir(parents=True)
        image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.uint8))
        SimpleITK.WriteImage(image, str(source / folder / f"{name}.mhd"))
    describe(source, channel_names={"0": "T1"}, file_ending=".mhd")
    with pytest.raises(UserError, match=r"\.mhd files keep their voxels in another; convert"):
        import_dataset("nnunet", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_version_1_with_numbered_labels(tmp_path: Path) -> None:
    source = make_raw(tmp_path / "Task001")
    described = {
        "name": "Tumour",
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "oedema", "2": "tumour"},
        "training": [
            {"image": f"./imagesTr/x_{n:03d}.nii.gz", "label": f"./labelsTr/x_{n:03d}.nii.gz"} for n in (0, 1)
        ],
        "test": [],
    }
    (source / "dataset.json").write_text(json.dumps(described))
    done = import_dataset("nnunet", source, tmp_path / "out")
    assert done.labelled == 2
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.name, dataset.channel_names) == ("Tumour", ("T1", "T2"))
    assert dataset.labels == {"background": 0, "oedema": 1, "tumour": 2}
    with pytest.raises(UserError, match="looks like nnunet: use `semialign import nnunet`"):
        import_dataset("msd", source, tmp_path / "other")


def test_rgb_pictures_and_missing_labels(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(3):
        picture = rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(picture).save(source / "imagesTr" / f"p{n}_0000.png")
    Image.fromarray(np.eye(20, 24, dtype=np.uint8)).save(source / "labelsTr" / "p1.png")
    channels = {"0": "R", "1": "G", "2": "B"}
    describe(source, channel_names=channels, labels={"background": 0, "polyp": 1}, file_ending=".png")
    done = import_dataset("nnunet", source, tmp_path / "out")
    assert (done.labelled, done.unlabelled) == (1, 2)


def test_region_based_labels_are_refused_in_one_line(tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumour": [1, 2], "core": [2]}
    source = make_raw(tmp_path / "in", labels=labels, regions_class_order=[1, 2])
    with pytest.raises(
        UserError, match=r'dataset\.json: label "whole tumour" is a region .* one number a class'
    ) as caught:
        import_dataset("nnunet", source, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_unreadable_ending(tmp_path: Path) -> None:
    source = make_raw(tmp_path / "in", file_ending=".npy")
    with pytest.raises(UserError, match=r'dataset\.json: "file_ending" \.npy'):
        import_dataset("nnunet", source, tmp_path / "out")


def test_test_image_that_lacks_a_channel_or_doubles_an_id(tmp_path: Path) -> None:
    source = make_raw(tmp_path / "in")
    save(source / "imagesTs" / "y_001_0001.nii.gz", 3)
    with pytest.raises(UserError, match=r"imagesTs/y_001: has channels \[1\]"):
        import_dataset("nnunet", source, tmp_path / "out")
    (source / "imagesTs" / "y_001_0001.nii.gz").unlink()
    for channel in range(2):
        save(source / "imagesTs" / f"x_001_{channel:04d}.nii.gz", 3)
    with pytest.raises(UserError, match=r"case id x_001 is also that of"):
        import_dataset("nnunet", source, tmp_path / "out")


def test_label_on_another_grid_is_named(tmp_path: Path) -> None:
    source = make_raw(tmp_path / "in")
    label = nibabel.load(source / "labelsTr" / "x_001.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), np.eye(4)), source / "labelsTr" / "x_001.nii.gz")
    with pytest.raises(UserError, match=r"labelsTr/x_001\.nii\.gz: label has spacing"):
        import_dataset("nnunet", source, tmp_path / "out")
