"""Files are there whole or not at all, and a full disk is one line."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from semialign.common import files
from semialign.common.errors import UserError, closest, require_known

FULL = Path("/dev/full")  # the kernel's own full disk: every write fails with "No space left on device"
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def _one_line(error: pytest.ExceptionInfo[UserError], path: Path) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def _full_disk_at(path: Path) -> None:
    """Send what is written for ``path`` to a full disk."""
    os.symlink(FULL, path.with_name(f".writing-{os.getpid()}-{path.name}"))


def test_written_whole_writes_and_leaves_no_other_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "deep" / "er" / "a.txt", "héllo\n")
    assert (tmp_path / "deep/er/a.txt").read_text(encoding="utf-8") == "héllo\n"
    assert [p.name for p in (tmp_path / "deep/er").iterdir()] == ["a.txt"]


def test_temporary_keeps_the_ending_and_the_folder(tmp_path: Path) -> None:
    with files.written_whole(tmp_path / "scan.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, UserError])
def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(kind), files.written_whole(path) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half of the n")
        raise kind("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_before_the_rename_the_old_file_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def die(*_: Any) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(SystemExit):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_data_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (order.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    files.write_text(tmp_path / "a", "x")
    assert order == ["fsync", "replace"]


@needs_full
def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    _full_disk_at(path)
    with pytest.raises(UserError) as error:
        files.write_text(path, "new" * 10_000)
    assert "full" in _one_line(error, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "full"), (errno.EACCES, "may not"), (errno.EROFS, "may not"), (errno.EIO, "")]
)
def test_failed_renames_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError) as error:
        files.write_json(tmp_path / "a.json", {})
    assert word in _one_line(error, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for path in (tmp_path / "runs", tmp_path / "runs" / "one"):
        with pytest.raises(UserError) as error:
            files.make_folder(path)
        assert "a file stands" in _one_line(error, path)
    with pytest.raises(UserError):
        files.write_text(tmp_path / "runs" / "a.txt", "x")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_forbidden_folder(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match="may not be written"):
        files.write_text(tmp_path / "a", "x")
    tmp_path.chmod(stat.S_IRWXU)


def test_json_and_yaml_come_back(tmp_path: Path) -> None:
    value = {"name": "Niere, links", "list": [1, 2.5, None, True], "deep": {"a": []}}
    files.write_json(tmp_path / "a.json", value)
    files.write_yaml(tmp_path / "a.yaml", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert files.read_yaml(tmp_path / "a.yaml") == value
    assert list(files.read_yaml(tmp_path / "a.yaml")) == list(value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    cases: list[tuple[Any, bytes | None, str]] = [
        (files.read_json, b"{", "not valid JSON"),
        (files.read_yaml, b"a: [1", "not valid YAML"),
        (files.read_json, None, "no such file"),
        (files.read_yaml, b"\xff\xfe\x00", "not a text file"),
    ]
    for read, content, words in cases:
        path = tmp_path / "x"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read(path)
        assert words in _one_line(error, path)
    with pytest.raises(UserError, match="folder"):
        files.read_json(tmp_path)


def test_nearest_name_is_suggested() -> None:
    assert closest("mean-techer", ["cps", "mean-teacher"]) == "; did you mean 'mean-teacher'?"
    assert closest("zzz", ["b", "a"]) == "; there are: a, b"
    require_known("a", iter(["a"]), "thing")
    with pytest.raises(UserError, match="unknown thing 'q'; there are: a"):
        require_known("q", ["a"], "thing")
