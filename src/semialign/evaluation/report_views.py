"""What the report page shows of a case: slices of a volume as a radiologist sees them, or the picture as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

AGREED, MISSED, FALSE, CONFUSED, UNKNOWN = 1, 2, 3, 4, 5
_LONGEST, _SHORTEST = 384, 256  # pixels of a view's longer side
_AXES = ("sagittal", "coronal", "axial")
_EDGES = {"axial": "ARPL", "coronal": "SRIL", "sagittal": "SAIP"}  # top, left, bottom, right
_SAMPLES = 2_000_000  # voxels that set the grey window; more change nothing


@dataclass(frozen=True)
class PictureCase:
    """A case to be shown. ``part``: validation, test or labelled; ``title``: why it is shown, such as "worst"."""

    id: str
    part: str
    image: np.ndarray  # (C, *S), as read; volumes in RAS order (x, y, z), pictures (C, rows, columns) with C = 1 or 3
    label: np.ndarray  # (*S) integers; what lies outside the classes counts as not annotated
    prediction: np.ndarray  # (*S) integers
    spacing: tuple[float, ...]  # mm
    dice: float  # mean of the foreground classes
    title: str
    entropy: np.ndarray | None = None  # (*S) uint8: bits times certainty.PER_BIT
    has_label: bool = True  # without one, ``label`` is all background and is not spoken of


@dataclass(frozen=True)
class View:
    """One picture of a case: 8-bit ``image`` (rows, columns) or (rows, columns, 3), masks of the same pixels."""

    name: str
    where: str  # which slice, in words
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    edges: str  # letters at top, left, bottom, right; '' for a picture
    entropy: np.ndarray | None = None


def views(case: PictureCase, classes: int, *, at: tuple[int, ...] | None = None) -> list[View]:
    """Return the views of a case: the picture itself, or the axial, coronal and sagittal slice of a volume.

    Each slice is the one with most labelled (else most predicted) area, or lies ``at`` a voxel (x, y, z). The patient's
    right is on the left of the picture; anterior is up in axial slices and on the left in sagittal ones; superior is up
    in the others.
    """
    if case.label.ndim == 2:
        return [_whole_picture(case)]
    limits = _limits(case.image[0], _structures(case.label, classes) | (case.prediction > 0))
    return [_slice(case, limits, axis, classes, index=None if at is None else at[axis]) for axis in (2, 1, 0)]


def stack(case: PictureCase, classes: int, *, most: int) -> tuple[Iterator[View], int]:
    """Return evenly spread axial slices through a volume, ``most`` at most, from feet to head, all cut alike.

    Beside them the place among them of the slice with most labelled (else most predicted) area. A picture is one slice.
    """
    if case.label.ndim == 2:
        return iter([_whole_picture(case)]), 0
    structures = _structures(case.label, classes) | (case.prediction > 0)
    limits = _limits(case.image[0], structures)
    window = _window(np.asarray(structures.any(2)).T[::-1, ::-1])
    count, largest = case.label.shape[2], _largest(case, 2, classes)
    step = -(-count // most)
    places = range(largest % step, count, step)
    slices = (_slice(case, limits, 2, classes, index=place, window=window) for place in places)
    return slices, places.index(largest)


def compared(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return where label and prediction agree, miss, invent or confuse a structure; 0 where both are background."""
    result = np.zeros(label.shape, np.uint8)
    result[(label > 0) & (prediction == label)] = AGREED
    result[(label > 0) & (prediction == 0)] = MISSED
    result[(label == 0) & (prediction > 0)] = FALSE
    result[(label > 0) & (prediction > 0) & (prediction != label)] = CONFUSED
    result[(label < 0) | (label >= classes)] = UNKNOWN
    return result


def _whole_picture(case: PictureCase) -> View:
    grid = _grid(case.label.shape, np.asarray(case.spacing, float))
    masks = _nearest(case.label, grid), _nearest(case.prediction, grid)
    entropy = None if case.entropy is None else _resampled(case.entropy, grid)
    return View("picture", "", _resampled(_picture(case.image), grid), *masks, "", entropy)


def _largest(case: PictureCase, axis: int, classes: int) -> int:
    others = tuple(a for a in range(3) if a != axis)
    area = next((m.sum(others) for m in (_structures(case.label, classes), case.prediction > 0) if m.any()), None)
    return int(area.argmax()) if area is not None else case.label.shape[axis] // 2


