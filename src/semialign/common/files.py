"""Files written whole or not at all, and the errors of full disks turned into one line."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from semialign.common.errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block ends without error.

    A reader therefore sees the old file or the new one, never half of one, whenever the process is killed.
    The temporary name keeps the ending of ``path``, since many writers choose the format by it.
    Raises :class:`UserError` where the disk is full or the place cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        make_folder(path.parent)
        yield temporary
        with open(temporary, "rb+") as handle:  # to be written: other files cannot be synchronised on Windows
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the one-line error for a failed write of ``path``."""
    if error.errno == errno.ENOSPC:
        return UserError(f"{path}: the disk is full; free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(f"{path}: may not be written; choose another output folder")
    return UserError(f"{path}: cannot be written ({error.strerror or error})")


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents; a file in the way raises :class:`UserError`."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: a file stands where a folder should be; move it or choose another folder") from error
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    return Path(path)


def visible_in(folder: Path) -> list[Path]:
    """Return what lies in ``folder`` and is not hidden (``._x``, ``.DS_Store``), in order of name.

    Raises :class:`UserError` for a name that is not UTF-8: no file that is written could name it.
    """
    found = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    for path in found:
        if not path.name.isascii() and path.name != path.name.encode("utf-8", "replace").decode():
            shown = str(path).encode("utf-8", "backslashreplace").decode()
            raise UserError(f"{shown}: its name is not UTF-8; rename it")
    return found


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``; :class:`UserError` names a missing or broken file."""
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from error


def write_yaml(path: Path, value: Any) -> None:
    """Write ``value`` as YAML to ``path``, keys in the given order, whole or not at all."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=110))


def read_yaml(path: Path) -> Any:
    """Return the YAML value in ``path``; :class:`UserError` names a missing or broken file."""
    try:
        return yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def _read_text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # some editors on Windows put a byte-order mark first
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder, but a file is wanted") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
