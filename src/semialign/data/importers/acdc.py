"""ACDC (cardiac cine MRI, two phases a patient), in two published forms.

SSL4MIS: ``data/patient001_frame01.h5`` (image and label, slice first) and
``data/slices/patient001_frame01_slice_1.h5``; whole volumes where they are, stacked slices for the other cases.
Intensities lie in [0, 1] and are stored x 4095 as 16-bit numbers. The true spacing is lost in this form: 1.5 x 1.5 x
10 mm is written, near the set's average.

The owners': ``training/patient001/patient001_frame01.nii.gz`` with ``..._gt.nii.gz``, and ``testing/`` likewise.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from semialign.common.errors import UserError
from semialign.data.formats import NIFTI, stem_of
from semialign.data.grid import Grid, Image
from semialign.data.importers.base import (
    FoundCase,
    LoadedCase,
    Published,
    by_stem,
    common_ending,
    found_files,
    image_files,
    plural,
)
from semialign.data.importers.readers import as_int16, read_h5

SPACING = (1.5, 1.5, 10.0)
_SCALE = 4095.0
_LABELS = {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}
_VOLUME = re.compile(r"patient\d+_frame\d+$")
_SLICE = re.compile(r"(?P<case>patient\d+_frame\d+)_slice_(?P<number>\d+)$")
_GROUP_BY = r"patient\d+"


def recognise(source: Path) -> bool:
    """Whether ``source`` holds SSL4MIS's h5 files or the owners' patient folders."""
    return bool(_h5_folder(source) or _patients(source))


def find(source: Path, *, spacing: tuple[float, float, float] | None = None, test_images: bool = True) -> Published:
    """List the cases; ``spacing`` in mm for the h5 form, ``test_images``: take the owners' ``testing/`` too."""
    folder = _h5_folder(source)
    if folder is None:
        if spacing is not None:
            raise UserError(f"{source}: these NIfTI files carry their own spacing; leave out --spacing")
        return _owners(source, test_images)
    if spacing is not None and (len(spacing) != 3 or not all(0 < s < float("inf") for s in spacing)):
        raise UserError(f"--spacing {spacing}: three lengths in mm above zero, such as 1.5 1.5 10")
    grid = np.diag([*(spacing or SPACING), 1.0])
    volumes = {path.stem: path for path in _h5(folder) if _VOLUME.match(path.stem)}
    cases = [FoundCase(case, path, partial(_load_volume, path, grid)) for case, path in volumes.items()]
    stacks = {case: paths for case, paths in _slices(folder / "slices").items() if case not in volumes}
    cases += [FoundCase(case, paths[0], partial(_load_stack, paths, grid)) for case, paths in stacks.items()]
    unknown = "true spacing unknown in this form: 1.5 x 1.5 x 10 mm written (--spacing gives another)"
    notes = [] if spacing else [unknown]
    if stacks:
        notes.append(f"{plural(len(stacks), 'volume')} stacked from slices")
    cases.sort(key=lambda case: case.id)
    return Published("ACDC", ("MRI",), _LABELS, cases, notes=tuple(notes), group_by=_GROUP_BY)


def _load_volume(path: Path, affine: np.ndarray) -> LoadedCase:
    return _case(path, *read_h5(path, dimensions=3), affine)


def _load_stack(paths: list[Path], affine: np.ndarray) -> LoadedCase:
    slices = [read_h5(path, dimensions=2) for path in paths]
    for path, (image, label) in zip(paths, slices, strict=True):
        if image.shape != slices[0][0].shape:
            raise UserError(f"{path}: size {image.shape} instead of {slices[0][0].shape} as in {paths[0].name}")
        if (label is None) != (slices[0][1] is None):
            raise UserError(f"{path}: some slices of this volume have a label and some none; complete or remove it")
    labels = [label for _, label in slices if label is not None]
    return _case(paths[0], np.stack([image for image, _ in slices]), np.stack(labels) if labels else None, affine)


def _case(path: Path, image: np.ndarray, label: np.ndarray | None, affine: np.ndarray) -> LoadedCase:
    """Slice first, as stored, to slice last."""
    array = np.moveaxis(as_int16(path, image, _SCALE), 0, -1)
    grid = Grid(array.shape, affine)
    return LoadedCase((Image(array[None], grid, ".nii.gz"),), None if label is None else np.moveaxis(label, 0, -1))


def _slices(folder: Path) -> dict[str, list[Path]]:
    """The slice files of each volume, in order of slice; a gap raises :class:`UserError`."""
    numbered: dict[str, dict[int, Path]] = {}
    for path in _h5(folder):
        match = _SLICE.match(path.stem)
        if match:
            numbered.setdefault(match["case"], {})[int(match["number"])] = path
    for case, paths in numbered.items():
        first = min(*paths, 1)  # some copies count from 0
        lacking = [number for number in range(first, max(paths) + 1) if number not in paths]
        if lacking:
            raise UserError(f"{folder / case}_slice_{lacking[0]}.h5: missing between its neighbours; copy it again")
    return {case: [paths[number] for number in sorted(paths)] for case, paths in numbered.items()}


def _h5_folder(source: Path) -> Path | None:
    for folder in (source / "data", source):
        if _any(_h5(folder), _VOLUME) or _any(_h5(folder / "slices"), _SLICE):
            return folder
    return None


def _any(paths: list[Path], pattern: re.Pattern[str]) -> bool:
    return any(pattern.match(path.stem) for path in paths)


def _h5(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


def _patients(source: Path) -> list[Path]:
    folders = [source / "training", source / "testing", source]
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("patient*")) if path.is_dir()]
    return [path for path in found if _frames(path)]


def _frames(patient: Path) -> list[Path]:
    return [path for path in image_files(patient, NIFTI) if _VOLUME.match(stem_of(path))]


def _owners(source: Path, test_images: bool) -> Published:
    cases: list[FoundCase] = []
    frames: list[Path] = []
    tests = 0
    for patient in _patients(source):
        if patient.parent.name == "testing":
            if not test_images:
                continue
            tests += 1
        labels = by_stem(path for path in image_files(patient, NIFTI) if stem_of(path).endswith("_gt"))
        for case, path in by_stem(_frames(patient)).items():
            frames.append(path)
            cases.append(found_files(case, (path,), labels.get(f"{case}_gt")))
    notes = [f"{plural(tests, 'patient')} of testing/ taken too; --no-test-images leaves them out"] if tests else []
    ending = common_ending(frames, kept=NIFTI, otherwise=".nii.gz")
    cases.sort(key=lambda case: case.id)
    return Published("ACDC", ("MRI",), _LABELS, cases, ending, notes=tuple(notes), group_by=_GROUP_BY)
