"""The fingerprint of known images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_data import describe, organ, pictures, save_picture, save_volume, volumes

from semialign.common.errors import UserError
from semialign.data.dataset import Dataset, load_dataset
from semialign.data.fingerprint import SAMPLES, fingerprint_case, summarise


def one(
    root: Path, image: np.ndarray, label: np.ndarray | None = None, spacing: tuple[float, ...] = (1, 1, 1)
) -> Dataset:
    """A data set of one volume."""
    describe(root)
    save_volume(root / "imagesTr" / "a_0000.nii.gz", image, spacing)
    if label is not None:
        save_volume(root / "labelsTr" / "a.nii.gz", label, spacing)
    return load_dataset(root)


def test_size_and_spacing_are_those_of_the_canonical_axes(tmp_path: Path) -> None:
    describe(tmp_path)
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = -3.0, 1.0, 2.0, 1.0  # axes: y, z (backwards: x) ...
    save_volume(tmp_path / "imagesTr" / "a_0000.nii.gz", organ((5, 6, 7))[0], affine=turned)
    dataset = load_dataset(tmp_path)
    found = fingerprint_case(dataset, dataset.cases["a"], False)
    assert found["size"] == [7, 5, 6]
    assert found["spacing"] == [3.0, 1.0, 2.0]
    assert found["picture"] is False
    assert found["voxels"] is None


def test_voxels_of_each_class_are_counted(tmp_path: Path) -> None:
    image, label = organ()
    dataset = one(tmp_path, image, label)
    found = fingerprint_case(dataset, dataset.cases["a"], True)
    assert found["voxels"] == [int((label == 0).sum()), int((label == 1).sum())]
    assert found["warnings"] == []


def test_intensities_are_those_of_the_labelled_structures(tmp_path: Path) -> None:
    image, label = organ()
    dataset = one(tmp_path, image, label)
    (samples,) = fingerprint_case(dataset, dataset.cases["a"], True)["samples"]
    assert sorted(samples) == sorted(image[label == 1].tolist())
    (samples,) = fingerprint_case(dataset, dataset.cases["a"], False)["samples"]
    assert sorted(samples) == sorted(image.ravel().tolist())


def test_a_picture_is_described_as_a_whole_channel_by_channel(tmp_path: Path) -> None:
    dataset = load_dataset(pictures(tmp_path))
    found = fingerprint_case(dataset, dataset.cases["a"], True)
    assert found["picture"] is True
    assert found["size"] == [40, 36]
    red, green, _ = (np.array(s) for s in found["samples"])
    assert len(red) == 40 * 36
    np.testing.assert_array_equal(red, 255 - green)


def test_samples_are_few_and_the_same_every_time(tmp_path: Path) -> None:
    image, label = organ((40, 40, 40))
    dataset = one(tmp_path, image, label)
    for labelled in (True, False):
        found = [fingerprint_case(dataset, dataset.cases["a"], labelled)["samples"][0] for _ in range(2)]
        assert found[0] == found[1]
        assert len(found[0]) == min(SAMPLES, int((label == 1).sum()) if labelled else image.size)


def test_an_outlier_is_named(tmp_path: Path) -> None:
    image, label = organ()
    image[0, 0, 0] = 300 * image.max()
    dataset = one(tmp_path, image, label)
    (note,) = fingerprint_case(dataset, dataset.cases["a"], True)["warnings"]
    assert note.startswith("a_0000.nii.gz: an intensity lies ")
    assert "clipped" in note


def test_usual_images_have_no_outlier(tmp_path: Path) -> None:
    image, _ = organ()
    image[0] = 0  # a dark border
    image[3, 3, 3] = 5 * image.max()
    dataset = one(tmp_path, image)
    assert fingerprint_case(dataset, dataset.cases["a"], False)["warnings"] == []


def test_an_empty_label_is_named(tmp_path: Path) -> None:
    image, label = organ()
    dataset = one(tmp_path, image, np.zeros_like(label))
    found = fingerprint_case(dataset, dataset.cases["a"], True)
    assert found["warnings"] == ["a.nii.gz: holds background alone"]
    assert len(found["samples"][0]) == image.size


def test_a_label_is_opened_only_where_it_may_be(tmp_path: Path) -> None:
    root = volumes(tmp_path)
    (root / "labelsTr" / "a.nii.gz").write_bytes(b"poison")
    dataset = load_dataset(root)
    assert fingerprint_case(dataset, dataset.cases["a"], False)["voxels"] is None
    with pytest.raises(UserError, match=r"a.nii.gz"):
        fingerprint_case(dataset, dataset.cases["a"], True)


def case(
    number: int,
    size: list[int],
    spacing: float,
    samples: list[float],
    voxels: list[int] | None,
    pieces: list[float | None] | None = None,
) -> dict[str, object]:
    described = {"case": str(number), "picture": False, "size": size, "spacing": [spacing] * 3}
    found = {"samples": [samples], "voxels": voxels, "pieces": pieces, "warnings": [f"note {number}"]}
    return described | found


def test_cases_are_joined(tmp_path: Path) -> None:
    describe(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    dataset = load_dataset(tmp_path)
    values = list(np.linspace(-50, 150, 1001))
    cases = [
        case(1, [10, 20, 30], 1.0, values, [90, 10]),
        case(2, [20, 20, 10], 3.0, values, [40, 60]),
        case(3, [90, 20, 20], 2.0, [1e6] * 10, None),
    ]
    joined = summarise(dataset, cases)
    assert joined["median_size"] == [20, 20, 20]
    assert joined["smallest_size"] == [10, 20, 10]
    assert joined["largest_size"] == [90, 20, 30]
    assert joined["median_spacing"] == [2, 2, 2]
    assert joined["class_voxels"] == {"background": 130, "organ": 70}
    assert joined["class_frequencies"] == {"background": 0.65, "organ": 0.35}
    assert joined["warnings"] == ["note 1", "note 2", "note 3"]
    # The unlabelled case's millions count for nothing: the window follows the labelled ones.
    (found,) = joined["intensities"]
    assert found == pytest.approx({"low": -49, "high": 149, "mean": 50, "std": 57.7}, abs=0.2)


def test_pieces_of_each_structure(tmp_path: Path) -> None:
    image, label = organ((6, 8, 10))
    label[:] = 0
    label[0, 0, :4] = label[5, 5, 5] = 1
    dataset = one(tmp_path, image, label)
    assert fingerprint_case(dataset, dataset.cases["a"], True)["pieces"] == [0.8, 0.8]
    assert fingerprint_case(dataset, dataset.cases["a"], False)["pieces"] is None


def test_the_box_around_what_is_labelled(tmp_path: Path) -> None:
    image, label = organ((6, 8, 10))
    label[:] = 0
    label[1:4, 0, 2] = label[2, 0:8, 9] = 1
    dataset = one(tmp_path, image, label)
    assert fingerprint_case(dataset, dataset.cases["a"], True)["extent"] == [3, 8, 8]
    assert fingerprint_case(dataset, dataset.cases["a"], False)["extent"] is None
    extents = [[3, 8, 8], [5, 8, 2], None, [4, 2, 2]]
    cases = [case(i, [9, 9, 9], 1.0, [1.0, 2.0], [5, 5]) | {"extent": its} for i, its in enumerate(extents)]
    assert summarise(dataset, cases)["median_extent"] == [4, 8, 2]
    old = [{key: value for key, value in its.items() if key != "extent"} for its in cases]
    assert summarise(dataset, old)["median_extent"] is None, "descriptions kept from before it was looked at"


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        ([[1.0, 1.0, 0.5]] * 3, [[1, 2]]),
        ([[0.995, 1.0, 1.0]] * 3, [[1, 2]]),
        ([[1.0, 1.0, 1.0]] * 2, []),  # two cases are no evidence
        ([[0.6, 1.0, 0.9]] * 3, [[1]]),
        ([[0.6, 1.0, 1.0]] * 2 + [[0.6, 1.0, None]], [[1]]),  # the second class was seen twice only
        ([[0.6, 1.0, 1.0]] * 2 + [[0.6, 1.0, None], [0.6, 0.98, 1.0]], [[2]]),
        ([None, None], []),
    ],
)
def test_what_is_one_piece_in_every_labelled_case(
    tmp_path: Path, pieces: list[list[float | None] | None], kept: list[list[int]]
) -> None:
    describe(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    cases = [case(i, [9, 9, 9], 1.0, [1.0, 2.0], [5, 5], its) for i, its in enumerate(pieces)]
    assert summarise(load_dataset(tmp_path), cases)["one_piece"] == kept


def test_without_any_label_all_cases_tell_the_intensities(tmp_path: Path) -> None:
    dataset = load_dataset(pictures(tmp_path, labelled=0))
    save_picture(tmp_path / "unused.png", np.zeros((2, 2), np.uint8))
    joined = summarise(dataset, [fingerprint_case(dataset, dataset.cases["a"], False)])
    assert joined["class_voxels"] == {"background": 0, "organ": 0}
    assert joined["intensities"][0]["high"] > joined["intensities"][0]["low"]


def test_a_scan_without_a_structure_moves_no_window(tmp_path: Path) -> None:
    describe(tmp_path)
    dataset = one(tmp_path, *organ())
    cases: list[Any] = [case(i, [9, 9, 9], 1.0, [100.0, 120.0], [5, 5]) for i in range(3)]
    empty: Any = case(3, [9, 9, 9], 1.0, [-1000.0] * 50, [10, 0])
    alone = summarise(dataset, cases)["intensities"]
    assert summarise(dataset, [*cases, empty])["intensities"] == alone
    assert summarise(dataset, [empty])["intensities"][0]["high"] == -1000.0  # better than nothing
