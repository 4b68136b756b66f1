"""Image and label files in and out: NIfTI (nibabel); NRRD, MHA, DICOM series (SimpleITK); PNG, JPG, TIFF (Pillow).

Every image is an array ``(C, *S)`` in the index order of its file (volumes ``i, j, k``; pictures ``row, column``) and a
:class:`Grid` that places it. Affines are millimetres in RAS+, whatever the file format says.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import written_whole

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ENDINGS = NIFTI + ITK + PICTURES
DICOM = "dicom"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie: ``shape`` (spatial) and the index-to-RAS ``affine`` (4, 4) in mm.

    A picture without physical size has an identity affine and ``picture`` set; its distances are pixels.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    picture: bool = False

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis, mm (pixels for a picture)."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)])


@dataclass(frozen=True)
class Image:
    """An image as read: ``array`` (C, *S), its grid, and the ending of its format (``dicom`` for a series folder)."""

    array: np.ndarray
    grid: Grid
    ending: str


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


def read_image(path: Path) -> Image:
    """Read one image file or DICOM series folder.

    Returns an array (C, *S); integer types are kept, everything else is float32. Volumes have C = 1, pictures as many
    channels as they store (alpha dropped). Raises :class:`UserError` for a missing, empty, truncated or foreign file
    and for an image with a time or channel axis where a volume is due.
    """
    return _reading(path, _read)


def read_grid(path: Path) -> Grid:
    """Return the :class:`Grid` of an image file from its header, without its voxels. Errors as :func:`read_image`."""
    return _reading(path, _read_header)


def read_label(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a label file: integer array (*S) and its grid.

    Raises :class:`UserError` for fractional or non-finite values and for coloured pictures.
    """
    image = _reading(path, _read_label_image)
    array = image.array
    if len(array) > 1 and not all(np.array_equal(array[0], other) for other in array[1:]):
        raise UserError(f"{path}: a label picture must have one channel of class numbers, this one is coloured")
    label = array[0]
    if not np.issubdtype(label.dtype, np.integer):
        if not np.isfinite(label).all():
            raise UserError(f"{path}: label holds NaN or infinite values; save it with whole numbers")
        whole = np.rint(label)
        if not np.array_equal(whole, label):
            raise UserError(
                f"{path}: label holds fractional values such as {float(label[whole != label][0]):g}; "
                "resample labels with nearest-neighbour and save whole numbers"
            )
        label = whole.astype(np.int32)
    return label, image.grid


def difference(label: Grid, image: Grid) -> str | None:
    """Return how two grids differ (size, spacing, orientation or position) in words, or ``None`` where they agree."""
    if label.shape != image.shape:
        return f"size {_by(label.shape)} instead of {_by(image.shape)}"
    if label.picture or image.picture:
        return None
    if not np.allclose(label.spacing, image.spacing, rtol=1e-3, atol=1e-4):
        return f"spacing {_by(label.spacing)} mm instead of {_by(image.spacing)} mm"
    ours, theirs = (grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (label, image))
    if not np.allclose(ours, theirs, atol=1e-2):
        return "another orientation"
    # Some tools round origins; a tenth of a voxel moves no label.
    if np.abs(label.affine[:3, 3] - image.affine[:3, 3]).max() > 0.1 * min(image.spacing):
        return "another position (origin)"
    return None


def output_ending(ending: str) -> str:
    """Return the ending a prediction is written with: the input's own, lossless where that is lossy, one file."""
    if ending in (DICOM, ".mhd"):
        return ".nii.gz" if ending == DICOM else ".mha"
    return ".png" if ending in (".jpg", ".jpeg", ".bmp") else ending


def write_label(path: Path, label: np.ndarray, grid: Grid, like: Path | None = None) -> None:
    """Write integer labels (*S), 8-bit where they fit, whole or not at all.

    ``like``: the image file whose header (units, qform and sform, or origin and direction) is carried over bit for bit;
    without it, or where its format differs, the header is made from ``grid``.
    """
    if ending_of(path) == ".mhd":
        raise UserError(f"{path}: two files (.mhd and .raw) cannot be written whole; write .mha")
    label = label.astype(np.uint8 if label.size == 0 or label.max() < 256 else np.uint16, copy=False)
    with written_whole(path) as temporary:
        ending = ending_of(path)
        like = like if like is not None and Path(like).exists() else None
        if ending in PICTURES:
            from PIL import Image as Pillow

            Pillow.fromarray(label).save(temporary)
        elif ending in NIFTI:
            _write_nifti(temporary, label, grid, like)
        else:
            _write_itk(temporary, label, grid, like)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


