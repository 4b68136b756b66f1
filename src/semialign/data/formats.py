"""The file formats of images and labels, by the endings of their names."""

from pathlib import Path

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ENDINGS = NIFTI + ITK + PICTURES
DICOM = "dicom"


def ending_of(path: Path) -> str:
    """Return the format's ending of ``path`` in lower case; ``dicom`` for a folder; '' where it is none of ours."""
    path = Path(path)
    if path.is_dir():
        return DICOM
    name = path.name.lower()
    return next((e for e in ENDINGS if name.endswith(e)), "")


def stem_of(path: Path) -> str:
    """Return the file's name without its format's ending (``.nii.gz`` counts as one)."""
    name = Path(path).name
    ending = ending_of(path)
    return name if ending in ("", DICOM) else name[: -len(ending)]


def holds_dicom(folder: Path) -> bool:
    """Tell whether some of a folder's first files are DICOM: much faster than sorting a series of thousands."""
    files = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("."))
    return any(_is_dicom(path) for path, _ in zip(files, range(8), strict=False))


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as handle:
        handle.seek(128)
        return handle.read(4) == b"DICM"


def output_ending(ending: str) -> str:
    """Return the ending a prediction is written with: the input's own, lossless where that is lossy, one file."""
    if ending in (DICOM, ".mhd"):
        return ".nii.gz" if ending == DICOM else ".mha"
    return ".png" if ending in (".jpg", ".jpeg", ".bmp") else ending
