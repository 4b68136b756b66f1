"""UA-MT's left atrium h5 files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset


def make_case(root: Path, case: str, *, seed: int = 0, label: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    path = root / case / "mri_norm2.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["image"] = rng.normal(size=(12, 10, 8)).astype(np.float32)
        if label:
            file["label"] = (rng.random((12, 10, 8)) > 0.5).astype(np.uint8)
    return path


def test_values_geometry_and_unlabelled_case(tmp_path: Path) -> None:
    path = make_case(tmp_path / "in", "A1")
    make_case(tmp_path / "in", "B2", seed=1, label=False)
    done = import_dataset("left-atrium", tmp_path / "in", tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (2, 1, 1)
    written = nibabel.load(tmp_path / "out" / "imagesTr" / "A1_0000.nii.gz")
    assert written.get_data_dtype() == np.int16
    np.testing.assert_allclose(written.header.get_zooms(), (0.625,) * 3)
    label = nibabel.load(tmp_path / "out" / "labelsTr" / "A1.nii.gz")
    assert label.get_data_dtype() == np.uint8
    with h5py.File(path) as file:
        np.testing.assert_allclose(written.get_fdata() / 1000, file["image"][()], atol=5.1e-4)
        np.testing.assert_array_equal(np.asarray(label.dataobj), file["label"][()])
    assert load_dataset(tmp_path / "out").labels == {"background": 0, "left atrium": 1}


@pytest.mark.parametrize("kept", [0, 100])
def test_damaged_file_is_named(tmp_path: Path, kept: int) -> None:
    path = make_case(tmp_path / "in", "A1")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"A1/mri_norm2\.h5: not a readable h5 file"):
        import_dataset("left-atrium", tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.zeros((4, 4, 4), np.uint8)}, "no array 'image'"),
        ({"image": np.full((4, 4, 4), 1e6, np.float32)}, "not normalised"),
        ({"image": np.full((4, 4, 4), np.nan, np.float32)}, "NaN"),
        ({"image": np.zeros((4, 4), np.float32)}, "2 dimensions where 3"),
        ({"image": np.ones((4, 4, 4), np.float32), "label": np.zeros((4, 4, 5), np.uint8)}, "one size"),
        ({"image": np.ones((4, 4, 4), np.float32), "label": np.full((4, 4, 4), 0.5)}, "fractional"),
        ({"image": np.ones((4, 4, 4), np.float32), "label": np.full((4, 4, 4), 2, np.uint8)}, "label value 2"),
    ],
)
def test_unfit_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "in" / "A1" / "mri_norm2.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    with pytest.raises(UserError, match=f"A1/mri_norm2.h5: .*{message}"):
        import_dataset("left-atrium", tmp_path / "in", tmp_path / "out")


def test_real_cases_equal_the_shared_set(
    tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]
) -> None:
    import_dataset("left-atrium", real_data("originals", "left-atrium"), tmp_path / "out")
    ours = read_layout(tmp_path / "out")
    shared = real_data("left-atrium")
    theirs = read_layout(shared, only=set(ours))
    assert len(theirs) == 3
    for case, (image, label) in theirs.items():
        np.testing.assert_array_equal(ours[case][0], image)
        np.testing.assert_array_equal(ours[case][1], label)
        name = f"imagesTr/{case}_0000.nii.gz"
        np.testing.assert_allclose(nibabel.load(tmp_path / "out" / name).affine, nibabel.load(shared / name).affine)
