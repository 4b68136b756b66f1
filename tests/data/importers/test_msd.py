"""The Decathlon's form: listed files, 4D images, unlabelled test images."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset

AFFINE = np.array([[-1.0, 0, 0, 7], [0, 1.5, 0, -3], [0, 0, 4.0, 2], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def make_task(root: Path, *, channels: int = 1, cases: int = 3, tests: int = 2) -> Path:
    rng = np.random.default_rng(0)
    size = (9, 8, 7) + ((channels,) if channels > 1 else ())
    entries = []
    for n in range(cases):
        save(root / "imagesTr" / f"heart_{n:03d}.nii.gz", rng.integers(0, 900, size).astype(np.int16))
        save(root / "labelsTr" / f"heart_{n:03d}.nii.gz", rng.integers(0, 3, (9, 8, 7)).astype(np.uint8))
        # macOS leaves these in the published archives.
        (root / "imagesTr" / f"._heart_{n:03d}.nii.gz").write_bytes(b"\0\5\26\7")
        entries.append({"image": f"./imagesTr/heart_{n:03d}.nii.gz", "label": f"./labelsTr/heart_{n:03d}.nii.gz"})
    for n in range(cases, cases + tests):
        save(root / "imagesTs" / f"heart_{n:03d}.nii.gz", rng.integers(0, 900, size).astype(np.int16))
    described = {
        "name": "Heart",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D" if channels > 1 else "3D",
        "modality": {str(c): f"MR{c}" for c in range(channels)},
        "labels": {"0": "background", "1": "atrium", "2": "wall"},
        "training": entries,
        "test": [f"./imagesTs/heart_{n:03d}.nii.gz" for n in range(cases, cases + tests)],
    }
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def test_files_are_copied_and_test_images_are_unlabelled(tmp_path: Path) -> None:
    source, target = make_task(tmp_path / "Task02"), tmp_path / "out"
    done = import_dataset("msd", source, target)
    assert (done.cases, done.labelled, done.unlabelled) == (5, 3, 2)
    dataset = load_dataset(target)
    assert dataset.name == "Heart"
    assert dataset.channel_names == ("MR0",)
    assert dataset.labels == {"background": 0, "atrium": 1, "wall": 2}
    assert json.loads((target / "dataset.json").read_text())["licence"] == "CC-BY-SA 4.0"
    for folder, there in (("imagesTr", "_0000"), ("labelsTr", "")):
        copy = target / folder / f"heart_001{there}.nii.gz"
        assert copy.read_bytes() == (source / folder / "heart_001.nii.gz").read_bytes()
    assert dataset.cases["heart_004"].label is None


def test_test_images_can_be_left_out(tmp_path: Path) -> None:
    done = import_dataset("msd", make_task(tmp_path / "in"), tmp_path / "out", test_images=False)
    assert (done.cases, done.unlabelled) == (3, 0)


def test_four_dimensional_images_become_a_file_a_channel(tmp_path: Path) -> None:
    source, target = make_task(tmp_path / "in", channels=3), tmp_path / "out"
    import_dataset("msd", source, target)
    published = nibabel.load(source / "imagesTr" / "heart_002.nii.gz")
    for channel in range(3):
        written = nibabel.load(target / "imagesTr" / f"heart_002_{channel:04d}.nii.gz")
        assert written.get_data_dtype() == np.int16
        assert written.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(published.dataobj)[..., channel])
        np.testing.assert_allclose(written.affine, AFFINE)


def test_scaled_voxels_keep_their_values_when_split(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in", channels=2, cases=1, tests=0)
    image = nibabel.load(source / "imagesTr" / "heart_000.nii.gz")
    scaled = nibabel.Nifti1Image(np.asarray(image.dataobj), AFFINE)
    scaled.header.set_slope_inter(0.25, -10)
    nibabel.save(scaled, source / "imagesTr" / "heart_000.nii.gz")
    expected = nibabel.load(source / "imagesTr" / "heart_000.nii.gz").get_fdata()
    import_dataset("msd", source, tmp_path / "out")
    written = nibabel.load(tmp_path / "out" / "imagesTr" / "heart_000_0001.nii.gz").get_fdata()
    np.testing.assert_allclose(written, expected[..., 1], rtol=1e-6)
    assert written.min() < 0


def test_other_number_of_channels_than_named(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in", channels=2)
    save(source / "imagesTr" / "heart_001.nii.gz", np.zeros((9, 8, 7, 4), np.int16))
    with pytest.raises(UserError, match=r"heart_001\.nii\.gz: size 9 x 8 x 7 x 4.* 2 modalities"):
        import_dataset("msd", source, tmp_path / "out")


def test_case_without_label_file_is_unlabelled(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in", tests=0)
    (source / "labelsTr" / "heart_001.nii.gz").unlink()
    done = import_dataset("msd", source, tmp_path / "out")
    assert (done.labelled, done.unlabelled) == (2, 1)
    assert any("without a label" in note for note in done.notes)


def test_unlisted_images_are_taken_too(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in", tests=0)
    save(source / "imagesTr" / "mine.nii.gz", np.arange(504).reshape(9, 8, 7).astype(np.int16))
    done = import_dataset("msd", source, tmp_path / "out")
    assert load_dataset(tmp_path / "out").cases["mine"].label is None
    assert any("does not list" in note for note in done.notes)


def test_missing_test_folder_is_said_and_missing_file_is_an_error(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in")
    (source / "imagesTs" / "heart_003.nii.gz").unlink()
    with pytest.raises(UserError, match=r"heart_003\.nii\.gz: named in dataset\.json but missing"):
        import_dataset("msd", source, tmp_path / "out")
    (source / "imagesTs" / "heart_004.nii.gz").unlink()
    (source / "imagesTs").rmdir()
    done = import_dataset("msd", source, tmp_path / "out")
    assert done.cases == 3
    assert any("imagesTs is missing" in note for note in done.notes)


@pytest.mark.parametrize("channels", [1, 2])
def test_truncated_image_is_named(tmp_path: Path, channels: int) -> None:
    source = make_task(tmp_path / "in", channels=channels)
    path = source / "imagesTr" / "heart_002.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"heart_002\.nii\.gz: .*truncated or damaged"):
        import_dataset("msd", source, tmp_path / "out")


def test_label_value_that_is_not_described(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in")
    save(source / "labelsTr" / "heart_001.nii.gz", np.full((9, 8, 7), 5, np.uint8))
    with pytest.raises(UserError, match=r"labelsTr/heart_001\.nii\.gz: label value 5"):
        import_dataset("msd", source, tmp_path / "out")


def test_gap_in_the_class_numbers(tmp_path: Path) -> None:
    source = make_task(tmp_path / "in")
    described = json.loads((source / "dataset.json").read_text())
    described["labels"] = {"0": "background", "2": "wall"}
    (source / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"\[0, 2\]"):
        import_dataset("msd", source, tmp_path / "out")


def test_real_hippocampus_equals_the_shared_set(
    tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]
) -> None:
    done = import_dataset("msd", real_data("originals", "msd-hippocampus"), tmp_path / "out")
    assert done.near_copies == ()
    ours = read_layout(tmp_path / "out")
    theirs = read_layout(real_data("hippocampus"), only=set(ours))
    assert len(theirs) == 4
    for case, (image, label) in theirs.items():
        np.testing.assert_array_equal(ours[case][0], image)
        np.testing.assert_array_equal(ours[case][1], label)
