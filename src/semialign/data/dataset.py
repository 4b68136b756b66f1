"""The raw data set: nnU-Net's folder layout, where a case without a label file is an unlabelled case.

``dataset.json``, ``imagesTr/CASE_0000.ext`` (one file or DICOM folder a channel, or one RGB picture) and
``labelsTr/CASE.ext``. Only names are looked at here; no label file is opened.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import read_json, visible_in
from semialign.data.formats import DICOM, ENDINGS, PICTURES, ending_of, holds_dicom, stem_of
from semialign.data.grid import Grid, Image, difference
from semialign.data.image_io import read_image

_NOTES = ("", ".txt", ".json", ".csv", ".raw", ".md")  # what may lie beside the images
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})$")


@dataclass(frozen=True)
class Case:
    """One scan: its id, its image files (one a channel, or one RGB picture) and its label file, if it has one."""

    id: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A raw data set as its ``dataset.json`` and folders describe it.

    ``labels`` maps class names to values 0..C-1, background first; ``ignore`` is the value of voxels nobody annotated.
    """

    root: Path
    name: str
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    ignore: int | None
    cases: dict[str, Case]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.labels)

    @property
    def class_names(self) -> list[str]:
        """Class names by value, background first."""
        return sorted(self.labels, key=lambda name: self.labels[name])

    @cached_property
    def with_label(self) -> list[str]:
        """Ids of the cases that have a label file."""
        return [case.id for case in self.cases.values() if case.label is not None]


def load_dataset(root: Path) -> Dataset:
    """Read ``root/dataset.json`` and list the cases; opens no image and no label.

    Raises :class:`UserError` for a missing or broken ``dataset.json``, a missing channel, a label without image.
    """
    root = Path(root)
    if root.is_file():
        raise UserError(f"{root}: a file, but a data set folder is wanted")
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    about = root / "dataset.json"
    if not about.exists():
        raise UserError(f"{about}: missing; it names channels and labels (see docs/reference/dataset-layout.md)")
    described = read_json(about)
    if not isinstance(described, dict):
        raise UserError(f"{about}: must hold an object with channel_names and labels")
    channels = _channel_names(about, described)
    labels, ignore = labels_described(about, described)
    cases = _cases(root, channels, described)
    return Dataset(root, str(described.get("name", root.name)), channels, labels, ignore, cases)


def read_case(case: Case, channels: int) -> Image:
    """Read all channels of a case into one (C, *S) array.

    Raises :class:`UserError` where channels differ in grid, their number is not ``channels``, or a voxel is not finite.
    """
    images = [read_image(path) for path in case.images]
    for path, image in zip(case.images[1:], images[1:], strict=True):
        apart = difference(image.grid, images[0].grid)
        if apart:
            raise UserError(f"{path}: {apart} as in {case.images[0].name}; all channels of a case need one grid")
    array = images[0].array if len(images) == 1 else np.concatenate([i.array for i in images])
    if len(array) != channels:
        # A grey picture saved as RGB, and the other way round, are common and harmless; a missing scan is neither.
        if len(array) == 3 and channels == 1:
            array = array.mean(0, keepdims=True, dtype=np.float32)
        elif len(array) == 1 and channels == 3 and images[0].grid.picture:
            array = np.repeat(array, 3, axis=0)
        else:
            of = f"{len(array)} channel{'s' if len(array) > 1 else ''}"
            raise UserError(f"{case.images[0]}: {of} where {channels} are due; give a file per channel, _0000, ...")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise UserError(f"{case.images[0]}: {bad} voxels are NaN or infinite; replace them before use")
    return Image(array, images[0].grid, images[0].ending)


def case_from_files(case_id: str, paths: list[Path]) -> Case:
    """Return an unlabelled :class:`Case` of loose image files, as prediction takes them."""
    return Case(case_id, tuple(Path(p) for p in paths), None)


def check_label(path: Path, label: np.ndarray, grid: Grid, image: Grid, dataset: Dataset) -> None:
    """Raise :class:`UserError` where a label does not fit its image or holds a value ``dataset.json`` lacks."""
    apart = difference(grid, image)
    if apart:
        raise UserError(f"{path}: label has {apart}, unlike its image; resample the label to the image's grid")
    known = set(dataset.labels.values()) | ({dataset.ignore} if dataset.ignore is not None else set())
    strange = sorted({int(value) for value in np.unique(label)} - known)
    if strange:
        raise UserError(
            f"{path}: label value {strange[0]} is not in dataset.json (known: {sorted(known)}); "
            "correct the file or add the class"
        )


def _channel_names(about: Path, described: dict[str, Any]) -> tuple[str, ...]:
    names = described.get("channel_names", described.get("modality"))
    if not isinstance(names, dict) or not names:
        raise UserError(f'{about}: "channel_names" is missing; write for example {{"0": "CT"}}')
    try:
        order = sorted(names, key=int)
    except ValueError as error:
        raise UserError(f'{about}: "channel_names" must be numbered "0", "1", ...') from error
    return tuple(str(names[key]) for key in order)


