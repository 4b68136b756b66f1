"""Raw data sets for tests, written with nibabel and Pillow alone: nothing of the package makes what it is tested on."""

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPE = (20, 18, 16)
LABELS = {"background": 0, "organ": 1}


def organ(shape: Sequence[int] = SHAPE, seed: int = 0, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (float32) with a bright box per class, and its label (uint8)."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(0, 10, tuple(shape)), np.zeros(tuple(shape), np.uint8)
    for value in range(1, classes + 1):
        low = [int(n * (0.1 + 0.4 * (value - 1) / classes) + rng.integers(0, 2)) for n in shape]
        where = tuple(slice(a, a + max(2, n // 3)) for a, n in zip(low, shape, strict=True))
        image[where], label[where] = image[where] + 100 * value, value
    return image.astype(np.float32), label


def save_volume(
    path: Path, array: np.ndarray, spacing: Sequence[float] = (1, 1, 1), affine: np.ndarray | None = None
) -> None:
    """Write NIfTI."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    array = array.astype(np.uint8) if array.dtype == bool else array
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]) if affine is None else affine), path)


def save_picture(path: Path, array: np.ndarray) -> None:
    """Write a picture, grey (rows, columns) or coloured (rows, columns, channels)."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def describe(
    root: Path, labels: dict[str, int] | None = None, channels: Sequence[str] = ("MRI",), **more: object
) -> Path:
    """Write ``dataset.json``."""
    root.mkdir(parents=True, exist_ok=True)
    names = {str(i): name for i, name in enumerate(channels)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels or LABELS, **more}))
    return root


def volumes(root: Path, labelled: int = 2, unlabelled: int = 1, shape: Sequence[int] = SHAPE) -> Path:
    """A data set of volumes a, b, c, ...; the first ``labelled`` have labels."""
    describe(root)
    for i in range(labelled + unlabelled):
        case, (image, label) = chr(ord("a") + i), organ(shape, i)
        save_volume(root / "imagesTr" / f"{case}_0000.nii.gz", image)
        if i < labelled:
            save_volume(root / "labelsTr" / f"{case}.nii.gz", label)
    return root


def pictures(root: Path, labelled: int = 2, unlabelled: int = 1, shape: Sequence[int] = (40, 36)) -> Path:
    """A data set of RGB pictures a, b, c, ...; the first ``labelled`` have labels."""
    describe(root, channels=("R", "G", "B"))
    for i in range(labelled + unlabelled):
        case, (image, label) = chr(ord("a") + i), organ(shape, i)
        grey = np.clip(image + 100, 0, 255).astype(np.uint8)
        save_picture(root / "imagesTr" / f"{case}_0000.png", np.stack([grey, 255 - grey, grey // 2], -1))
        if i < labelled:
            save_picture(root / "labelsTr" / f"{case}.png", label)
    return root


def write_split(path: Path, **parts: Sequence[str]) -> Path:
    """Write a split file."""
    path.write_text(json.dumps({part: list(cases) for part, cases in parts.items()}))
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with a hash of what it holds."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def times(folder: Path) -> dict[str, int]:
    """Every file and folder below ``folder`` with its time of change."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first ``share`` of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def unfinished(folder: Path) -> list[Path]:
    """Temporary files that a writer left behind."""
    return [p for p in folder.rglob("*") if "writing" in p.name or p.name.endswith(".tmp")]


@contextmanager
def full_disk(ending: str) -> Iterator[None]:
    """Let every write of a file whose name ends in ``ending`` meet a full disk, half of its bytes written.

    As it was seen: Python raises ENOSPC, blosc2 a bare RuntimeError.
    """
    import blosc2

    asarray, write_text = blosc2.asarray, Path.write_text

    def text(path: Path, data: str, *rest: Any, **more: Any) -> int:
        if not path.name.endswith(ending):
            return write_text(path, data, *rest, **more)
        write_text(path, data[: len(data) // 2], *rest, **more)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def array(values: Any, *, urlpath: str, **more: Any) -> Any:
        if not urlpath.endswith(ending):
            return asarray(values, urlpath=urlpath, **more)
        Path(urlpath).write_bytes(b"half")
        raise RuntimeError("Error while creating the NDArray")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", text)
        patch.setattr(blosc2, "asarray", array)
        yield


def save_dicom(folder: Path, array: np.ndarray) -> None:
    """Write ``array`` (i, j, k) as a DICOM series of one file a slice, 1 mm apart."""
    import SimpleITK

    folder.mkdir(parents=True, exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(array.shape[2]):
        image = SimpleITK.GetImageFromArray(np.rint(array[:, :, k].T)[None].astype(np.int16))
        image.SetOrigin([0.0, 0.0, float(k)])
        for tag, value in {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.4.{k + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0013": str(k),
            "0020|0032": f"0\\0\\{k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{k:03d}.dcm"))
        writer.Execute(image)
