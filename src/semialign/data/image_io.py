"""Image and label files in and out: NIfTI (nibabel); NRRD, MHA, DICOM series (SimpleITK); PNG, JPG, TIFF (Pillow).

Every image is an array ``(C, *S)`` in the index order of its file, and a ``Grid`` that places it.
"""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import written_whole
from semialign.data.formats import DICOM, ENDINGS, NIFTI, PICTURES, ending_of
from semialign.data.grid import Grid, Image, by
from semialign.data.itk_io import dicom_image, itk_affine, itk_header, write_itk

_SCALED = 1e-3  # a label's whole numbers may come back so far off from a file that stores them scaled


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
        fractional = np.abs(label - whole) > _SCALED
        if fractional.any():
            raise UserError(
                f"{path}: label holds fractional values such as {float(label[fractional][0]):g}; "
                "resample labels with nearest-neighbour and save whole numbers"
            )
        label = whole.astype(np.int32)
    return label, image.grid


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
            write_itk(temporary, label, grid, like)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with written_whole(target) as temporary:
        shutil.copyfile(source, temporary)


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
    except MemoryError as error:
        raise UserError(f"{path}: not enough memory to read it; use a machine with more") from error
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

    itk, affine = dicom_image(path) if ending == DICOM else _of_itk(SimpleITK.ReadImage(str(path)))
    if itk.GetNumberOfComponentsPerPixel() > 1:
        raise UserError(f"{path}: several values a voxel; save one file a channel")
    array = SimpleITK.GetArrayViewFromImage(itk).T
    shape = _volume_shape(path, array.shape)
    array = np.array(_plain(array), order="C").reshape(shape)  # a copy: the view dies with the image
    return Image(array[None], _volume_grid(path, shape, affine), ending)


def _of_itk(itk: Any) -> tuple[Any, np.ndarray]:
    return itk, itk_affine(itk)


def _read_header(path: Path, ending: str) -> Grid:
    if ending in NIFTI:
        nifti = _nifti(path)
        return _volume_grid(path, _volume_shape(path, nifti.shape), nifti.affine)
    if ending in PICTURES:
        return _picture_grid(path)
    if ending == DICOM:
        return _read(path, ending).grid
    reader = itk_header(path)
    return _volume_grid(path, _volume_shape(path, reader.GetSize()), itk_affine(reader))


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
            f"{path}: has {len(shape)} dimensions ({by(shape)}) where a 3D volume is due; save one volume a file "
            "(one file a channel, or a time point a case)"
        )
    if 0 in shape or not shape:
        raise UserError(f"{path}: the image has no voxels ({by(shape)})")
    return shape + (1,) * (3 - len(shape))


def _volume_grid(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    affine = np.asarray(affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UserError(f"{path}: the header's spacing or orientation is zero or not a number; correct the header")
    return Grid(shape, affine)


def _picture(path: Path, labels: bool) -> np.ndarray:
    from PIL import Image as Pillow

    Pillow.MAX_IMAGE_PIXELS = None  # a slide of histology is no attack
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
