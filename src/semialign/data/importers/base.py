"""What an importer hands to the writer: a description of the set and its cases, each loaded when its turn comes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import visible_in
from semialign.data.formats import ENDINGS, ending_of, stem_of
from semialign.data.grid import Image

CARRIED = ("description", "reference", "licence", "license", "release")  # of a published dataset.json, kept in ours


@dataclass(frozen=True)
class LoadedCase:
    """One case as published.

    ``images``: one a channel, or one RGB picture; a path is copied unchanged where its ending is the set's, an
    :class:`Image` (C, *S) is written anew. ``label``: a file, or integers (*S) on the image's grid; ``None`` where
    nobody annotated the case.
    """

    images: tuple[Path | Image, ...]
    label: Path | np.ndarray | None = None


@dataclass(frozen=True)
class FoundCase:
    """A case that was seen but not read: its id, the file to name in errors, and how to load it."""

    id: str
    origin: Path
    load: Callable[[], LoadedCase]


@dataclass(frozen=True)
class Published:
    """A published data set: what ``dataset.json`` will say, and the cases.

    ``labels``: class names to values, background first, with ``ignore`` where the set has one. ``notes``: what a user
    should know of the set. ``group_by``: the expression for ``semialign split --group-by`` where ids tell patients.
    """

    name: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    cases: Sequence[FoundCase]
    image_ending: str = ".nii.gz"
    label_ending: str = ".nii.gz"
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    group_by: str | None = None


def found_files(case_id: str, images: tuple[Path, ...], label: Path | None = None) -> FoundCase:
    """Return the :class:`FoundCase` of files that are taken as they are."""
    return FoundCase(case_id, images[0], lambda: LoadedCase(images, label))


def image_files(folder: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """Return the files of ``folder`` with one of ``endings``, in order of name; hidden files (``._x``) are none."""
    if not folder.is_dir():
        return []
    return [path for path in visible_in(folder) if path.is_file() and ending_of(path) in endings]


def common_ending(paths: Iterable[Path], *, kept: Sequence[str], otherwise: str) -> str:
    """Return the one ending all ``paths`` have if it is among ``kept``, else ``otherwise``."""
    endings = {ending_of(path) for path in paths}
    return endings.pop() if len(endings) == 1 and endings <= set(kept) else otherwise


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their name without ending; two of one name raise :class:`UserError`."""
    files: dict[str, Path] = {}
    for path in paths:
        other = files.setdefault(stem_of(path), path)
        if other is not path:
            raise UserError(f"{path}: {other.name} has the same name without ending; keep one of the two")
    return files


def require_unique(cases: Sequence[FoundCase]) -> None:
    """Raise :class:`UserError` where two cases have one id."""
    seen: dict[str, FoundCase] = {}
    for case in cases:
        other = seen.setdefault(case.id, case)
        if other is not case:
            raise UserError(f"{case.origin}: case id {case.id} is also that of {other.origin}; rename one of the two")


def plural(count: int, what: str) -> str:
    """Return ``3 cases`` or ``1 case``."""
    return f"{count} {what}" + ("" if count == 1 else "s")