def dicom_series(folder: Path) -> dict[str, list[str]]:
    """Return the DICOM series in ``folder`` (not below it): series id to its files, in order of position."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it would print about series is an error here
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return {name: list(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name)) for name in names}


def _by(values: tuple[float, ...]) -> str:
    return " x ".join(f"{v:g}" for v in values)


def _reading(path: Path, read: Callable[[Path, str], Any]) -> Any:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    ending = ending_of(path)
    if not ending:
        raise UserError(f"{path}: not an image format semialign reads ({', '.join(ENDINGS)} or a DICOM folder)")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; copy it again")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: may not be read; check its permissions")
    try:
        return read(path, ending)
    except UserError:
        raise
    except Exception as error:
        # nibabel, SimpleITK and Pillow each raise their own kinds (some bare RuntimeError) for damaged files.
        text = str(error).lower()
        if isinstance(error, EOFError | zlib.error) or any(w in text for w in ("truncated", "length", "damaged")):
            raise UserError(f"{path}: the file is truncated or damaged; copy it again") from error
        raise UserError(f"{path}: not a readable {ending} image, damaged or of another kind; copy it again") from error


def _read(path: Path, ending: str) -> Image:
    if ending in NIFTI:
        nifti = _nifti(path)
        shape, proxy = _volume_shape(path, nifti.shape), nifti.dataobj
        kind = proxy.dtype
        if kind.kind not in "iuf":
            raise UserError(f"{path}: stores {kind} voxels; only numbers are read, one channel a file")
        scaled = kind.kind == "f" or (proxy.slope, proxy.inter) != (1.0, 0.0)
        array = np.asanyarray(np.asarray(proxy, dtype=np.float32) if scaled else proxy.get_unscaled())
        return Image(_plain(array).reshape(shape)[None], _volume_grid(path, shape, nifti.affine), ending)
    if ending in PICTURES:
        return Image(_picture(path, labels=False), _picture_grid(path), ending)
    import SimpleITK

    itk = _dicom_image(path) if ending == DICOM else SimpleITK.ReadImage(str(path))
    if itk.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(f"{path}: several values a voxel; save one file a channel")
    array = SimpleITK.GetArrayViewFromImage(itk).T
    shape = _volume_shape(path, array.shape)
    array = np.array(_plain(array), order="C").reshape(shape)  # a copy: the view dies with the image
    return Image(array[None], _volume_grid(path, shape, _itk_affine(itk)), ending)


def _read_header(path: Path, ending: str) -> Grid:
    if ending in NIFTI:
        nifti = _nifti(path)
        return _volume_grid(path, _volume_shape(path, nifti.shape), nifti.affine)
    if ending in PICTURES:
        return _picture_grid(path)
    if ending == DICOM:
        return _read(path, ending).grid
    reader = _itk_header(path)
    return _volume_grid(path, _volume_shape(path, reader.GetSize()), _itk_affine(reader))


def _read_label_image(path: Path, ending: str) -> Image:
    if ending in PICTURES:
        return Image(_picture(path, labels=True), _picture_grid(path), ending)
    return _read(path, ending)


def _nifti(path: Path) -> Any:
    import nibabel

    return nibabel.load(path)


def _plain(array: np.ndarray) -> np.ndarray:
    """Return integers in their own type, all else as float32, in the machine's byte order (torch takes no other)."""
    return array.astype(array.dtype.newbyteorder("=") if array.dtype.kind in "iu" else np.float32, copy=False)


def _volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise UserError(
            f"{path}: has {len(shape)} dimensions ({_by(shape)}) where a 3D volume is due; save one volume a file "
            "(one file a channel, or a time point a case)"
        )
    if 0 in shape or not shape:
        raise UserError(f"{path}: the image has no voxels ({_by(shape)})")
    return shape + (1,) * (3 - len(shape))


