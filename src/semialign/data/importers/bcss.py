"""BCSS (Breast Cancer Semantic Segmentation, H&E histology): ``images/`` and ``masks/``, a PNG of one name in each.

Names such as ``TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png`` begin with the patient. A mask holds the codes of
the owners' ``meta/gtruth_codes.tsv`` (github.com/PathologyDataScience/BCSS): 0 outside of the region, 1 tumour, 2
stroma, 3 lymphocytic infiltrate, 4 necrosis or debris, 5 to 21 what is rare (blood, fat, plasma cells, ...), 21 being
"other". The rare ones become ``other``, which stands where other sets have background. Code 0 is "don't care", of zero
weight and "not an other class" by the owners' README: it becomes ``ignore``.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from semialign.common.errors import UserError
from semialign.data.formats import PICTURES, stem_of
from semialign.data.grid import difference
from semialign.data.image_io import read_grid, read_label
from semialign.data.importers.base import (
    FoundCase,
    LoadedCase,
    Published,
    by_stem,
    common_ending,
    image_files,
    plural,
)

LABELS = {"other": 0, "tumour": 1, "stroma": 2, "lymphocytic infiltrate": 3, "necrosis": 4, "ignore": 255}
_OUTSIDE, _LAST_KEPT, _LAST_CODE = 0, 4, 21
_IMAGES = ("images", "rgbs_colorNormalized")  # of the download script, of the owners' shared folder
_NAME = re.compile(r"TCGA-\w{2}-\w{4}")
_KEPT = (".png", ".jpg", ".jpeg")


def recognise(source: Path) -> bool:
    """Whether ``source`` has images and masks named after slides of TCGA."""
    folder = _folder(source)
    if folder is None or not (source / "masks").is_dir():
        return False
    return any(_NAME.match(stem_of(path)) for path in image_files(folder, PICTURES))


def find(source: Path) -> Published:
    """List the images; those without a mask become unlabelled cases."""
    folder = _folder(source)
    assert folder is not None
    images, masks = by_stem(image_files(folder, PICTURES)), by_stem(image_files(source / "masks", PICTURES))
    for name, path in images.items():
        if not _NAME.match(name):
            raise UserError(f"{path}: not named after a slide (TCGA-A1-A0SK-...); rename or move it")
    alone = sorted(set(masks) - set(images))
    if alone:
        raise UserError(f"{masks[alone[0]]}: a mask without image in {folder.name}; add the image or move the mask")
    notes = ["images are large: `picture_size: null` in the plan keeps their resolution, so that patches are cut"]
    lacking = len(images) - len(masks)
    notes += [f"{plural(lacking, 'image')} without a mask: unlabelled"] if lacking else []
    cases = [FoundCase(name, path, partial(_load, path, masks.get(name))) for name, path in images.items()]
    ending = common_ending(images.values(), kept=_KEPT, otherwise=".png")
    colours, patient = ("R", "G", "B"), _NAME.pattern
    return Published("BCSS", colours, LABELS, cases, ending, ".png", notes=tuple(notes), group_by=patient)


def _load(image: Path, mask: Path | None) -> LoadedCase:
    return LoadedCase((image,), None if mask is None else _read_codes(mask, image))


def _read_codes(path: Path, image: Path) -> np.ndarray:
    codes, grid = read_label(path)
    apart = difference(grid, read_grid(image))
    if apart:
        raise UserError(f"{path}: {apart} as {image.name} has; mend or remove the mask")
    largest = int(codes.max())
    if largest > _LAST_CODE:
        raise UserError(f"{path}: code {largest} is none of BCSS's 0 to {_LAST_CODE}; copy the mask again")
    label = np.where(codes <= _LAST_KEPT, codes, LABELS["other"]).astype(np.uint8)
    label[codes == _OUTSIDE] = LABELS["ignore"]
    return label


def _folder(source: Path) -> Path | None:
    return next((source / name for name in _IMAGES if (source / name).is_dir()), None)
