"""What all importers share: places, kinds, options, wholeness, the command."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data.importers import IMPORTERS, import_dataset, writing
from semialign.data.importers.base import Published
from semialign.data.importers.registry import importer


def make_busi(root: Path, count: int = 4, *, copies: bool = False) -> Path:
    folder = root / "benign"
    folder.mkdir(parents=True)
    for n in range(count):
        seed = 0 if copies else n
        picture = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.uint8)
        large = Image.fromarray(picture).resize((80, 60), Image.Resampling.BICUBIC)
        large.convert("RGB").save(folder / f"benign ({n}).png")
        Image.fromarray(np.asarray(large) > 128).save(folder / f"benign ({n})_mask.png")
    return root


def make_atrium(root: Path) -> Path:
    (root / "A").mkdir(parents=True)
    with h5py.File(root / "A" / "mri_norm2.h5", "w") as file:
        file["image"] = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    return root


def make_msd(root: Path) -> Path:
    (root / "imagesTr").mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(0, 99, (8, 8, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / "imagesTr" / "a_0001.nii.gz")
    (root / "dataset.json").write_text(
        '{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, '
        '"training": [{"image": "./imagesTr/a_0001.nii.gz", "label": "./labelsTr/a_0001.nii.gz"}]}'
    )
    return root


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_kind_has_a_module_with_the_two_functions() -> None:
    for kind in IMPORTERS:
        module = importer(kind)
        assert callable(module.recognise), kind
        assert callable(module.find), kind


def test_unknown_kind_and_option_suggest_the_nearest(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in")
    with pytest.raises(UserError, match="did you mean 'busi'"):
        import_dataset("bussi", source, tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'normals'"):
        import_dataset("busi", source, tmp_path / "out", normal=True)
    with pytest.raises(UserError, match="import of polyp has no option 'spacing'"):
        import_dataset("polyp", source, tmp_path / "out", spacing=(1, 1, 1))


def test_source_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        import_dataset("busi", tmp_path / "nowhere", tmp_path / "out")
    archive = tmp_path / "busi.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"busi\.zip: a file.*unpack"):
        import_dataset("busi", archive, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for kind in IMPORTERS:
        with pytest.raises(UserError, match="empty: not "):
            import_dataset(kind, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize("kind", sorted(IMPORTERS))
def test_source_of_another_form_is_recognised(tmp_path: Path, kind: str) -> None:
    made = {"busi": make_busi, "left-atrium": make_atrium, "msd": make_msd}
    for other, make in made.items():
        source = make(tmp_path / other)
        if kind != other:
            with pytest.raises(UserError, match=f"looks like {other}: use `semialign import {other}`"):
                import_dataset(kind, source, tmp_path / "out")


def test_folder_above_is_answered_with_the_right_one(tmp_path: Path) -> None:
    make_busi(tmp_path / "above" / "Dataset_BUSI_with_GT")
    with pytest.raises(UserError, match=r"did you mean .*above/Dataset_BUSI_with_GT\?"):
        import_dataset("busi", tmp_path / "above", tmp_path / "out")


def test_target_must_be_free_and_outside(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="full: not empty"):
        import_dataset("busi", source, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    with pytest.raises(UserError, match=r"mine\.txt: a file"):
        import_dataset("busi", source, tmp_path / "full" / "mine.txt")
    with pytest.raises(UserError, match="a file stands where a folder should be"):
        import_dataset("busi", source, tmp_path / "full" / "mine.txt" / "out")
    with pytest.raises(UserError, match="lies inside the source"):
        import_dataset("busi", source, source / "out")
    (tmp_path / "empty").mkdir()
    assert import_dataset("busi", source, tmp_path / "empty").cases == 4
    assert import_dataset("busi", source, tmp_path / "new" / "deep").cases == 4
    assert left(tmp_path) == ["empty", "full", "in", "new"]


def test_same_result_with_one_worker_and_many(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in", 9)
    for workers in (1, 5):
        import_dataset("busi", source, tmp_path / str(workers), workers=workers)
    files = [path.relative_to(tmp_path / "1") for path in sorted((tmp_path / "1").rglob("*")) if path.is_file()]
    assert len(files) == 20
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "5" / file).read_bytes()


@pytest.mark.parametrize("error", [RuntimeError("injected"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    source, done = make_busi(tmp_path / "in", 8), []

    def fail_late(path: Path, array: np.ndarray, affine: np.ndarray, write: object = writing.write_image) -> None:
        done.append(path)
        if len(done) == 5:
            raise error
        write(path, array, affine)  # type: ignore[operator]

    monkeypatch.setattr(writing, "write_image", fail_late)
    with pytest.raises(type(error)):
        import_dataset("busi", source, tmp_path / "out", workers=1)
    assert len(done) >= 5
    assert left(tmp_path) == ["in"]


def test_bad_last_file_leaves_nothing(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in", 6)
    path = source / "benign" / "benign (5).png"
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"benign \(5\)\.png: .*damaged"):
        import_dataset("busi", source, tmp_path / "out")
    assert left(tmp_path) == ["in", "out"]
    assert left(tmp_path / "out") == []


KILLED = """
import os, signal, sys
from pathlib import Path
from semialign.data.importers import import_dataset, writing
write, count = writing.write_image, []
def kill(path, array, affine):
    count.append(path)
    write(path, array, affine)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
