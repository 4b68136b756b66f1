"""Planted copies: a test case under another name among those that train is found, and nothing else is held up."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from prepared_data import Data
from raw_data import pictures, save_volume, volumes

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data import leaks as module
from semialign.data.dataset import load_dataset
from semialign.data.leaks import CONTENT, require_no_leak
from semialign.data.prepare import prepare
from semialign.data.splits import Split

SPLIT = Split(("a", "b"), ("c",), ("d",), ("e", "f"), protocol="mine")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return volumes(tmp_path / "raw", labelled=6, unlabelled=0)


def image(raw: Path, case: str) -> Path:
    return raw / "imagesTr" / f"{case}_0000.nii.gz"


def check(raw: Path, split: Split = SPLIT, **options: Any) -> None:
    require_no_leak(load_dataset(raw), split, raw.parent / "kept.jsonl", where="s.json", **options)


@pytest.mark.parametrize(("seen", "role"), [("a", "training"), ("c", "training"), ("d", "validation")])
def test_prepare_finds_a_planted_copy_before_anything_is_stored(raw: Path, seen: str, role: str) -> None:
    shutil.copy(image(raw, seen), image(raw, "f"))
    with pytest.raises(UserError) as caught:
        prepare(raw, SPLIT, output=raw.parent / "out", workers=1)
    text = str(caught.value)
    assert text.startswith(
        f"{image(raw, 'f')}: a test case with the same voxels as {image(raw, seen)}, a case for {role}"
    )
    assert text.endswith("; leave one of the two out of mine")
    assert "\n" not in text
    assert not (raw.parent / "out" / "store").exists()
    mended = Split(SPLIT.labelled, SPLIT.unlabelled, SPLIT.validation, ("e",))
    assert prepare(raw, mended, output=raw.parent / "out", workers=1).store.about("a")


def test_another_format_type_and_place_are_no_disguise(raw: Path) -> None:
    array = np.rint(nibabel.load(image(raw, "b")).get_fdata())
    save_volume(image(raw, "b"), array.astype(np.int16))
    image(raw, "e").unlink()
    save_volume(raw / "imagesTr" / "e_0000.nii", array.astype(np.float64), spacing=(2, 2, 5))
    with pytest.raises(UserError, match=r"e_0000\.nii: a test case with the same voxels as .*b_0000\.nii\.gz"):
        check(raw)


def test_one_voxel_makes_another_image(raw: Path) -> None:
    array = nibabel.load(image(raw, "b")).get_fdata(dtype=np.float32)
    array[3, 4, 5] += 0.5
    save_volume(image(raw, "e"), array)
    check(raw)


def test_pictures_and_several_leaks(tmp_path: Path) -> None:
    raw = pictures(tmp_path / "raw", labelled=6, unlabelled=0)
    for source, copy in (("a", "e"), ("c", "f")):
        Image.open(raw / "imagesTr" / f"{source}_0000.png").save(raw / "imagesTr" / f"{copy}_0000.png", optimize=True)
    with pytest.raises(UserError, match=r"e_0000\.png: .* \(labelled\), and 1 more such; leave"):
        check(raw)


def test_copies_that_all_train_or_all_test_are_no_leak_but_told(raw: Path) -> None:
    shutil.copy(image(raw, "a"), image(raw, "c"))
    shutil.copy(image(raw, "e"), image(raw, "f"))
    done = prepare(raw, SPLIT, output=raw.parent / "out", workers=1)
    told = [text for text in done.fingerprint["warnings"] if "same voxels" in text]
    assert told == [f"{image(raw, 'c')}: holds the same voxels as {image(raw, 'a')}; it counts twice"]


def test_only_images_of_a_size_on_both_sides_are_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_volume(image(raw, "e"), np.zeros((9, 9, 9), np.float32))
    for case in "ac":
        save_volume(image(raw, case), np.ones((8, 9, 9), np.float32))
    read: list[str] = []
    whole = module.read_case
    monkeypatch.setattr(module, "read_case", lambda case, channels: read.append(case.id) or whole(case, channels))
    check(raw)
    assert sorted(read) == ["b", "d", "f"]


def test_prepare_reads_training_cases_no_second_time_and_a_stopped_search_goes_on(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = module.read_case
    monkeypatch.setattr(module, "read_case", lambda case, channels: read.append(case.id) or whole(case, channels))
    out = raw.parent / "out"

    def stop(what: str, done: int, of: int) -> None:
        if what == "compare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(raw, SPLIT, output=out, workers=1, progress=stop)
    assert read == ["e"]
    prepare(raw, SPLIT, output=out, workers=1)
    assert read == ["e", "f"]
    prepare(raw, SPLIT, output=out, workers=1)
    assert read == ["e", "f"]


def test_data_prepared_before_there_was_a_search_are_searched(raw: Path) -> None:
    out = raw.parent / "out"
    clean = prepare(raw, SPLIT, output=out, workers=1)
    (out / CONTENT).unlink()
    shutil.copy(image(raw, "b"), image(raw, "f"))
    with pytest.raises(UserError, match="the same voxels"):
        prepare(raw, SPLIT, output=out, workers=1)
    assert read_json(out / "fingerprint.json") == clean.fingerprint


def test_labels_are_not_read(raw: Path) -> None:
    for path in (raw / "labelsTr").iterdir():
        path.write_bytes(b"poison")
    check(raw)


def test_the_search_is_that_of_the_split_file_in_the_error(tmp_path: Path) -> None:
    data = Data(tmp_path).make()
    shutil.copy(data.raw / "imagesTr" / "a_0000.nii.gz", data.raw / "imagesTr" / "f_0000.nii.gz")
    with pytest.raises(UserError, match=f"leave one of the two out of {data.split}"):
        data.prepare()
