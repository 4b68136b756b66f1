"""BUSI (breast ultrasound): ``benign/benign (4).png`` with ``benign (4)_mask.png``, ``benign (4)_mask_1.png``, ...

Masks come in several picture modes and an image may have several: they are joined. The grey pictures are stored as RGB
and become grey. ``normal`` pictures show no lesion and have empty masks; they are an option.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from semialign.common.errors import UserError
from semialign.data.formats import PICTURES, stem_of
from semialign.data.grid import Image
from semialign.data.image_io import read_image
from semialign.data.importers.base import FoundCase, LoadedCase, Published, image_files, plural
from semialign.data.importers.readers import read_mask, to_grey

_LESIONS = ("benign", "malignant")
_NAME = re.compile(r"(?P<kind>benign|malignant|normal) ?\((?P<number>\d+)\)(?P<mask>_mask(_\d+)?)?$", re.IGNORECASE)


def recognise(source: Path) -> bool:
    """Whether ``source/benign`` or ``source/malignant`` holds pictures named as BUSI's."""
    return any(_NAME.match(stem_of(path)) for kind in _LESIONS for path in image_files(source / kind, PICTURES))


def find(source: Path, *, normals: bool = False) -> Published:
    """List the images, ``benign (4)`` as ``benign_004``; ``normals``: take the pictures without lesion too."""
    cases, notes = [], []
    for kind in (*_LESIONS, "normal"):
        images, masks = _files(source / kind)
        if kind == "normal" and not normals:
            if images:
                notes.append(f"{plural(len(images), 'normal picture')} left out; --normals takes them, without lesion")
            continue
        cases += [
            FoundCase(f"{kind}_{number:03d}", path, partial(_load, path, masks.get(number, []), kind == "normal"))
            for number, path in sorted(images.items())
        ]
    labels = {"background": 0, "lesion": 1}
    return Published("BUSI", ("ultrasound",), labels, cases, ".png", ".png", notes=tuple(notes))


def _files(folder: Path) -> tuple[dict[int, Path], dict[int, list[Path]]]:
    images: dict[int, Path] = {}
    masks: dict[int, list[Path]] = {}
    for path in image_files(folder, PICTURES):
        match = _NAME.match(stem_of(path))
        if not match:
            raise UserError(
                f"{path}: not named as BUSI's pictures ('benign (1)', 'benign (1)_mask'); rename or move it"
            )
        number = int(match["number"])
        if match["mask"]:
            masks.setdefault(number, []).append(path)
        elif number in images:
            raise UserError(f"{path}: {images[number].name} has the same number; keep one of the two")
        else:
            images[number] = path
    alone = sorted(set(masks) - set(images))
    if alone:
        raise UserError(f"{masks[alone[0]][0]}: a mask without image; add the image or move the mask")
    return images, masks


def _load(path: Path, masks: list[Path], normal: bool) -> LoadedCase:
    picture = read_image(path)
    image = Image(to_grey(picture.array), picture.grid, ".png")
    # That a picture shows no lesion is known, with the owners' black mask or without it.
    label = np.zeros(picture.grid.shape, np.uint8) if normal else None
    for mask in masks:
        lesion = read_mask(mask, image=path)
        label = lesion if label is None else np.maximum(label, lesion)
    return LoadedCase((image,), label)
