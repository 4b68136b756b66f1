"""AMOS22 (abdominal CT and MRI, 15 organs): ``dataset.json``, ``imagesTr/amos_0001.nii.gz``, ``imagesVa``, ...

The form is the Decathlon's with a list of validation cases. The owners' ``dataset.json`` calls every image CT and
misspells organs; the names here are one spelling, so that runs on Synapse and on AMOS call an organ alike.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data.formats import stem_of
from semialign.data.importers import msd
from semialign.data.importers.base import Published, plural

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
_NAME = re.compile(r"amos_(?P<number>\d{4})$")
_LAST_CT = 500


def recognise(source: Path) -> bool:
    """Whether ``source/dataset.json`` lists images named ``amos_0001``."""
    return msd.recognise(source) and any(_NAME.match(name) for name in _listed(read_json(source / "dataset.json")))


def find(source: Path, *, test_images: bool = True) -> Published:
    """List the cases of training and validation; ``test_images``: take the unlabelled ``imagesTs`` too."""
    published = msd.find(source, test_images=test_images)
    about, classes = source / "dataset.json", sorted(published.labels.values())
    if classes != list(range(len(ORGANS) + 1)) or len(published.channel_names) != 1:
        raise UserError(
            f"{about}: names {len(classes)} classes and {len(published.channel_names)} of modality, where AMOS22 has "
            f"{len(ORGANS) + 1} and 1; use `semialign import msd`"
        )
    notes = [*published.notes, "published splits by name: --split amos-2p, amos-5p or amos-10p"]
    numbers = [int(match["number"]) for case in published.cases if (match := _NAME.match(case.id))]
    mri = sum(number > _LAST_CT for number in numbers)
    if mri:
        notes.append(
            f"{plural(mri, 'case')} with ids above amos_{_LAST_CT:04d} {'is' if mri == 1 else 'are'} MRI, kept under "
            "the channel name CT; the published protocols window them as CT all the same"
        )
    values = {"background": 0, **{organ: value for value, organ in enumerate(ORGANS, 1)}}
    return replace(published, name="AMOS22", channel_names=("CT",), labels=values, notes=tuple(notes))


def _listed(described: dict[str, Any]) -> list[str]:
    names = (entry.get("image") if isinstance(entry, dict) else entry for entry in described["training"])
    return [stem_of(Path(name)) for name in names if isinstance(name, str)]
