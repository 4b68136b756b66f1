"""Synapse (BTCV, abdominal CT of 13 organs): ``RawData/Training/img/img0001.nii.gz`` and ``label/label0001.nii.gz``.

Files are known by their names, so that ``img``, ``label`` and ``Testing/img`` may lie in any folders below the source,
or all in one. An image without label (``Testing``) is an unlabelled case. Case ids are the numbers, as split lists
write them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from semialign.common.errors import UserError
from semialign.data.formats import NIFTI, ending_of, stem_of
from semialign.data.importers.base import Published, common_ending, found_files, plural

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
_NAME = re.compile(r"(?P<kind>img|label)(?P<number>\d{4})$")
_DEPTH = 4  # Abdomen/RawData/Training/img


def recognise(source: Path) -> bool:
    """Whether ``img0001.nii.gz`` or the like lies in ``source`` or some folder of it."""
    return any(stem_of(path).startswith("img") for path in _files(source))


def find(source: Path, *, test_images: bool = True) -> Published:
    """List the cases; ``test_images``: take the images without label (``Testing``) as unlabelled cases."""
    found: dict[str, dict[str, Path]] = {"img": {}, "label": {}}
    for path in _files(source):
        match = _NAME.match(stem_of(path))
        assert match is not None
        other = found[match["kind"]].setdefault(match["number"], path)
        if other is not path:
            raise UserError(f"{path}: {other} has the same name; keep one of the two")
    images, labels = found["img"], found["label"]
    alone = sorted(set(labels) - set(images))
    if alone:
        raise UserError(f"{labels[alone[0]]}: a label without image; add img{alone[0]} or move it")
    bare = sorted(set(images) - set(labels))
    notes = ["published splits by name: --split synapse-ga-20p, synapse-ga-10p or synapse-ad-20p"]
    if bare:
        what = f"{plural(len(bare), 'image')} without label"
        notes.append(
            f"{what} taken as unlabelled; --no-test-images leaves them out" if test_images else f"{what} left out"
        )
    cases = [found_files(n, (images[n],), labels.get(n)) for n in sorted(images) if test_images or n in labels]
    ending = common_ending((case.origin for case in cases), kept=NIFTI, otherwise=".nii.gz")
    values = {"background": 0, **{organ: value for value, organ in enumerate(ORGANS, 1)}}
    return Published("Synapse", ("CT",), values, cases, ending, notes=tuple(notes))


def _files(source: Path) -> Iterator[Path]:
    for depth in range(_DEPTH + 1):
        for pattern in ("img*.nii*", "label*.nii*"):
            for path in sorted(source.glob("*/" * depth + pattern)):
                if _NAME.match(stem_of(path)) and ending_of(path) in NIFTI and path.is_file():
                    yield path
