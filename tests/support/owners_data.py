"""Small phantom scans written as the owners of BTCV (Synapse) and of AMOS22 publish theirs."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from semialign.data.phantom_volume import scan

SIZE = (24, 24, 16)
# Of Synapse's 13 organs to AMOS's numbers; AMOS has no portal vein.
TO_AMOS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 12], np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write NIfTI with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def btcv(root: Path, training: Sequence[str], testing: Sequence[str] = (), *, flat: bool = False) -> Path:
    """``RawData/Training/img``, ``.../label`` and ``RawData/Testing/img``; ``flat``: all files in ``root``."""
    for index, case in enumerate([*training, *testing]):
        made = scan(0, index, SIZE)
        raw = root / "RawData" / ("Training" if case in training else "Testing")
        save((root if flat else raw / "img") / f"img{case}.nii.gz", made.image, made.affine)
        if case in training:
            save((root if flat else raw / "label") / f"label{case}.nii.gz", made.label, made.affine)
    return root


def amos22(root: Path, training: Sequence[str], validation: Sequence[str] = (), testing: Sequence[str] = ()) -> Path:
    """``dataset.json`` with the owners' keys and spellings, and the folders that it lists."""
    parts = {"Tr": training, "Va": validation, "Ts": testing}
    listed: dict[str, list[dict[str, str]]] = {part: [] for part in parts}
    index = 0
    for part, cases in parts.items():
        for case in cases:
            made = scan(0, index, SIZE)
            index += 1
            save(root / f"images{part}" / f"{case}.nii.gz", made.image, made.affine)
            entry = {"image": f"./images{part}/{case}.nii.gz"}
            if part != "Ts":
                label = TO_AMOS[made.label]
                label[:2, :2, :2], label[-2:, :2, :2], label[:2, -2:, :2] = 13, 14, 15  # what the phantom lacks
                save(root / f"labels{part}" / f"{case}.nii.gz", label, made.affine)
                entry["label"] = f"./labels{part}/{case}.nii.gz"
            listed[part].append(entry)
    names = ["background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach"]
    names += ["arota", "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder"]
    described = {
        "name": "AMOS",
        "description": "MICCAI2022 Multi-Modality Abdominal Multi-Organ Segmentation Task 2",
        "author": "nobody",
        "reference": "phantoms",
        "licence": "CC-BY-SA 4.0",
        "release": "1.0 01/05/2022",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in enumerate([*names, "prostate/uterus"])},
        "numTraining": len(training),
        "numValidation": len(validation),
        "numTest": len(testing),
        "training": listed["Tr"],
        "validation": listed["Va"],
        "test": listed["Ts"],
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(described, indent=4))
    return root
