"""Which published forms can be imported: a line a kind; ``left-atrium`` is the module ``left_atrium``.

A module offers ``recognise(source) -> bool`` and ``find(source, *, options...) -> Published``; nothing else has to know
of it.
"""

import importlib
from typing import Any

# Where several kinds know a source, the first is suggested: AMOS22 has the Decathlon's form too.
IMPORTERS = {
    "amos": "AMOS22 (dataset.json, imagesTr/amos_0001.nii.gz, labelsTr, imagesVa, labelsVa)",
    "msd": "a Medical Segmentation Decathlon task (dataset.json that lists imagesTr/CASE.nii.gz)",
    "synapse": "Synapse, also called BTCV (RawData/Training/img/img0001.nii.gz and label/label0001.nii.gz)",
    "left-atrium": "UA-MT's left atrium folder (ID/mri_norm2.h5)",
    "acdc": "ACDC from SSL4MIS (data/*.h5, data/slices/*.h5) or its owners (training/patient001/*.nii.gz)",
    "busi": "BUSI (benign/ and malignant/ with 'benign (1).png' and 'benign (1)_mask.png')",
    "isic-2018": "ISIC 2018 task 1 (ISIC2018_Task1-2_Training_Input/ and ISIC2018_Task1_Training_GroundTruth/)",
    "bcss": "BCSS (images/ and masks/ with TCGA-....png)",
    "polyp": "a Kvasir-SEG, CVC-ClinicDB or CVC-300 folder (images/ and masks/, Original/ and Ground Truth/, ...)",
    "polyps": "several polyp folders as one set (Kvasir-SEG/, CVC-ClinicDB/, ... in one folder)",
    "nnunet": "an nnU-Net raw data set (dataset.json, imagesTr/CASE_0000.nii.gz)",
}


def importer(kind: str) -> Any:
    """Return the module of one kind in :data:`IMPORTERS`."""
    return importlib.import_module(f"{__package__}.{kind.replace('-', '_')}")
