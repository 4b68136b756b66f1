"""Readers of the forms that are not image files of ours: h5 cases and black-and-white masks."""

from pathlib import Path

import numpy as np

from semialign.common.errors import UserError
from semialign.data.grid import difference
from semialign.data.image_io import read_grid, read_image

_JPEG_NOISE = 16  # the brightest a black picture gets by JPEG's rounding


def read_h5(path: Path, *, dimensions: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the arrays ``image`` (*S, float32) and ``label`` (*S, integer; ``None`` if there is none) of an h5 file.

    Raises :class:`UserError` for a damaged file, no ``image``, other than ``dimensions`` axes, a label of another size
    or with fractions.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            if "image" not in file:
                raise UserError(f"{path}: holds no array 'image' (only: {', '.join(file) or 'nothing'})")
            image = np.asarray(file["image"], np.float32)
            label = np.asarray(file["label"]) if "label" in file else None
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable h5 file, damaged or of another kind; copy it again") from error
    if image.ndim != dimensions:
        raise UserError(f"{path}: image has {image.ndim} dimensions where {dimensions} are due; copy the right file")
    if label is None:
        return image, None
    if label.shape != image.shape:
        raise UserError(f"{path}: label is {label.shape}, image {image.shape}; they must be of one size")
    whole = np.rint(label).astype(np.int32)
    if not np.array_equal(whole, label):
        raise UserError(f"{path}: label holds fractional values; it must hold class numbers")
    return image, whole


def as_int16(path: Path, image: np.ndarray, scale: float) -> np.ndarray:
    """Return ``image`` times ``scale`` as int16: a third of the float's size when compressed, and no visible loss.

    Raises :class:`UserError` for values that are not finite or do not fit.
    """
    if not np.isfinite(image).all():
        raise UserError(f"{path}: image holds NaN or infinite values; replace them before use")
    scaled = np.rint(image * np.float32(scale))
    if scaled.size == 0 or np.abs(scaled).max() > np.iinfo(np.int16).max:
        raise UserError(f"{path}: image is empty or not normalised as published (stored x {scale:g} as 16 bits)")
    return scaled.astype(np.int16)


def read_mask(path: Path, *, image: Path) -> np.ndarray:
    """Return a black-and-white picture of any mode as 0 and 1 (H, W), cut at half of its range.

    JPEG masks hold every grey at their edges. Raises :class:`UserError` for a picture that is not black and white and
    for one of another size than ``image``.
    """
    picture = read_image(path)
    apart = difference(picture.grid, read_grid(image))
    if apart:
        raise UserError(f"{path}: {apart} as {image.name} has; mend or remove the mask")
    array = picture.array
    grey = array.mean(0) if len(array) > 1 else array[0].astype(np.float64)
    brightest = float(grey.max())
    top = 1.0 if brightest <= 1 else float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else brightest
    if _JPEG_NOISE < brightest <= top / 2:
        raise UserError(f"{path}: brightest value is {brightest:g} of {top:g}; a mask must be black and white")
    return (grey > top / 2).astype(np.uint8)


def to_grey(array: np.ndarray) -> np.ndarray:
    """Return a picture (C, H, W) as (1, H, W): its channel where all are equal, else its luminance (ITU-R 601)."""
    if len(array) == 1 or all(np.array_equal(array[0], other) for other in array[1:]):
        return array[:1]
    luminance = np.tensordot(np.array([0.299, 0.587, 0.114]), array[:3].astype(np.float64), axes=1)
    return np.rint(luminance)[None].astype(array.dtype)
