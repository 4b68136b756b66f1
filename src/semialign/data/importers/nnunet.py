"""nnU-Net's raw data sets: version 2 (``Dataset001_X``) and version 1 (``Task001_X``, numbered labels).

``imagesTr`` and ``labelsTr`` are this project's own layout; ``imagesTs`` and folders of further images (``imagesUn``,
``unlabelled``, ...) become unlabelled cases beside them.
"""

import re
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import read_json, visible_in
from semialign.data.dataset import load_dataset
from semialign.data.formats import DICOM, ENDINGS, ending_of, output_ending, stem_of
from semialign.data.importers.base import (
    CARRIED,
    FoundCase,
    Published,
    common_ending,
    found_files,
    image_files,
    plural,
)

_FURTHER = ("imagesUn", "imagesUl", "imagesUnlabelled", "imagesUnlabeled", "unlabelled", "unlabeled")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})$")


def recognise(source: Path) -> bool:
    """Whether ``source`` has a ``dataset.json`` and its images end in a channel number, unlike the Decathlon's."""
    if not (source / "dataset.json").is_file():
        return False
    described = read_json(source / "dataset.json")
    if not isinstance(described, dict):
        return False
    listed = described.get("training")
    first = listed[0].get("image") if isinstance(listed, list) and listed and isinstance(listed[0], dict) else None
    if isinstance(first, str) and (source / first).is_file():
        return False
    return any(_CHANNEL.match(stem_of(path)) for path in _images(source / "imagesTr"))


def find(source: Path, *, test_images: bool = True) -> Published:
    """List the cases; ``test_images``: take ``imagesTs`` as unlabelled cases."""
    about = source / "dataset.json"
    described = read_json(about)
    _refuse(about, described)
    dataset = load_dataset(source)
    cases = [found_files(case.id, case.images, case.label) for case in dataset.cases.values()]
    notes: list[str] = []
    for folder in (*(["imagesTs"] if test_images else []), *_FURTHER):
        more = _unlabelled(source / folder, len(dataset.channel_names))
        cases += more
        if more:
            hint = "; import with --no-test-images to score on them" if folder == "imagesTs" else ""
            notes.append(f"{plural(len(more), 'case')} of {folder} taken as unlabelled{hint}")
    labels = dataset.labels | ({} if dataset.ignore is None else {"ignore": dataset.ignore})
    extra = {key: described[key] for key in CARRIED if isinstance(described.get(key), str)}
    images, masks = _endings(source, described, [case.origin for case in cases])
    cases.sort(key=lambda case: case.id)
    return Published(dataset.name, dataset.channel_names, labels, cases, images, masks, extra, tuple(notes))


def _refuse(about: Path, described: dict[str, Any]) -> None:
    labels = described.get("labels")
    for name, value in labels.items() if isinstance(labels, dict) else []:
        if isinstance(value, list):
            raise UserError(
                f'{about}: label "{name}" is a region of classes {value} (region-based training); '
                'semialign takes one number a class: write the classes themselves, such as "oedema": 1'
            )
    for key in ("file_ending", "image_file_ending"):
        if key in described and str(described[key]).lower() not in ENDINGS:
            raise UserError(f'{about}: "{key}" {described[key]} is no format semialign reads ({", ".join(ENDINGS)})')


def _unlabelled(folder: Path, channels: int) -> list[FoundCase]:
    files: dict[str, dict[int, Path]] = {}
    for path in _images(folder):
        match = _CHANNEL.match(stem_of(path))
        if not match:
            raise UserError(f"{path}: name must end in a channel number, such as {stem_of(path)}_0000")
        files.setdefault(match["case"], {})[int(match["channel"])] = path
    for case, found in files.items():
        if sorted(found) not in ([0], list(range(channels))):
            raise UserError(f"{folder / case}: has channels {sorted(found)}, but dataset.json names {channels}")
    return [found_files(case, tuple(found[c] for c in sorted(found))) for case, found in files.items()]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in visible_in(folder) if ending_of(path)]


def _endings(source: Path, described: dict[str, Any], images: list[Path]) -> tuple[str, str]:
    """Endings of images and labels: as ``dataset.json`` says, else as the files are."""
    said = described.get("file_ending")
    image = described.get("image_file_ending", said)
    if image is None:
        image = common_ending((p for p in images if ending_of(p) != DICOM), kept=ENDINGS, otherwise=".nii.gz")
    if said is None:
        said = common_ending(image_files(source / "labelsTr"), kept=ENDINGS, otherwise=output_ending(str(image)))
    return str(image).lower(), str(said).lower()