def _volume_grid(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    affine = np.asarray(affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UserError(f"{path}: the header's spacing or orientation is zero or not a number; correct the header")
    return Grid(shape, affine)


def _picture(path: Path, labels: bool) -> np.ndarray:
    from PIL import Image as Pillow

    with Pillow.open(path) as opened:
        frames = getattr(opened, "n_frames", 1)
        if frames > 1:
            raise UserError(f"{path}: holds {frames} frames; save one picture a file")
        picture: Pillow.Image = opened
        # A palette picture's numbers are colours for an image, classes for a label.
        if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") or (picture.mode == "P" and not labels):
            picture = picture.convert("RGB")
        array = np.asarray(picture)
    array = array.astype(np.uint8) if array.dtype == bool else _plain(array)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return array[:-1] if len(array) in (2, 4) else array  # drop alpha


def _picture_grid(path: Path) -> Grid:
    from PIL import Image as Pillow

    with Pillow.open(path) as picture:
        return Grid((picture.height, picture.width), np.eye(4), picture=True)


def _itk_header(path: Path) -> Any:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _dicom_image(path: Path) -> Any:
    import SimpleITK

    series = dicom_series(path)
    if not series:
        raise UserError(f"{path}: a folder without a DICOM series; give an image file or a folder of one series")
    if len(series) > 1:
        raise UserError(f"{path}: holds {len(series)} DICOM series; put each in a folder of its own")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(next(iter(series.values())))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    _require_even_slices(path, [_slice_position(reader, i) for i in range(image.GetSize()[-1])])
    return image


def _slice_position(reader: Any, index: int) -> list[float] | None:
    tag = "0020|0032"  # Image Position (Patient)
    return [float(v) for v in reader.GetMetaData(index, tag).split("\\")] if reader.HasMetaDataKey(index, tag) else None


def _require_even_slices(path: Path, positions: list[list[float] | None]) -> None:
    # The reader only prints a warning and places every later slice wrongly.
    if len(positions) < 3 or None in positions:
        return
    steps = np.linalg.norm(np.diff(np.array(positions, float), axis=0), axis=1)
    if np.ptp(steps) > 0.1 * np.median(steps):
        raise UserError(
            f"{path}: DICOM slices lie {steps.min():g} to {steps.max():g} mm apart; complete the series, or keep one "
            "acquisition of it in the folder"
        )


def _itk_affine(itk: Any) -> np.ndarray:
    size = itk.GetDimension()
    placed, kept = np.eye(4), min(size, 3)  # a fourth axis is of length one here
    direction = np.reshape(itk.GetDirection(), (size, size)) * np.asarray(itk.GetSpacing())
    placed[:kept, :kept] = direction[:kept, :kept]
    placed[:kept, 3] = itk.GetOrigin()[:kept]
    return np.asarray(_LPS_TO_RAS @ placed)


def _write_nifti(path: Path, label: np.ndarray, grid: Grid, like: Path | None) -> None:
    import nibabel

    if like is not None and ending_of(like) in NIFTI:
        source = _nifti(like)
        header: Any = source.header.copy()
        header.set_data_dtype(label.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        stored = source.shape if np.prod(source.shape) == label.size else label.shape
        image = type(source)(label.reshape(stored), None, header)
    else:
        image = nibabel.Nifti1Image(label, grid.affine)
        image.set_qform(grid.affine, code="scanner")  # some tools read only this one
        image.set_sform(grid.affine, code="scanner")
        image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _write_itk(path: Path, label: np.ndarray, grid: Grid, like: Path | None) -> None:
    import SimpleITK

    if like is not None and ending_of(like) in ITK:
        header = _itk_header(like)
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.reshape(header.GetSize()).T))
        itk.SetOrigin(header.GetOrigin())
        itk.SetSpacing(header.GetSpacing())
        itk.SetDirection(header.GetDirection())
    else:
        lps = _LPS_TO_RAS @ grid.affine
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.T))
        itk.SetOrigin([float(v) for v in lps[:3, 3]])
        itk.SetSpacing([float(v) for v in grid.spacing])
        itk.SetDirection((lps[:3, :3] / np.asarray(grid.spacing)).ravel().tolist())
    SimpleITK.WriteImage(itk, str(path), useCompression=True)
