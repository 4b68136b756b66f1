"""ISIC 2018 task 1 (dermoscopy, lesions), as the challenge gives it.

``ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg`` with
``ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png``, and the same for ``Validation`` and ``Test``.
"""

from functools import partial
from pathlib import Path

from semialign.common.errors import UserError
from semialign.data.formats import PICTURES
from semialign.data.importers.base import (
    FoundCase,
    LoadedCase,
    Published,
    by_stem,
    common_ending,
    image_files,
    plural,
)
from semialign.data.importers.readers import read_mask

_OTHERS = ("Validation", "Test")
_MASK = "_segmentation"
_KEPT = (".jpg", ".jpeg", ".png")


def recognise(source: Path) -> bool:
    """Whether ``source`` holds the folder of training images."""
    return bool(image_files(_input(source, "Training"), PICTURES))


def find(source: Path, *, test_images: bool = True) -> Published:
    """List the images; those without a mask become unlabelled cases.

    ``test_images``: take ``Validation`` and ``Test`` too, where they are.
    """
    pairs, notes = _pairs(source, "Training"), []
    for part in _OTHERS:
        more = _pairs(source, part)
        if more and test_images:
            pairs += more
            notes.append(f"{plural(len(more), 'image')} of {part} taken too; --no-test-images leaves them out")
    lacking = sum(mask is None for _, _, mask in pairs)
    if lacking:
        notes.append(f"{plural(lacking, 'image')} without a mask: unlabelled")
    cases = [FoundCase(case, image, partial(_load, image, mask)) for case, image, mask in pairs]
    ending = common_ending((image for _, image, _ in pairs), kept=_KEPT, otherwise=".png")
    labels = {"background": 0, "lesion": 1}
    return Published("ISIC-2018", ("R", "G", "B"), labels, cases, ending, ".png", notes=tuple(notes))


def _pairs(source: Path, part: str) -> list[tuple[str, Path, Path | None]]:
    """Case id, image and mask of every image of a part; a mask without image raises :class:`UserError`."""
    images = by_stem(image_files(_input(source, part), PICTURES))
    masks = by_stem(image_files(source / f"ISIC2018_Task1_{part}_GroundTruth", PICTURES))
    for name, path in masks.items():
        if not name.endswith(_MASK):
            raise UserError(f"{path}: not named as the challenge's masks (ISIC_0000000{_MASK}.png); move it")
        if name.removesuffix(_MASK) not in images:
            raise UserError(f"{path}: a mask without image in {_input(source, part).name}; add the image or move it")
    return [(case, path, masks.get(f"{case}{_MASK}")) for case, path in images.items()]


def _input(source: Path, part: str) -> Path:
    return source / f"ISIC2018_Task1-2_{part}_Input"


def _load(image: Path, mask: Path | None) -> LoadedCase:
    return LoadedCase((image,), None if mask is None else read_mask(mask, image=image))
