"""BCSS in the form of its owners' download script: RGB regions, masks of codes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.fingerprint import fingerprint_case
from semialign.data.importers import import_dataset
from semialign.data.splits import make_split

NAMES = (
    "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500",
    "TCGA-A1-A0SP-DX1_xmin6798_ymin53719_MPP-0.2500",
    "TCGA-A2-A04P-DX1_xmin104246_ymin48517_MPP-0.2500",
)
# The owners' meta/gtruth_codes.tsv to the class here: what is rare is other (0), outside of the region nothing (255).
CLASS_OF_CODE = {0: 255, 1: 1, 2: 2, 3: 3, 4: 4} | dict.fromkeys(range(5, 22), 0)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def codes(seed: int) -> np.ndarray:
    """Every code in a stripe of its own."""
    return np.roll(np.repeat(np.arange(22, dtype=np.uint8), 3)[None].repeat(48, 0), seed, 1)


def make(root: Path, images: str = "images") -> Path:
    """Three regions with masks, and what else lies beside them."""
    for seed, name in enumerate(NAMES):
        small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3)).astype(np.uint8)
        save(root / images / f"{name}.png", np.asarray(Image.fromarray(small).resize((66, 48))))
        save(root / "masks" / f"{name}.png", codes(seed))
    (root / "annotations").mkdir()
    (root / "logs").mkdir()
    return root


@pytest.mark.parametrize("images", ["images", "rgbs_colorNormalized"])
def test_codes_become_classes(tmp_path: Path, read_layout: Callable[..., dict], images: str) -> None:
    source = make(tmp_path / "BCSS", images)
    (source / "masks" / f"{NAMES[2]}.png").unlink()
    done = import_dataset("bcss", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (3, 2, 1)
    assert "1 image without a mask: unlabelled" in done.notes
    ours = read_layout(tmp_path / "out")
    assert sorted(ours) == sorted(NAMES)
    for seed, name in enumerate(NAMES[:2]):
        expected = np.vectorize(CLASS_OF_CODE.get)(codes(seed))
        np.testing.assert_array_equal(ours[name][1], expected)
        source_bytes = (source / images / f"{name}.png").read_bytes()
        assert (tmp_path / "out" / "imagesTr" / f"{name}_0000.png").read_bytes() == source_bytes
    dataset = load_dataset(tmp_path / "out")
    assert dataset.class_names == ["other", "tumour", "stroma", "lymphocytic infiltrate", "necrosis"]
    assert dataset.ignore == 255
    assert fingerprint_case(dataset, dataset.cases[NAMES[0]], True)["voxels"] == [17 * 3 * 48, *[3 * 48] * 4]


def test_patients_stay_together(tmp_path: Path) -> None:
    source = make(tmp_path / "in")
    second = NAMES[0].replace("xmin45749", "xmin1")
    for folder in ("images", "masks"):
        (source / folder / f"{second}.png").write_bytes((source / folder / f"{NAMES[0]}.png").read_bytes())
    done = import_dataset("bcss", source, tmp_path / "out")
    assert done.near_copies == ((second, NAMES[0]),)
    assert json.loads((tmp_path / "out" / "near-copies.json").read_text())["groups"] == [[second, NAMES[0]]]
    assert done.group_by is not None
    split = make_split(load_dataset(tmp_path / "out"), labelled=2, validation=1, group_by=done.group_by)
    assert any({second, NAMES[0]} <= set(part) for part in (split.labelled, split.unlabelled, split.validation))


@pytest.mark.parametrize(
    ("folder", "name", "array", "message"),
    [
        ("masks", NAMES[0], np.full((48, 66), 22, np.uint8), "code 22 is none of BCSS's 0 to 21"),
        ("masks", NAMES[0], np.zeros((48, 60), np.uint8), "size 48 x 60 instead of 48 x 66"),
        ("masks", NAMES[0], np.eye(48, 66, dtype=np.uint8)[..., None].repeat(3, 2) * [1, 2, 3], "coloured"),
        ("masks", "TCGA-ZZ-0000-DX1", codes(0), "TCGA-ZZ-0000-DX1.png: a mask without image in images"),
        ("images", "overview", np.zeros((4, 4, 3), np.uint8), "overview.png: not named after a slide"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, folder: str, name: str, array: np.ndarray, message: str) -> None:
    source = make(tmp_path / "in")
    save(source / folder / f"{name}.png", array.astype(np.uint8))
    with pytest.raises(UserError, match=message):
        import_dataset("bcss", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_not_taken_for_a_polyp_set(tmp_path: Path) -> None:
    # Its masks would look black there.
    with pytest.raises(UserError, match="this looks like bcss: use `semialign import bcss`"):
        import_dataset("polyp", make(tmp_path / "in"), tmp_path / "out")