def _slice(
    case: PictureCase,
    limits: tuple[float, float],
    axis: int,
    classes: int,
    *,
    index: int | None = None,
    window: tuple[slice, slice] | None = None,
) -> View:
    others = [a for a in range(3) if a != axis]
    index = _largest(case, axis, classes) if index is None else index

    def cut(volume: np.ndarray) -> np.ndarray:
        # RAS slices have right, anterior or superior at the end of each axis: turned, they begin with it.
        return np.take(volume, index, axis).T[::-1, ::-1]

    label, prediction = cut(case.label), cut(case.prediction)
    window = window or _window(_structures(label, classes) | (prediction > 0))
    whole = window == (slice(0, label.shape[0]), slice(0, label.shape[1]))
    grid = _grid(label[window].shape, np.asarray(case.spacing, float)[[others[1], others[0]]])
    name = _AXES[axis]
    return View(
        name,
        f"slice {index + 1} of {case.label.shape[axis]}" + ("" if whole else ", enlarged"),
        _resampled(_grey(cut(case.image[0])[window], limits), grid),
        _nearest(label[window], grid),
        _nearest(prediction[window], grid),
        _EDGES[name],
        None if case.entropy is None else _resampled(cut(case.entropy)[window], grid),
    )


def _structures(label: np.ndarray, classes: int) -> np.ndarray:
    return np.asarray((label > 0) & (label < classes))


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the part of a slice to show: all of it, or the half (each way) around structures smaller than a fifth."""
    whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
    if not mask.any():
        return whole
    spans = [np.flatnonzero(mask.any(1 - axis)) for axis in (0, 1)]
    if any(span[-1] - span[0] + 1 > n / 5 for span, n in zip(spans, mask.shape, strict=True)):
        return whole
    parts = []
    for span, n in zip(spans, mask.shape, strict=True):
        start = int(np.clip((span[0] + span[-1]) // 2 - n // 4, 0, n - n // 2))
        parts.append(slice(start, start + max(n // 2, 1)))
    return parts[0], parts[1]


def _limits(image: np.ndarray, structure: np.ndarray) -> tuple[float, float]:
    """Return the values shown black and white: percentiles around the structures, else of the whole image."""
    around = image
    if structure.any():
        box = []
        for axis in range(structure.ndim):
            span = np.flatnonzero(structure.any(tuple(a for a in range(structure.ndim) if a != axis)))
            spare = (span[-1] - span[0]) // 2 + 2
            box.append(slice(max(int(span[0] - spare), 0), int(span[-1] + spare + 1)))
        around = image[tuple(box)]
    for region in (around, image):
        values = region.ravel()[:: max(region.size // _SAMPLES, 1)]
        values = values[np.isfinite(values)]
        if values.size and values.min() < values.max():
            low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
            return (low, high) if low < high else (float(values.min()), float(values.max()))
    return 0.0, 1.0


def _grey(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    image = np.nan_to_num(image.astype(np.float32), nan=low)
    return np.asarray(np.rint(np.clip((image - low) / (high - low), 0, 1) * 255)).astype(np.uint8)


def _picture(image: np.ndarray) -> np.ndarray:
    """Return a picture as it is, as (rows, columns) or (rows, columns, 3) of 8 bits."""
    image = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    if image.dtype == np.uint8:
        return image
    if image.ndim == 2:
        return _grey(image, _limits(image, np.zeros(image.shape, bool)))
    image = np.nan_to_num(image.astype(np.float32))
    top = 1.0 if image.max() <= 1 else 255.0 if image.max() <= 255 else float(image.max())
    return _grey(image, (0.0, top))


def _grid(shape: tuple[int, ...], spacing: np.ndarray) -> tuple[int, int]:
    """Return the rows and columns a view is drawn with: square pixels, the longer side neither tiny nor huge."""
    extent = np.asarray(shape[:2]) * spacing
    longest = float(np.clip(extent.max() / spacing.min(), _SHORTEST, _LONGEST))
    rows, columns = np.maximum(np.rint(extent / extent.max() * longest).astype(int), 1)
    return int(rows), int(columns)


def _resampled(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    shrinks = grid[0] * grid[1] < image.shape[0] * image.shape[1]
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return np.asarray(picture.resize((grid[1], grid[0]), method))


def _nearest(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(grid, mask.shape, strict=True))
    return np.asarray(mask[rows][:, columns]).astype(int)
