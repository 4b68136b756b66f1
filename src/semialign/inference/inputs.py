"""What to predict: files, folders of images, DICOM folders and data sets, grouped into cases."""

import re
from collections.abc import Sequence
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import visible_in
from semialign.data.dataset import Case, case_from_files, load_dataset
from semialign.data.formats import ENDINGS, PICTURES, ending_of, holds_dicom, output_ending, stem_of
from semialign.data.itk_io import dicom_series

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})$")


def find_cases(inputs: Sequence[Path | Case], channels: int) -> list[Case]:
    """Return the cases that ``inputs`` hold, in order.

    An input is an image file, a folder of them, a folder of one DICOM series or of such folders, a data set (its
    ``imagesTr``), or a case, which is taken as it is. Where the model takes several ``channels``, files and series are
    grouped by the channel number their names end in; otherwise ``_0000`` is taken off the name, and every file is a
    case. A file named outright is taken even if it cannot be read, so that the error names it later. Raises
    :class:`UserError` for a missing or empty input and for a missing channel.
    """
    if not inputs:
        raise UserError("nothing to predict; name image files or folders")
    loose: list[Path] = []
    cases: list[Case] = []
    for given in inputs:
        if isinstance(given, Case):
            cases.append(given)
            continue
        path = Path(given)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.name in ("", ".."):
            path = path.resolve()  # the case is named after it
        found = _in_folder(path) if path.is_dir() else [path]
        if found == [path]:  # a file or a series; its other channels are named beside it
            loose.append(path)
        else:
            cases += _group(found, channels)
    return cases + _group(loose, channels)


def require_channel_order(inputs: Sequence[Path | Case], names: Sequence[str]) -> None:
    """Raise :class:`UserError` for a data set that numbers the channels ``names`` in another order."""
    for folder in (Path(given) for given in inputs if not isinstance(given, Case)):
        if not (folder / "dataset.json").is_file() or not (folder / "imagesTr").is_dir():
            continue
        try:
            own = load_dataset(folder).channel_names
        except UserError:
            continue  # labels or other cases, which do not matter here
        if list(own) != list(names) and sorted(own) == sorted(names):
            raise UserError(
                f"{folder / 'dataset.json'}: its channels are {', '.join(own)}, the model's {', '.join(names)}; number "
                "the files as the model has them"
            )


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
    series = [p for p in entries if p.is_dir() and holds_dicom(p)]
    if images or series:
        return sorted(images + series)
    if dicom_series(folder):
        return [folder]
    raise UserError(f"{folder}: holds no image ({', '.join(ENDINGS)}) and no DICOM series; name another folder")


def _group(paths: list[Path], channels: int) -> list[Case]:
    matches = [match for path in paths if (match := _CHANNEL.match(stem_of(path)))]
    pictures = all(ending_of(path) in PICTURES for path in paths)
    numbers = {int(match["channel"]) for match in matches}
    # Frames of a video are numbered too, and an RGB picture holds its channels itself.
    apart = pictures and (numbers != set(range(channels)) or _coloured(paths[0]))
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


def _coloured(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return len(picture.getbands()) >= 3
    except (OSError, UnidentifiedImageError):
        return False  # the reader will say what is wrong


def _name(path: Path) -> str:
    """Return the case that one file is: its name without ``_0000``, unless ``_0001`` beside it tells of a sequence.

    The files named beside it do not matter, so that a case keeps its name whatever else is predicted with it.
    """
    stem = stem_of(path)
    match = _CHANNEL.match(stem)
    if not match or int(match["channel"]) or path.with_name(f"{match['case']}_0001{path.name[len(stem) :]}").exists():
        return stem
    return match["case"]
