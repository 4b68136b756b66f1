"""ISIC 2018 task 1 in the challenge's form."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def lesion(seed: int) -> np.ndarray:
    mask = np.zeros((40, 56), np.uint8)
    mask[5 + seed : 20 + seed, 10:30] = 255
    return mask


def make(root: Path, part: str = "Training", numbers: tuple[int, ...] = (0, 1, 3), masks: bool = True) -> Path:
    """A part of the challenge: its images, notices and masks."""
    folder = root / f"ISIC2018_Task1-2_{part}_Input"
    for number in numbers:
        small = np.random.default_rng(number).integers(0, 255, (5, 7, 3)).astype(np.uint8)
        picture = np.asarray(Image.fromarray(small).resize((56, 40), Image.Resampling.BICUBIC))
        save(folder / f"ISIC_{number:07d}.jpg", picture)
        if masks:
            truth = root / f"ISIC2018_Task1_{part}_GroundTruth"
            save(truth / f"ISIC_{number:07d}_segmentation.png", lesion(number))
    for name in ("ATTRIBUTION.txt", "LICENSE.txt"):
        (folder / name).write_text("CC BY-NC")
    return root


def test_images_are_copied_and_masks_counted_from_zero(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    source = make(tmp_path / "ISIC")
    (source / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_0000003_segmentation.png").unlink()
    done = import_dataset("isic-2018", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (3, 2, 1)
    assert done.notes == ("1 image without a mask: unlabelled",)
    ours = read_layout(tmp_path / "out")
    assert sorted(ours) == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000003"]
    np.testing.assert_array_equal(ours["ISIC_0000001"][1], lesion(1) // 255)
    published = source / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.jpg"
    assert (tmp_path / "out" / "imagesTr" / "ISIC_0000001_0000.jpg").read_bytes() == published.read_bytes()
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.name, dataset.labels) == ("ISIC-2018", {"background": 0, "lesion": 1})
    assert dataset.channel_names == ("R", "G", "B")


def test_validation_and_test_are_taken_or_left_out(tmp_path: Path) -> None:
    source = make(make(make(tmp_path / "in"), "Validation", (10,)), "Test", (20, 21), masks=False)
    done = import_dataset("isic-2018", source, tmp_path / "all")
    assert (done.cases, done.labelled) == (6, 4)
    assert "1 image of Validation taken too; --no-test-images leaves them out" in done.notes
    assert "2 images of Test taken too; --no-test-images leaves them out" in done.notes
    assert main(["import", "isic-2018", str(source), str(tmp_path / "train"), "--no-test-images"]) == 0
    assert sorted(load_dataset(tmp_path / "train").cases) == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000003"]


def test_near_copies_are_reported(tmp_path: Path) -> None:
    source = make(tmp_path / "in", numbers=(0, 1, 2, 3))
    folder = source / "ISIC2018_Task1-2_Training_Input"
    (folder / "ISIC_0000002.jpg").write_bytes((folder / "ISIC_0000000.jpg").read_bytes())
    done = import_dataset("isic-2018", source, tmp_path / "out")
    assert done.near_copies == (("ISIC_0000000", "ISIC_0000002"),)
    written = json.loads((tmp_path / "out" / "near-copies.json").read_text())
    assert written["groups"] == [["ISIC_0000000", "ISIC_0000002"]]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("ISIC_0000009_segmentation.png", (40, 56), "ISIC_0000009_segmentation.png: a mask without image in"),
        ("ISIC_0000000.png", (40, 56), "ISIC_0000000.png: not named as the challenge's masks"),
        ("ISIC_0000000_segmentation.png", (40, 57), "segmentation.png: size 40 x 57 instead of 40 x 56"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, size: tuple[int, int], message: str) -> None:
    source = make(tmp_path / "in")
    save(source / "ISIC2018_Task1_Training_GroundTruth" / name, np.full(size, 255, np.uint8))
    with pytest.raises(UserError, match=message):
        import_dataset("isic-2018", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_form_is_told(tmp_path: Path) -> None:
    make(tmp_path / "in" / "ISIC")
    with pytest.raises(UserError, match=r"in: not ISIC 2018 task 1 .*; did you mean .*ISIC\?"):
        import_dataset("isic-2018", tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="use `semialign import isic-2018`"):
        import_dataset("polyp", tmp_path / "in" / "ISIC", tmp_path / "out")
