"""ACDC from SSL4MIS (h5 volumes and slices) and from its owners (NIfTI)."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset


def write_h5(path: Path, image: np.ndarray, label: np.ndarray | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"] = image.astype(np.float32)
        if label is not None:
            file["label"] = label.astype(np.uint8)
            file["scribble"] = np.full(label.shape, 4, np.uint8)


def volume(seed: int, slices: int = 11) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((slices, 16, 14)), rng.integers(0, 4, (slices, 16, 14))


def write_slices(root: Path, case: str, image: np.ndarray, label: np.ndarray) -> None:
    for n in range(len(image)):
        write_h5(root / "data" / "slices" / f"{case}_slice_{n + 1}.h5", image[n], label[n])


def test_slices_are_stacked_in_order_of_number(tmp_path: Path) -> None:
    image, label = volume(0)
    write_slices(tmp_path / "in", "patient003_frame01", image, label)
    done = import_dataset("acdc", tmp_path / "in", tmp_path / "out")
    assert done.group_by == r"patient\d+"
    assert any("spacing unknown" in note for note in done.notes)
    written = nibabel.load(tmp_path / "out" / "imagesTr" / "patient003_frame01_0000.nii.gz")
    assert written.shape == (16, 14, 11)
    np.testing.assert_allclose(written.header.get_zooms(), (1.5, 1.5, 10))
    mask = np.asarray(nibabel.load(tmp_path / "out" / "labelsTr" / "patient003_frame01.nii.gz").dataobj)
    for n in range(11):  # by name, slice_10 would come before slice_2
        np.testing.assert_allclose(np.asarray(written.dataobj)[:, :, n] / 4095, image[n], atol=1.3e-4)
        np.testing.assert_array_equal(mask[:, :, n], label[n])


def test_volumes_come_before_slices_of_the_same_case(tmp_path: Path) -> None:
    image, label = volume(0)
    write_slices(tmp_path / "in", "patient003_frame01", image[:3], label[:3])
    write_h5(tmp_path / "in" / "data" / "patient003_frame01.h5", image, label)
    write_h5(tmp_path / "in" / "data" / "patient004_frame12.h5", *volume(1, 6))
    write_slices(tmp_path / "in", "patient005_frame01", *volume(2, 4))
    done = import_dataset("acdc", tmp_path / "in", tmp_path / "out", spacing=(1.25, 1.3, 8))
    assert done.cases == 3
    assert not any("spacing unknown" in note for note in done.notes)
    shapes = {}
    for case in load_dataset(tmp_path / "out").cases.values():
        nifti = nibabel.load(case.images[0])
        shapes[case.id] = nifti.shape
        np.testing.assert_allclose(nifti.header.get_zooms(), (1.25, 1.3, 8), rtol=1e-6)
    assert shapes == {
        "patient003_frame01": (16, 14, 11),
        "patient004_frame12": (16, 14, 6),
        "patient005_frame01": (16, 14, 4),
    }


def test_data_folder_itself_may_be_named(tmp_path: Path) -> None:
    write_h5(tmp_path / "in" / "data" / "patient004_frame12.h5", *volume(1, 6))
    assert import_dataset("acdc", tmp_path / "in" / "data", tmp_path / "out").cases == 1


def test_missing_slice_is_named(tmp_path: Path) -> None:
    write_slices(tmp_path / "in", "patient003_frame01", *volume(0))
    (tmp_path / "in" / "data" / "slices" / "patient003_frame01_slice_4.h5").unlink()
    with pytest.raises(UserError, match=r"patient003_frame01_slice_4\.h5: missing"):
        import_dataset("acdc", tmp_path / "in", tmp_path / "out")


def test_slices_that_do_not_fit_together(tmp_path: Path) -> None:
    image, label = volume(0)
    write_slices(tmp_path / "in", "patient003_frame01", image, label)
    odd = tmp_path / "in" / "data" / "slices" / "patient003_frame01_slice_5.h5"
    write_h5(odd, image[4], None)
    with pytest.raises(UserError, match=r"slice_5\.h5: some slices .* have a label and some none"):
        import_dataset("acdc", tmp_path / "in", tmp_path / "out")
    write_h5(odd, image[4, :9], label[4, :9])
    with pytest.raises(UserError, match=r"slice_5\.h5: size \(9, 14\)"):
        import_dataset("acdc", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 0), (1.5, 1.5, -10), (1.5, float("nan"), 10), (1.5, 10)])
def test_impossible_spacing(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    write_h5(tmp_path / "in" / "data" / "patient004_frame12.h5", *volume(1, 6))
    with pytest.raises(UserError, match="--spacing"):
        import_dataset("acdc", tmp_path / "in", tmp_path / "out", spacing=spacing)


def make_owners(root: Path) -> Path:
    for part, patient in (("training", 1), ("training", 2), ("testing", 101)):
        folder = root / part / f"patient{patient:03d}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 1\n")
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 3, 5), np.int16), np.eye(4)), folder / "x_4d.nii.gz")
        for frame in (1, 12):
            image, label = volume(10 * patient + frame, 5)
            stem = folder / f"patient{patient:03d}_frame{frame:02d}"
            affine = np.diag([1.4, 1.4, 5.0, 1.0])
            nibabel.save(nibabel.Nifti1Image((image * 300).astype(np.int16), affine), f"{stem}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), affine), f"{stem}_gt.nii.gz")
    return root


def test_owners_form_keeps_files_and_spacing(tmp_path: Path) -> None:
    source = make_owners(tmp_path / "ACDC")
    (source / "training" / "patient002" / "patient002_frame12_gt.nii.gz").unlink()
    done = import_dataset("acdc", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (6, 5, 1)
    copy = tmp_path / "out" / "imagesTr" / "patient001_frame12_0000.nii.gz"
    assert copy.read_bytes() == (source / "training/patient001/patient001_frame12.nii.gz").read_bytes()
    assert import_dataset("acdc", source, tmp_path / "fewer", test_images=False).cases == 4
    assert import_dataset("acdc", source / "training", tmp_path / "part").cases == 4
    with pytest.raises(UserError, match="their own spacing"):
        import_dataset("acdc", source, tmp_path / "no", spacing=(1, 1, 5))


def test_real_cases_equal_the_shared_set(
    tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]
) -> None:
    done = import_dataset("acdc", real_data("originals", "acdc"), tmp_path / "out")
    # Two phases of one heart are near-copies; hearts of two patients are not.
    pairs = {tuple(f"{patient}_frame{n:02d}" for n in (1, 2)) for patient in ("patient001", "patient003")}
    assert set(done.near_copies) == pairs
    ours = read_layout(tmp_path / "out")
    shared = real_data("acdc")
    theirs = read_layout(shared, only=set(ours))
    assert len(theirs) >= 2
    for case, (image, label) in theirs.items():
        np.testing.assert_array_equal(ours[case][0], image)
        np.testing.assert_array_equal(ours[case][1], label)
        name = f"imagesTr/{case}_0000.nii.gz"
        np.testing.assert_allclose(nibabel.load(tmp_path / "out" / name).affine, nibabel.load(shared / name).affine)
    assert ours["patient001_frame01"][0].shape == (1, 256, 216, 10)
