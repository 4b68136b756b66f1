"""Preparing again: what is not done twice, what is made anew, and what survives a full disk and a wrong edit."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prepared_data import Data, changed
from raw_data import (
    contents,
    describe,
    full_disk,
    organ,
    pictures,
    save_volume,
    times,
    unfinished,
    write_split,
)

from semialign.common.errors import UserError
from semialign.data import prepare as module
from semialign.data.prepare import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Prepared once."""
    return Data(tmp_path_factory.mktemp("made")).make()


@pytest.fixture
def data(made: Data, tmp_path: Path) -> Data:
    """A copy to change; the times of files are kept."""
    shutil.copytree(made.raw.parent, tmp_path / "copy")
    return Data(tmp_path / "copy")


def test_a_second_run_does_nothing(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("work was started")

    for name in ("fingerprint_case", "preprocess_image", "preprocess_label", "write_plan"):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr("semialign.data.parallel.ProcessPoolExecutor", never)
    for name in ("read_case", "read_grid"):
        monkeypatch.setattr(f"semialign.data.leaks.{name}", never)
    before = times(data.out)
    said: list[Any] = []
    done = data.prepare(workers=4, progress=lambda *what: said.append(what))
    assert times(data.out) == before
    assert said == []
    assert done.plan.dimensions == 3


def test_an_interrupted_run_goes_on(data: Data) -> None:
    shutil.rmtree(data.out)

    def stop(what: str, count: int, of: int) -> None:
        if (what, count) == ("store", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare(progress=stop)
    assert not unfinished(data.out)
    before = times(data.out)
    said: list[tuple[str, int, int]] = []
    data.prepare(progress=lambda *what: said.append(what))
    assert said == [("store", 1, 3), ("store", 2, 3), ("store", 3, 3)]
    assert changed(before, times(data.out)) == {"c", "d", "e"}


def test_an_interrupted_check_goes_on(data: Data, made: Data) -> None:
    shutil.rmtree(data.out)

    def stop(what: str, count: int, of: int) -> None:
        if (what, count) == ("check", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare(progress=stop)
    kept = data.out / "checked.jsonl"
    kept.write_bytes(kept.read_bytes() + b'\n["half a li')
    said: list[tuple[str, int, int]] = []
    data.prepare(progress=lambda *what: said.append(what))
    assert [s for s in said if s[0] == "check"] == [("check", n, 3) for n in (1, 2, 3)]
    assert not kept.exists()
    assert contents(data.out) == contents(made.out)


def test_a_fault_costs_no_other_case_its_check(data: Data, made: Data) -> None:
    shutil.rmtree(data.out)
    path = data.raw / "imagesTr" / "d_0000.nii.gz"
    whole, about = path.read_bytes(), path.stat()
    path.write_bytes(whole[:100])
    with pytest.raises(UserError, match="d_0000"):
        data.prepare()
    path.write_bytes(whole)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    said: list[tuple[str, int, int]] = []
    data.prepare(progress=lambda *what: said.append(what))
    assert 0 < len([s for s in said if s[0] == "check"]) < 5
    assert contents(data.out) == contents(made.out)


@pytest.mark.parametrize(
    ("name", "again"), [("imagesTr/a_0000.nii.gz", "a"), ("labelsTr/b.nii.gz", "b"), ("imagesTr/d_0000.nii.gz", "d")]
)
@pytest.mark.parametrize("kind", ["time", "size"])
def test_a_changed_file_is_prepared_again_alone(data: Data, name: str, again: str, kind: str) -> None:
    path, before = data.raw / name, times(data.out)
    if kind == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    else:
        import nibabel

        about, old = path.stat(), nibabel.load(path)
        array = np.asarray(old.dataobj).copy()
        array[2:4, 3:9] = 1
        save_volume(path, array)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert path.stat().st_size != about.st_size
    data.prepare()
    assert changed(before, times(data.out)) == {again}


def test_a_change_to_a_label_that_may_not_be_seen_changes_nothing(data: Data) -> None:
    before = times(data.out)
    for name in ("c", "f"):
        (data.raw / "labelsTr" / f"{name}.nii.gz").write_bytes(b"poison")
    (data.raw / "imagesTr" / "f_0000.nii.gz").write_bytes(b"poison")
    data.prepare()
    assert times(data.out) == before


@pytest.mark.parametrize("name", ["b.image.b2nd", "b.label.b2nd", "b.json"])
@pytest.mark.parametrize("fault", ["missing", "cut", "empty"])
def test_a_damaged_store_is_mended(data: Data, made: Data, name: str, fault: str) -> None:
    path, before = data.out / "store" / name, times(data.out)
    raw = path.read_bytes()
    path.unlink() if fault == "missing" else path.write_bytes(raw[: len(raw) // 2] if fault == "cut" else b"")
    data.prepare()
    assert changed(before, times(data.out)) == {"b"}
    assert contents(data.out / "store") == contents(made.out / "store")


@pytest.mark.parametrize("text", ["", "[]", '{"cases": 1}', "null"])
def test_a_damaged_fingerprint_is_taken_again(data: Data, made: Data, text: str) -> None:
    before = times(data.out)
    (data.out / "fingerprint.json").write_text(text)
    data.prepare()
    assert (data.out / "fingerprint.json").read_text() == (made.out / "fingerprint.json").read_text()
    assert changed(before, times(data.out)) == set()


def edit(data: Data, **values: Any) -> None:
    path = data.out / "plan.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_an_edited_plan_is_kept_and_the_store_made_again(data: Data) -> None:
    edit(data, spacing=[2.0, 1.0, 1.0])
    text = (data.out / "plan.yaml").read_text()
    done = data.prepare()
    assert (data.out / "plan.yaml").read_text() == text
    assert done.store.about("a")["shape"] == [10, 18, 16]
    assert done.store.image("c").shape == (1, 10, 18, 16)
    before = times(data.out)
    data.prepare()
    assert times(data.out) == before


def test_an_edit_that_preparing_does_not_read_leaves_the_store(data: Data) -> None:
    before = times(data.out)
    edit(data, patch_size=[8, 8, 8], strides=[[1, 1, 1]], kernels=[[3, 3, 3]], widths=[8], batch_labelled=5)
    assert data.prepare().plan.batch_labelled == 5
    assert changed(before, times(data.out)) == set()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"patch_size": [7, 7]}, "number for every axis"),
        ({"normalisation": [{"scheme": "z-score"}] * 2}, "made for 2 channels"),
        ({"normalisation": [{"scheme": "min-max"}]}, "unknown normalisation"),
        ({"spacing": [0, 1, 1]}, "above 0"),
    ],
)
def test_a_wrong_edit_changes_nothing(data: Data, values: dict[str, Any], words: str) -> None:
    edit(data, **values)
    before = times(data.out)
    with pytest.raises(UserError, match=words) as error:
        data.prepare()
    assert str(data.out / "plan.yaml") in str(error.value)
    assert times(data.out) == before


def test_a_plan_of_pictures_does_not_fit_volumes(data: Data, tmp_path: Path) -> None:
    flat = prepare(pictures(tmp_path / "pictures"), output=tmp_path / "flat", accelerator="cpu")
    shutil.copy(flat.folder / "plan.yaml", data.out / "plan.yaml")
    edit(data, normalisation=[{"scheme": "z-score"}])
    with pytest.raises(UserError, match=r"plan.yaml: made for pictures, not volumes .*; delete it"):
        data.prepare()


def test_a_class_added_or_an_ignore_value_makes_the_labels_again(data: Data) -> None:
    describe(data.raw, {"background": 0, "organ": 1, "ignore": 9})
    before = times(data.out)
    data.prepare()
    assert changed(before, times(data.out)) == set("abcde")
    describe(data.raw, {"background": 0, "ignore": 1, "other": 2, "organ": 3})
    with pytest.raises(UserError):  # two classes without gap: 0, 2, 3 is none
        data.prepare()
    describe(data.raw, {"background": 0, "cyst": 1, "ignore": 9, "other": 2})
    done = data.prepare()
    assert done.fingerprint["warnings"] == ["class 'other' is in no labelled case: it cannot be learned"]


def test_a_class_only_validation_cases_have_cannot_be_learned(data: Data) -> None:
    describe(data.raw, {"background": 0, "organ": 1, "cyst": 2})
    label = organ(seed=4)[1]
    label[0] = 2
    save_volume(data.raw / "labelsTr" / "e.nii.gz", label)
    assert data.prepare().fingerprint["warnings"] == ["class 'cyst' is in no labelled case: it cannot be learned"]


def test_a_case_that_loses_its_label_loses_it_in_the_store(data: Data) -> None:
    before = times(data.out)
    write_split(data.split, labelled=["a"], unlabelled=["b", "c", "d"], validation=["e"], test=["f"])
    done = data.prepare()
    assert changed(before, times(data.out)) == {"b"}
    assert not (data.out / "store" / "b.label.b2nd").exists()
    assert done.fingerprint["parts"]["labelled"] == 1
    label = organ(seed=0)[1]
    assert done.fingerprint["class_voxels"]["organ"] == int((label == 1).sum())


def test_a_case_moved_to_validation_no_longer_counts(data: Data) -> None:
    # The same cases are opened in the same order; only the parts differ.
    write_split(data.split, labelled=["a", "b"])
    assert data.prepare().fingerprint["cases"] == 2
    write_split(data.split, labelled=["a"], validation=["b"])
    found = data.prepare().fingerprint
    assert (found["cases"], found["parts"]["validation"]) == (1, 1)


@pytest.mark.parametrize("ending", [".image.b2nd", ".label.b2nd", "c.json", "plan.yaml", "fingerprint.json"])
def test_a_full_disk_leaves_nothing_half_written(data: Data, made: Data, ending: str) -> None:
    before = {}
    if ending.endswith(("b2nd", "c.json")):
        edit(data, spacing=[2.0, 1.0, 1.0])  # every case is to be made again
        before = contents(data.out)
    else:
        shutil.rmtree(data.out)
    with full_disk(ending), pytest.raises(UserError, match=f"{data.out}.*disk is full"):
        data.prepare()
    assert not unfinished(data.out)
    # Each case is as it was, or made again whole.
    after = contents(data.out)
    for name in before:
        assert name in after
    done = data.prepare()
    assert all(done.store.about(c)["shape"] == list(done.store.image(c).shape[1:]) for c in "abcde")


def test_a_file_in_the_way(data: Data) -> None:
    shutil.rmtree(data.out)
    data.out.write_text("mine")
    with pytest.raises(UserError, match="file stands where a folder"):
        data.prepare()
    assert data.out.read_text() == "mine"
    data.out.unlink()
    data.out.mkdir()
    (data.out / "store").write_text("mine")
    with pytest.raises(UserError, match="file stands where a folder"):
        data.prepare()
    assert (data.out / "store").read_text() == "mine"


def test_a_dangling_link_is_named(data: Data) -> None:
    path = data.raw / "imagesTr" / "c_0000.nii.gz"
    path.unlink()
    path.symlink_to(data.raw / "nowhere.nii.gz")
    with pytest.raises(UserError, match=r"c_0000.nii.gz: cannot be read"):
        data.prepare()
