"""Kvasir-SEG's, CVC-ClinicDB's and CVC-300's forms."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semialign.common.errors import UserError
from semialign.data.importers import import_dataset


def colour(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)


def disc(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return ((rows - 20) ** 2 + (columns - 30) ** 2 < 144).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_images_are_copied_and_noisy_masks_cut_at_half(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    image = save(tmp_path / "Kvasir-SEG" / "images" / "a.jpg", colour(0))
    save(tmp_path / "Kvasir-SEG" / "images" / "b.jpg", colour(1))
    noisy = np.repeat(disc()[..., None] * 255, 3, axis=-1)
    published = save(tmp_path / "Kvasir-SEG" / "masks" / "a.jpg", noisy, quality=60)
    assert len(np.unique(np.asarray(Image.open(published)))) > 10
    done = import_dataset("polyp", tmp_path / "Kvasir-SEG", tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (2, 1, 1)
    assert (tmp_path / "out" / "imagesTr" / "a_0000.jpg").read_bytes() == image.read_bytes()
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (described["file_ending"], described["image_file_ending"]) == (".png", ".jpg")
    assert described["name"] == "Kvasir-SEG"
    label = read_layout(tmp_path / "out")["a"][1]
    assert (label != disc()).mean() < 0.005
    np.testing.assert_array_equal(label, np.asarray(Image.open(published).convert("L")) > 127)


def test_clinicdb_tiff_becomes_png(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    save(tmp_path / "in" / "Original" / "1.tif", colour(0))
    save(tmp_path / "in" / "Ground Truth" / "1.tif", disc() * 255)
    import_dataset("polyp", tmp_path / "in", tmp_path / "out", name="CVC-ClinicDB")
    assert (tmp_path / "out" / "imagesTr" / "1_0000.png").exists()
    image, label = read_layout(tmp_path / "out")["1"]
    np.testing.assert_array_equal(np.moveaxis(image, 0, -1), colour(0))
    np.testing.assert_array_equal(label, disc())
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["name"] == "CVC-ClinicDB"


@pytest.mark.parametrize(
    ("folders", "endings"),
    [
        (("images", "masks"), (".png", ".png")),  # CVC-300 as PraNet gives it
        (("image", "masks"), (".png", ".png")),  # its training set
        (("bbdd", "gtpolyp"), (".bmp", ".bmp")),  # CVC-300 of CVC-EndoSceneStill
        (("bbdd", "gtpolyp"), (".bmp", ".tif")),  # its CVC-612
        (("Original", "Ground Truth"), (".png", ".png")),  # CVC-ClinicDB's PNG copy
    ],
)
def test_cvc_300_and_its_kin(
    tmp_path: Path, read_layout: Callable[..., dict], folders: tuple[str, str], endings: tuple[str, str]
) -> None:
    for name in ("149", "150"):
        save(tmp_path / "CVC-300" / folders[0] / f"{name}{endings[0]}", colour(int(name)))
        save(tmp_path / "CVC-300" / folders[1] / f"{name}{endings[1]}", disc() * 255)
    save(tmp_path / "CVC-300" / "gtlumen" / f"149{endings[1]}", 255 - disc() * 255)
    done = import_dataset("polyp", tmp_path / "CVC-300", tmp_path / "out")
    assert (done.cases, done.labelled) == (2, 2)
    ours = read_layout(tmp_path / "out")
    np.testing.assert_array_equal(np.moveaxis(ours["150"][0], 0, -1), colour(150))
    np.testing.assert_array_equal(ours["149"][1], disc())
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["name"] == "CVC-300"
    assert json.loads((tmp_path / "out" / "near-copies.json").read_text())["groups"] == []


def test_mixed_endings_become_png(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    published = save(tmp_path / "in" / "images" / "a.jpg", colour(0))
    save(tmp_path / "in" / "images" / "b.bmp", colour(1))
    save(tmp_path / "in" / "masks" / "a.png", disc())  # 0 and 1, not 0 and 255
    save(tmp_path / "in" / "masks" / "b.png", disc() * 0)
    import_dataset("polyp", tmp_path / "in", tmp_path / "out")
    ours = read_layout(tmp_path / "out")
    np.testing.assert_array_equal(np.moveaxis(ours["a"][0], 0, -1), np.asarray(Image.open(published)))
    np.testing.assert_array_equal(ours["a"][1], disc())
    assert not ours["b"][1].any()


def test_black_mask_with_jpeg_noise_is_empty(tmp_path: Path, read_layout: Callable[..., dict]) -> None:
    save(tmp_path / "in" / "images" / "a.png", colour(0))
    noise = np.random.default_rng(0).integers(0, 8, (48, 64)).astype(np.uint8)
    save(tmp_path / "in" / "masks" / "a.png", noise)
    import_dataset("polyp", tmp_path / "in", tmp_path / "out")
    assert not read_layout(tmp_path / "out")["a"][1].any()


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "in" / "images" / "a.jpg", colour(0))
    extra = save(tmp_path / "in" / "masks" / "b.jpg", disc() * 255)
    with pytest.raises(UserError, match=r"masks/b\.jpg: a mask without image"):
        import_dataset("polyp", tmp_path / "in", tmp_path / "out")
    extra.unlink()
    save(tmp_path / "in" / "masks" / "a.jpg", disc((48, 65)) * 255)
    with pytest.raises(UserError, match=r"masks/a\.jpg: size 48 x 65 instead of 48 x 64"):
        import_dataset("polyp", tmp_path / "in", tmp_path / "out")
    save(tmp_path / "in" / "masks" / "a.png", disc() * 255)
    with pytest.raises(UserError, match=r"masks/a\.png: a\.jpg has the same name"):
        import_dataset("polyp", tmp_path / "in", tmp_path / "out")


def test_real_kvasir_equals_the_shared_set(
    tmp_path: Path, real_data: Callable[..., Path], read_layout: Callable[..., dict]
) -> None:
    import_dataset("polyp", real_data("originals", "kvasir"), tmp_path / "out")
    ours = read_layout(tmp_path / "out")
    theirs = read_layout(real_data("kvasir"), only=set(ours))
    assert len(theirs) == 6
    for case, (image, label) in theirs.items():
        np.testing.assert_array_equal(ours[case][0], image)
        np.testing.assert_array_equal(ours[case][1], label)