writing.write_image = kill
import_dataset("busi", Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""
ENDED = """
import os, signal, sys
from semialign.cli.main import main
from semialign.data.importers import writing
write, count = writing.write_image, []
def end(path, array, affine):
    count.append(path)
    write(path, array, affine)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
writing.write_image = end
sys.exit(main(["import", "busi", sys.argv[1], sys.argv[2], "--workers", "1"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_run_leaves_no_target_and_the_next_cleans_up(tmp_path: Path) -> None:
    source, target = make_busi(tmp_path / "in", 6), tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, target], check=False, timeout=60)
    assert killed.returncode == -9
    assert not target.exists()
    assert len(left(tmp_path)) == 2  # the unfinished folder, hidden
    assert import_dataset("busi", source, target).cases == 6
    assert left(tmp_path) == ["in", "out"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_ended_command_removes_what_it_wrote(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in", 40)
    command = [sys.executable, "-c", ENDED, source, tmp_path / "out"]
    ended = subprocess.run(command, check=False, timeout=60, capture_output=True, encoding="utf-8")
    assert ended.returncode == 130
    assert "stopped" in ended.stderr
    assert left(tmp_path) == ["in"]


def test_near_copies_are_written_and_returned(tmp_path: Path) -> None:
    done = import_dataset("busi", make_busi(tmp_path / "in", 3, copies=True), tmp_path / "out")
    group = ("benign_000", "benign_001", "benign_002")
    assert done.near_copies == (group,)
    written = read_json(tmp_path / "out" / "near-copies.json")
    assert written["groups"] == [list(group)]
    assert written["threshold"] == 0.9
    skipped = import_dataset("busi", tmp_path / "in", tmp_path / "skipped", near_copy_threshold=1)
    assert skipped.near_copies == ()
    with pytest.raises(UserError, match="near-copy threshold"):
        import_dataset("busi", tmp_path / "in", tmp_path / "no", near_copy_threshold=90)


def test_two_cases_of_one_id(tmp_path: Path) -> None:
    source = make_busi(tmp_path / "in", 1)
    (source / "benign" / "benign (0).png").rename(source / "benign" / "benign (00).png")
    make_busi(tmp_path / "other", 1)
    (tmp_path / "other" / "benign" / "benign (0).png").rename(source / "benign" / "benign (0).png")
    with pytest.raises(UserError, match="same number"):
        import_dataset("busi", source, tmp_path / "out")


def test_command_prints_counts_groups_and_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_busi(tmp_path / "in", 10, copies=True)
    (source / "benign" / "benign (3)_mask.png").unlink()
    target = tmp_path / "out put"
    assert main(["import", "busi", str(source), str(target)]) == 0
    printed = capsys.readouterr().out
    assert "10 cases, 9 labelled, 1 unlabelled" in printed
    assert "near-copies: 1 group, 10 cases" in printed
    assert f"--group-file '{target / 'near-copies.json'}'" in printed
    assert f"semialign split '{target}' --labelled 1" in printed


def test_command_answers_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_busi(tmp_path / "in")
    assert main(["import", "polyp", str(source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "use `semialign import busi`" in error
    assert error.count("\n") == 1
    assert main(["import", "busi", str(source), str(tmp_path / "out"), "--spacing", "1", "1", "1"]) == 2
    assert "has no option 'spacing'" in capsys.readouterr().err


def test_empty_description_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_busi(tmp_path / "in")
    empty = Published("x", ("a",), {"background": 0, "b": 1}, [])
    monkeypatch.setattr(importer("busi"), "find", lambda source: empty)
    with pytest.raises(UserError, match="no images found"):
        import_dataset("busi", source, tmp_path / "out")
