"""What is measured of a case: means over what is predicted and its border, and the file it is kept in."""

from pathlib import Path

import numpy as np
import pytest

from semialign.data.dataset import case_from_files
from semialign.suggestion.measuring import Maps, Measured, keep, key_of, load_maps, load_measured, means_around


def test_background_does_not_count() -> None:
    found = np.zeros((30, 30), bool)
    found[10:12, 10:12] = True
    values = np.zeros((30, 30))
    values[10:12, 10:12] = 1.0
    # The square of 4, and what is two steps away: 8 + 12 more pixels (a diamond has no corners).
    assert means_around(found, values) == [pytest.approx(4 / 24)]
    values[20:] = 100.0
    assert means_around(found, values) == [pytest.approx(4 / 24)]


def test_where_nothing_is_predicted_the_most_unsure_voxels_count() -> None:
    values, other = np.zeros((20, 10)), np.zeros((20, 10))
    values[0, :2], other[0, :2] = (0.9, 0.7), (0.4, 0.2)
    assert means_around(np.zeros((20, 10), bool), values, other) == [pytest.approx(0.8), pytest.approx(0.3)]


def test_what_lies_at_the_edge_has_its_border_inside() -> None:
    found = np.zeros((5, 5, 5), bool)
    found[0, 0, 0] = True
    assert means_around(found, np.ones((5, 5, 5))) == [1.0]


def kept(path: Path) -> Measured:
    blocks = tuple(np.full(2, float(i)) for i in range(11))  # eleven: block10 comes after block9
    measured = Measured(0.5, 0.25, 3, blocks)
    keep(path, measured, Maps(np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)), key="k")
    return measured


def test_what_is_kept_is_read_again_only_under_its_key(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    measured = kept(path)
    again = load_measured(path, "k")
    assert again is not None
    assert (again.entropy, again.disagreement, again.found) == (0.5, 0.25, 3)
    np.testing.assert_array_equal(np.stack(again.blocks), np.stack(measured.blocks))
    assert load_maps(path).entropy.tolist() == [[1, 1], [1, 1]]
    assert load_measured(path, "other") is None
    assert load_measured(tmp_path / "none.npz", "k") is None
    path.write_bytes(path.read_bytes()[:200])
    assert load_measured(path, "k") is None
    path.write_bytes(b"")
    assert load_measured(path, "k") is None


def test_the_key_follows_checkpoint_image_and_settings(tmp_path: Path) -> None:
    image, weights = tmp_path / "a.nii.gz", tmp_path / "best.pt"
    image.write_bytes(b"image")
    weights.write_bytes(b"weights")
    case = case_from_files("a", [image])
    first = key_of(case, [weights], overlap=0.5)
    assert first == key_of(case, [weights], overlap=0.5)
    assert first != key_of(case, [weights], overlap=0.25)
    weights.write_bytes(b"others, trained on")
    second = key_of(case, [weights], overlap=0.5)
    image.write_bytes(b"another image")
    assert len({first, second, key_of(case, [weights], overlap=0.5)}) == 3