def labels_described(about: Path, described: dict[str, Any]) -> tuple[dict[str, int], int | None]:
    """Return class names to values, and the ignore value, of a ``dataset.json``; ``about`` names it in errors."""
    labels = described.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise UserError(f'{about}: "labels" is missing; write for example {{"background": 0, "liver": 1}}')
    if all(isinstance(v, str) for v in labels.values()) and all(str(k).isdecimal() for k in labels):
        labels = {name: int(value) for value, name in labels.items()}  # the Decathlon's way round
    for name, value in labels.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f'{about}: label "{name}" must be one whole number, not {value!r}')
    ignore = labels.get("ignore")
    classes = {name: value for name, value in labels.items() if name != "ignore"}
    if ignore in classes.values():
        raise UserError(f'{about}: label "ignore" has the value {ignore} of a class; give it one of its own')
    if sorted(classes.values()) != list(range(len(classes))) or len(classes) < 2:
        raise UserError(f'{about}: "labels" must number the classes 0 (background), 1, 2, ... without gaps')
    return classes, ignore


def _cases(root: Path, channels: tuple[str, ...], described: dict[str, Any]) -> dict[str, Case]:
    images_folder, labels_folder = root / "imagesTr", root / "labelsTr"
    if not images_folder.is_dir():
        found = "a file" if images_folder.exists() else "missing"
        raise UserError(f"{images_folder}: {found}; the images of a data set stand in this folder as CASE_0000.nii.gz")
    wanted = str(described.get("image_file_ending", described.get("file_ending")) or "").lower()
    wanted = f".{wanted}" if wanted and not wanted.startswith(".") else wanted
    if wanted and wanted not in (*ENDINGS, f".{DICOM}", ".dcm"):
        raise UserError(f"{root / 'dataset.json'}: file_ending {wanted} is none of {', '.join(ENDINGS)}")
    files: dict[str, dict[int, Path]] = {}
    for path in _image_files(images_folder, wanted):
        match = _CHANNEL.match(stem_of(path))
        if not match:
            raise UserError(f"{path}: name must end in a channel number, such as {stem_of(path)}_0000")
        channel = files.setdefault(match["case"], {})
        other = channel.setdefault(int(match["channel"]), path)
        if other != path:
            raise UserError(f"{path}: the same channel of the same case as {other.name}; move one of them")
    if not files:
        raise UserError(f"{images_folder}: no images; they stand there as CASE_0000{wanted or '.nii.gz'}")
    labels = _label_files(labels_folder)
    unknown = sorted(set(labels) - set(files))
    if unknown:
        path, case = labels[unknown[0]], _CHANNEL.match(unknown[0])
        if case and case["case"] in files:
            raise UserError(
                f"{path}: a label's name has no channel number; rename it to {case['case']}{ending_of(path)}"
            )
        raise UserError(f"{path}: a label without image; add {unknown[0]}_0000 to imagesTr or move it")
    cases = {
        name: Case(name, _in_order(images_folder / name, found, channels), labels.get(name))
        for name, found in sorted(files.items())
    }
    several = next((case for case in cases.values() if len(case.images) > 1), None)
    alone = next((case for case in cases.values() if len(case.images) == 1), None)
    if several is not None and alone is not None:  # grey, it would be read as coloured
        raise UserError(
            f"{alone.images[0]}: one file where case {several.id} has {len(several.images)}; add its other channels"
        )
    return cases


def _image_files(folder: Path, wanted: str) -> list[Path]:
    paths = []
    for path in visible_in(folder):
        ending = ending_of(path)
        if not ending or (wanted in ENDINGS and ending not in (DICOM, wanted)):
            if ending or path.suffix.lower() not in _NOTES:
                kind = f"a {wanted} file, as dataset.json says" if wanted else "an image file semialign reads"
                raise UserError(f"{path}: not {kind}; move it")
            continue
        paths.append(path)
    return paths


def _in_order(case: Path, found: dict[int, Path], channels: tuple[str, ...]) -> tuple[Path, ...]:
    count = f"dataset.json names {len(channels)} channel{'s' if len(channels) > 1 else ''}"
    for channel, path in sorted(found.items()):
        if channel >= len(channels):
            raise UserError(f"{path}: one channel too many; {count}, numbered from 0; add it there or move the file")
    # One picture may hold all channels (RGB), so a single file is left to read_case to judge.
    if sorted(found) == [0] and ending_of(found[0]) in PICTURES:
        return (found[0],)
    for channel in range(len(channels)):
        if channel not in found:
            ending = ending_of(next(iter(found.values())))
            ending = "" if ending == DICOM else ending
            raise UserError(f"{case}_{channel:04d}{ending}: missing; {count}, one file each; add the file")
    return tuple(found[i] for i in range(len(found)))


def _label_files(folder: Path) -> dict[str, Path]:
    if folder.is_file():
        raise UserError(f"{folder}: a file, but a folder of labels is wanted")
    labels: dict[str, Path] = {}
    for path in visible_in(folder) if folder.exists() else []:
        ending = ending_of(path)
        if ending in ("", DICOM):
            if path.is_dir() and holds_dicom(path):
                raise UserError(f"{path}: a DICOM folder; labels are read as {', '.join(ENDINGS)}: convert it")
            if path.suffix.lower() not in _NOTES:
                raise UserError(f"{path}: not a label file semialign reads ({', '.join(ENDINGS)}); convert or move it")
            continue
        other = labels.setdefault(stem_of(path), path)
        if other != path:
            raise UserError(f"{path}: a second label of the case of {other.name}; move one of them")
    return labels
