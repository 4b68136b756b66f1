"""BUSI: names, several masks, masks of every picture mode, normals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset


def grey(seed: int, size: tuple[int, int] = (40, 52)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, size).astype(np.uint8)


def save(path: Path, array: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path)


def mask(rows: slice, columns: slice, size: tuple[int, int] = (40, 52)) -> np.ndarray:
    array = np.zeros(size, np.uint8)
    array[rows, columns] = 255
    return array


def test_grey_images_joined_masks_and_ids(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    source = tmp_path / "Dataset_BUSI_with_GT"
    first, second = mask(slice(2, 9), slice(3, 8)), mask(slice(20, 30), slice(30, 50))
    save(source / "benign" / "benign (4).png", grey(0))
    save(source / "benign" / "benign (4)_mask.png", first, "1")
    save(source / "benign" / "benign (4)_mask_1.png", second, "RGBA")
    save(source / "malignant" / "malignant (120).png", grey(1))
    save(source / "malignant" / "malignant (120)_mask.png", second, "P")
    save(source / "malignant" / "malignant (7).png", grey(2))
    done = import_dataset("busi", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (3, 2, 1)
    ours = read_layout(tmp_path / "out")
    assert sorted(ours) == ["benign_004", "malignant_007", "malignant_120"]
    np.testing.assert_array_equal(ours["benign_004"][0], grey(0)[None])
    np.testing.assert_array_equal(ours["benign_004"][1], (first | second) // 255)
    np.testing.assert_array_equal(ours["malignant_120"][1], second // 255)
    assert Image.open(tmp_path / "out" / "imagesTr" / "benign_004_0000.png").mode == "L"
    assert load_dataset(tmp_path / "out").labels == {"background": 0, "lesion": 1}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_masks_of_every_mode(tmp_path: Path, read_layout: Callable[..., dict], mode: str) -> None:
    save(tmp_path / "in" / "benign" / "benign (1).png", grey(0))
    lesion = mask(slice(5, 20), slice(8, 30))
    save(tmp_path / "in" / "benign" / "benign (1)_mask.png", lesion, mode)
    import_dataset("busi", tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(read_layout(tmp_path / "out")["benign_001"][1], lesion // 255)


def test_coloured_picture_becomes_its_luminance(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (40, 52, 3)).astype(np.uint8)
    save(tmp_path / "in" / "benign" / "benign (1).png", colour)
    import_dataset("busi", tmp_path / "in", tmp_path / "out")
    oracle = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    assert np.abs(read_layout(tmp_path / "out")["benign_001"][0][0] - oracle).max() <= 1


def test_normals_are_an_option_with_empty_labels(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    save(tmp_path / "in" / "benign" / "benign (1).png", grey(0))
    save(tmp_path / "in" / "normal" / "normal (2).png", grey(1))
    save(tmp_path / "in" / "normal" / "normal (2)_mask.png", np.zeros((40, 52), np.uint8))
    done = import_dataset("busi", tmp_path / "in", tmp_path / "out")
    assert done.cases == 1
    assert any("1 normal picture left out" in note for note in done.notes)
    import_dataset("busi", tmp_path / "in", tmp_path / "all", normals=True)
    save(tmp_path / "in" / "normal" / "normal (3).png", grey(2))
    import_dataset("busi", tmp_path / "in", tmp_path / "bare", normals=True)
    for folder, case in (("all", "normal_002"), ("bare", "normal_003")):  # with the owners' black mask, and without
        label = read_layout(tmp_path / folder)[case][1]
        assert label is not None
        assert label.shape == (40, 52)
        assert not label.any()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("benign (9)_mask.png", mask(slice(1, 3), slice(1, 3)), r"benign \(9\)_mask\.png: a mask without image"),
        (
            "benign (1)_mask.png",
            mask(slice(1, 3), slice(1, 3), (40, 53)),
            r"_mask\.png: size 40 x 53 instead of 40 x",
        ),
        ("benign (1)_mask.png", mask(slice(1, 3), slice(1, 3)) // 5, r"_mask\.png: brightest value is 51 of 255"),
        ("photo.png", grey(1), r"photo\.png: not named as"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    save(tmp_path / "in" / "benign" / "benign (1).png", grey(0))
    save(tmp_path / "in" / "benign" / name, array)
    with pytest.raises(UserError, match=message):
        import_dataset("busi", tmp_path / "in", tmp_path / "out")


def test_real_pictures(tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]) -> None:
    source = real_data("originals", "busi")
    import_dataset("busi", source, tmp_path / "out", normals=True)
    ours = read_layout(tmp_path / "out")
    assert sorted(ours) == [*(f"benign_{n:03d}" for n in (1, 2, 4, 25, 54, 58)), "normal_001", "normal_002"]
    image = np.asarray(Image.open(source / "benign" / "benign (25).png").convert("L"))
    np.testing.assert_array_equal(ours["benign_025"][0][0], image)
    parts = [np.asarray(Image.open(source / "benign" / f"benign (4)_mask{n}.png").convert("L")) for n in ("", "_1")]
    np.testing.assert_array_equal(ours["benign_004"][1], np.maximum(*parts) > 127)
    assert parts[1].any()


def test_real_pictures_match_the_shared_set(
    tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]
) -> None:
    import_dataset("busi", real_data("originals", "busi"), tmp_path / "out")
    ours = read_layout(tmp_path / "out")
    theirs = read_layout(real_data("busi"), only=set(ours))
    assert len(theirs) >= 4
    for case, (image, label) in theirs.items():
        # The shared set is reduced to 320 pixels, so images agree up to the resampling and labels up to their edge.
        size = image.shape[:0:-1]
        small = np.asarray(Image.fromarray(ours[case][0][0]).resize(size, Image.Resampling.BICUBIC), float)
        assert np.corrcoef(small.ravel(), image[0].ravel())[0, 1] > 0.99, case
        lesion = np.asarray(Image.fromarray(ours[case][1]).resize(size, Image.Resampling.NEAREST))
        assert 2 * (lesion & label).sum() / (lesion.sum() + label.sum()) > 0.97, case
