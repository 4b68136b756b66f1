"""Medical Segmentation Decathlon: one task's folder.

``dataset.json`` lists every file: ``training`` (image and label), ``test`` (image only, taken as unlabelled cases) and,
in sets of the same form such as AMOS, ``validation``. Images of several channels are 4D and become a file a channel.
"""

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data.formats import NIFTI, stem_of
from semialign.data.grid import Grid, Image
from semialign.data.importers.base import (
    CARRIED,
    FoundCase,
    LoadedCase,
    Published,
    by_stem,
    common_ending,
    found_files,
    image_files,
    plural,
)


def recognise(source: Path) -> bool:
    """Whether ``source/dataset.json`` lists its training files by their own names (nnU-Net's adds ``_0000``)."""
    if not (source / "dataset.json").is_file():
        return False
    described = read_json(source / "dataset.json")
    if not isinstance(described, dict) or not isinstance(described.get("training"), list):
        return False
    listed = [source / path for path in map(_image_name, described["training"]) if path]
    channel = [path.with_name(f"{stem_of(path)}_0000.nii.gz") for path in listed]
    return bool(listed) and (any(p.is_file() for p in listed) or not any(p.is_file() for p in channel))


def find(source: Path, *, test_images: bool = True) -> Published:
    """List a task's cases; ``test_images``: take the unlabelled test images as unlabelled cases."""
    about = source / "dataset.json"
    described = read_json(about)
    channels, labels = _channels(about, described), _labels(about, described)
    files = _listed(source, described, "training") | _listed(source, described, "validation")
    notes = []
    more = {i: p for i, p in by_stem(image_files(source / "imagesTr", NIFTI)).items() if p not in _images(files)}
    if more:
        found = by_stem(image_files(source / "labelsTr", NIFTI))
        files |= {case: (path, found.get(case)) for case, path in more.items()}
        notes.append(f"imagesTr holds {plural(len(more), 'image')} that dataset.json does not list; taken too")
    lacking = sum(label is None for _, label in files.values())
    if lacking:
        notes.append(f"{plural(lacking, 'case')} of imagesTr without a label file: unlabelled")
    tests = _listed(source, described, "test") if test_images else {}
    if tests and not (source / "imagesTs").is_dir():
        notes.append(f"imagesTs is missing: {plural(len(tests), 'test image')} left out")
        tests = {}
    if tests:
        notes.append(
            f"{plural(len(tests), 'test image')} taken as unlabelled; import with --no-test-images to score on them"
        )
    doubled = sorted(set(files) & set(tests))
    if doubled:
        raise UserError(f"{tests[doubled[0]][0]}: a training case has the same id; rename one of the two")
    files |= tests
    ending = common_ending(sorted(_images(files)), kept=NIFTI, otherwise=".nii.gz")
    cases = [_found(case, image, label, len(channels)) for case, (image, label) in sorted(files.items())]
    extra = {key: described[key] for key in CARRIED if isinstance(described.get(key), str)}
    name = str(described.get("name") or source.name)
    return Published(name, channels, labels, cases, ending, extra=extra, notes=tuple(notes))


def _found(case: str, image: Path, label: Path | None, channels: int) -> FoundCase:
    if not image.is_file():
        raise UserError(f"{image}: named in dataset.json but missing; copy it again or take its entry out")
    if channels == 1:
        return found_files(case, (image,), label)
    return FoundCase(case, image, partial(_split_channels, image, label, channels))


def _split_channels(path: Path, label: Path | None, channels: int) -> LoadedCase:
    import nibabel

    try:
        nifti: Any = nibabel.load(path)
        kind, scale = nifti.dataobj.dtype, (nifti.dataobj.slope, nifti.dataobj.inter)
        whole = kind.kind in "iu" and scale == (1.0, 0.0)
        array = np.asarray(nifti.dataobj.get_unscaled() if whole else np.asarray(nifti.dataobj, np.float32))
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise UserError(f"{path}: not a readable NIfTI image, truncated or damaged; copy it again") from error
    array = array.reshape(array.shape + (1,) * (4 - array.ndim)) if array.ndim < 4 else array
    if array.ndim != 4 or array.shape[3] != channels:
        shape = " x ".join(map(str, array.shape))
        raise UserError(f"{path}: size {shape}, but dataset.json names {channels} modalities (the fourth axis)")
    grid = Grid(tuple(array.shape[:3]), np.asarray(nifti.affine, float))
    return LoadedCase(tuple(Image(array[None, ..., c], grid, ".nii.gz") for c in range(channels)), label)


def _listed(source: Path, described: dict[str, Any], part: str) -> dict[str, tuple[Path, Path | None]]:
    """Case ids of one list of ``dataset.json`` with image and, if its file is there, label."""
    files: dict[str, tuple[Path, Path | None]] = {}
    entries = described.get(part) or []
    for entry in entries if isinstance(entries, list) else []:
        name = _image_name(entry)
        if name is None:
            raise UserError(f'{source / "dataset.json"}: an entry of "{part}" names no image: {entry!r}')
        label = source / entry["label"] if isinstance(entry, dict) and isinstance(entry.get("label"), str) else None
        image = source / name
        if stem_of(image) in files:
            raise UserError(f'{source / "dataset.json"}: "{part}" lists {stem_of(image)} twice; take one entry out')
        files[stem_of(image)] = (image, label if label is not None and label.is_file() else None)
    return files


def _images(files: dict[str, tuple[Path, Path | None]]) -> set[Path]:
    return {image for image, _ in files.values()}


def _image_name(entry: Any) -> str | None:
    name = entry.get("image") if isinstance(entry, dict) else entry
    return name if isinstance(name, str) else None


def _channels(about: Path, described: dict[str, Any]) -> tuple[str, ...]:
    names = described.get("modality")
    if not isinstance(names, dict) or not names or not all(str(key).isdigit() for key in names):
        raise UserError(f'{about}: "modality" is missing; the Decathlon writes for example {{"0": "CT"}}')
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _labels(about: Path, described: dict[str, Any]) -> dict[str, int]:
    labels = described.get("labels")
    if not isinstance(labels, dict) or not labels or not all(str(key).isdigit() for key in labels):
        raise UserError(
            f'{about}: "labels" is missing; the Decathlon writes for example {{"0": "background", "1": "liver"}}'
        )
    names = {str(name): int(value) for value, name in labels.items()}
    if len(names) != len(labels):
        raise UserError(f'{about}: two "labels" have one name; give each class a name of its own')
    return names
