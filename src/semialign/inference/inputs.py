"""What to predict: files, folders of images, DICOM folders and data sets, grouped into cases."""

import re
from collections.abc import Sequence
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import visible_in
from semialign.data.dataset import Case, case_from_files
from semialign.data.formats import ENDINGS, PICTURES, ending_of, output_ending, stem_of
from semialign.data.itk_io import dicom_series

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})$")


def find_cases(inputs: Sequence[Path], channels: int) -> list[Case]:
    """Return the cases that ``inputs`` hold, in order.

    An input is an image file, a folder of them, a folder of one DICOM series or of such folders, or a data set (its
    ``imagesTr``). Where the model takes several ``channels``, files are grouped by the channel number their names end
    in; otherwise ``_0000`` is taken off the name, and every file is a case. A file named outright is taken even if it
    cannot be read, so that the error names it later. Raises :class:`UserError` for a missing or empty input and for a
    missing channel.
    """
    if not inputs:
        raise UserError("nothing to predict; name image files or folders")
    loose: list[Path] = []
    cases: list[Case] = []
    for path in map(Path, inputs):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.name in ("", ".."):
            path = path.resolve()  # the case is named after it
        if path.is_dir():
            cases += _group(_in_folder(path), channels)
        else:
            loose.append(path)
    return cases + _group(loose, channels)


def output_path(case: Case, output: Path) -> Path:
    """Return the file that a case's prediction is written to: ``output/CASE.ext`` in the input's family of formats."""
    return Path(output) / f"{case.id}{output_ending(ending_of(case.images[0]))}"


def check_outputs(cases: Sequence[Case], output: Path) -> None:
    """Raise :class:`UserError` where two cases would be written to one file, or a prediction over its own input."""
    seen: dict[str, Path] = {}
    sources = {image.resolve() for case in cases for image in case.images}
    for case in cases:
        target = output_path(case, output)
        if target.resolve() in sources:
            raise UserError(f"{target}: is an input and would be written over; choose another --output")
        first = case.images[0]
        if case.id in seen:
            raise UserError(
                f"{first}: {seen[case.id]} has the same name, so {target} would be both; predict them apart"
            )
        seen[case.id] = first


def _in_folder(folder: Path) -> list[Path]:
    if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir():
        folder = folder / "imagesTr"
    entries = visible_in(folder)
    images = [p for p in entries if p.is_file() and ending_of(p)]
    series = [p for p in entries if p.is_dir() and _holds_dicom(p)]
    if images or series:
        return sorted(images + series)
    if dicom_series(folder):
        return [folder]
    raise UserError(f"{folder}: holds no image ({', '.join(ENDINGS)}) and no DICOM series; name another folder")


def _holds_dicom(folder: Path) -> bool:
    # Looking into a few files is enough, and much faster than sorting a series of thousands.
    files = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("."))
    return any(_is_dicom(path) for path, _ in zip(files, range(8), strict=False))


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def _group(paths: list[Path], channels: int) -> list[Case]:
    matches = [match for path in paths if (match := _CHANNEL.match(stem_of(path)))]
    pictures = all(ending_of(path) in PICTURES for path in paths)
    numbers = {int(match["channel"]) for match in matches}
    # Frames of a video are numbered too, and an RGB picture holds its channels itself.
    apart = pictures and numbers != set(range(channels))
    unnumbered = next((path for path in paths if not _CHANNEL.match(stem_of(path))), None)
    if channels > 1 and matches and unnumbered is not None and not pictures:
        raise UserError(
            f"{unnumbered}: no channel number, unlike files beside it; the model takes {channels} channels: name them "
            "CASE_0000, CASE_0001 and so on"
        )
    if channels == 1 or apart or unnumbered is not None:
        return [case_from_files(_name(path), [path]) for path in paths]
    groups: dict[tuple[Path, str], dict[int, Path]] = {}
    for path, match in zip(paths, matches, strict=True):
        found = groups.setdefault((path.parent, match["case"]), {})
        number = int(match["channel"])
        if number in found:
            raise UserError(f"{path}: {found[number].name} is the same channel of the same case; leave one")
        found[number] = path
    for (folder, name), found in groups.items():
        if sorted(found) != list(range(channels)):
            lacking = next((i for i in range(channels) if i not in found), channels)
            raise UserError(
                f"{folder / f'{name}_{lacking:04d}'}: missing or too many; the model takes {channels} channels, "
                "numbered from 0000"
            )
    return [case_from_files(name, [found[i] for i in sorted(found)]) for (_, name), found in groups.items()]


def _name(path: Path) -> str:
    """Return the case that one file is: its name without ``_0000``, unless ``_0001`` beside it tells of a sequence.

    The files named beside it do not matter, so that a case keeps its name whatever else is predicted with it.
    """
    stem = stem_of(path)
    match = _CHANNEL.match(stem)
    if not match or int(match["channel"]) or path.with_name(f"{match['case']}_0001{path.name[len(stem) :]}").exists():
        return stem
    return match["case"]
