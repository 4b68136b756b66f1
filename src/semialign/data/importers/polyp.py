"""Polyp sets in the form of Kvasir-SEG, CVC-ClinicDB and CVC-300: a folder of images, one of masks, equal names.

``images/`` and ``masks/`` (Kvasir-SEG; CVC-300 and others as PraNet gives them), ``Original/`` and ``Ground Truth/``
(CVC-ClinicDB), ``bbdd/`` and ``gtpolyp/`` (CVC-300 and CVC-612 of CVC-EndoSceneStill).

Masks saved as JPEG are grey at their edges and are cut at half of the range. JPEG and PNG images are copied unchanged;
TIFF, BMP and mixed sets become PNG.
"""

from functools import partial
from pathlib import Path

from semialign.common.errors import UserError
from semialign.data.formats import PICTURES
from semialign.data.importers import bcss
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

_FOLDERS = (
    ("images", "masks"),
    ("image", "masks"),
    ("image", "mask"),
    ("original", "ground truth"),
    ("bbdd", "gtpolyp"),
)
KEPT = (".jpg", ".jpeg", ".png")
LABELS = {"background": 0, "polyp": 1}


def recognise(source: Path) -> bool:
    """Whether ``source`` has a folder of pictures and one of masks under the published names; BCSS is another form."""
    folders = _folders(source)
    return folders is not None and bool(image_files(folders[0], PICTURES)) and not bcss.recognise(source)


def find(source: Path) -> Published:
    """List the images; those without a mask become unlabelled cases."""
    folders = _folders(source)
    if folders is None:
        raise UserError(f"{source}: no folders images/ and masks/")
    images = by_stem(image_files(folders[0], PICTURES))
    masks = by_stem(image_files(folders[1], PICTURES))
    alone = sorted(set(masks) - set(images))
    if alone:
        raise UserError(f"{masks[alone[0]]}: a mask without image in {folders[0].name}; add the image or move the mask")
    lacking = len(images) - len(masks)
    notes = (f"{plural(lacking, 'image')} without a mask: unlabelled",) if lacking else ()
    cases = [FoundCase(case, path, partial(_load, path, masks.get(case))) for case, path in images.items()]
    ending = common_ending(images.values(), kept=KEPT, otherwise=".png")
    return Published(source.resolve().name, ("R", "G", "B"), LABELS, cases, ending, ".png", notes=notes)


def _load(path: Path, mask: Path | None) -> LoadedCase:
    return LoadedCase((path,), None if mask is None else read_mask(mask, image=path))


def _folders(source: Path) -> tuple[Path, Path] | None:
    named = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    return next(((named[i], named[m]) for i, m in _FOLDERS if i in named and m in named), None)
