"""Entropy and counts gathered from streamed planes against the whole image at once."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from semialign.common.errors import UserError
from semialign.data.dataset import Case
from semialign.data.grid import Grid
from semialign.evaluation.calibration import count
from semialign.evaluation.certainty import PER_BIT, Gather, certainty_path, load_certainty, made_by
from semialign.inference.output import write_prediction
from semialign.inference.sliding_window import Planes

SHAPE = (6, 8, 5)
TURNED = np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])  # axes swapped, one flipped


@pytest.fixture
def gathered(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder with the certainty of case "a", its probabilities (K, *S) in RAS order and the label as stored."""
    torch.manual_seed(0)
    grid = Grid(SHAPE, TURNED)
    probabilities = torch.softmax(3 * torch.randn(3, 5, 6, 8), 0)  # RAS: the stored axes are (y, z, x)
    label = np.random.default_rng(0).integers(0, 3, SHAPE, dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, TURNED), tmp_path / "a_label.nii.gz")
    case = Case("a", (tmp_path / "a_0000.nii.gz",), None)
    gather = Gather(tmp_path / "sure", {"a": tmp_path / "a_label.nii.gz"}, made_by={"a": "best"})
    planes = (Planes(0, start, probabilities[:, start : start + 2].clone()) for start in range(0, 5, 2))
    like = tmp_path / "a_label.nii.gz"
    write_prediction(planes, tmp_path / "a.nii.gz", grid=grid, size=(5, 6, 8), like=like, watch=gather(case, grid))
    return tmp_path, probabilities.numpy(), label


def test_gathered_by_planes_as_from_the_whole(gathered: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, probabilities, label = gathered
    found = load_certainty(certainty_path(folder / "sure", "a"))
    assert found is not None
    bits = scipy_entropy(probabilities, base=2, axis=0)
    np.testing.assert_allclose(found.entropy, bits * PER_BIT, atol=0.51)
    assert found.unsure == pytest.approx(bits[probabilities.argmax(0) > 0].mean(), rel=1e-4)
    # Stored axis 0 runs towards posterior, axis 1 to superior, axis 2 to the right.
    in_ras = label[::-1].transpose(2, 0, 1)
    whole = count(torch.from_numpy(probabilities), torch.from_numpy(in_ras.astype(np.int64)))
    np.testing.assert_array_equal(found.calibration.voxels, whole.voxels)
    np.testing.assert_array_equal(found.calibration.hits, whole.hits)
    assert found.seconds > 0


def test_what_is_missing_or_broken_is_nothing(gathered: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path = certainty_path(gathered[0] / "sure", "a")
    assert made_by(path) == "best"
    path.write_bytes(path.read_bytes()[:-50])
    assert load_certainty(path) is None
    assert made_by(path) is None
    assert load_certainty(path.with_name("b.npz")) is None


def test_a_label_on_another_grid_is_named(tmp_path: Path) -> None:
    gather = Gather(tmp_path / "sure", {"a": tmp_path / "a.nii.gz"}, made_by={"a": "best"})
    for shape, affine, apart in ((SHAPE[::-1], np.eye(4), "size 5 x 8 x 6"), (SHAPE, TURNED, "spacing")):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine), tmp_path / "a.nii.gz")
        with pytest.raises(UserError, match=apart) as error, gather(Case("a", (), None), Grid(SHAPE, np.eye(4))):
            pass
        assert str(error.value).startswith(str(tmp_path / "a.nii.gz"))


def test_a_failed_prediction_leaves_nothing(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    gather = Gather(tmp_path / "sure", {"a": tmp_path / "a.nii.gz"}, made_by={"a": "best"})
    with pytest.raises(MemoryError), gather(Case("a", (), None), Grid(SHAPE, np.eye(4))):
        raise MemoryError
    assert not (tmp_path / "sure").exists()
