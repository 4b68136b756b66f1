"""Near-copies: cases so alike that one in training and one in the test would make the figures too good.

Pictures are compared as grey thumbnails, volumes by the thumbnail of their middle axial slice. Two cases are
near-copies if their thumbnails correlate above the threshold **and** their fine detail agrees. The second condition is
needed: the frame of an endoscope or a dark lesion on light skin alone gives two strangers a correlation above 0.9
(with it alone, 297 of 407 ClinicDB frames form one group through chains). For volumes the middle slice separates
better than a 16 x 16 x 16 thumbnail of the same size: of ACDC's 40 pairs of two phases of one patient, all are found
and no other; cubes put the left atria of two strangers above 0.9.
"""

from collections.abc import Sequence

import numpy as np

from semialign.data.grid import Image

SIZE = 64
DETAIL = 0.35  # in seven public sets, strangers that correlate above 0.9 reach 0.33; recoloured copies begin at 0.4
SURE = 0.99  # no strangers reach it; noise may have hidden what little detail a smooth picture has
_DARK = 0.15  # of the range: black borders carry no detail of their own
_SHIFT = 3  # pixels of the thumbnail a copy may be shifted by
_BLOCK = 1024


def thumbnail(image: Image) -> np.ndarray:
    """Return a grey (64, 64) uint8 thumbnail of an image (C, *S): its 1st to 99th percentile from 0 to 255."""
    from PIL import Image as Pillow

    plane = image.array.mean(0, dtype=np.float32) if image.grid.picture else _middle_slice(image)
    small = Pillow.fromarray(np.ascontiguousarray(plane, np.float32)).resize((SIZE, SIZE), Pillow.Resampling.BILINEAR)
    grey = np.asarray(small)
    low, high = np.percentile(grey, [1, 99])
    if high <= low:
        return np.zeros((SIZE, SIZE), np.uint8)
    return np.rint(np.clip((grey - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def near_copies(ids: Sequence[str], thumbnails: np.ndarray, *, threshold: float = 0.9) -> list[tuple[str, ...]]:
    """Return groups of near-copies, the largest first; a case is in one group at most.

    ``thumbnails``: (N, 64, 64) uint8. ``threshold``: the correlation of thumbnails above which detail is compared; 1
    finds nothing. Memory grows with N (some 20 kB a case), not with its square.
    """
    return _groups(ids, *_alike(thumbnails, threshold)) if threshold < 1 and len(ids) > 1 else []


def _alike(thumbnails: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of near-copies as two arrays of indices, found block by block."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(thumbnails), _BLOCK):
        mine = _standardised(thumbnails[start : start + _BLOCK])
        for other in range(start, len(thumbnails), _BLOCK):
            theirs = mine if other == start else _standardised(thumbnails[other : other + _BLOCK])
            correlation = mine @ theirs.T
            rows, columns = np.nonzero(correlation > threshold)
            kept = rows + start < columns + other
            agree = correlation[rows[kept], columns[kept]] > SURE
            rows, columns = rows[kept] + start, columns[kept] + other
            agree[~agree] = _detail_agrees(thumbnails, rows[~agree], columns[~agree])
            pairs.append((rows[agree], columns[agree]))
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(norm, 1e-6))


def _detail_agrees(thumbnails: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether the fine detail of each pair correlates above :data:`DETAIL` at some shift of up to three pixels."""
    from scipy import fft

    if len(first) == 0:
        return np.zeros(0, bool)
    used, where = np.unique(np.concatenate([first, second]), return_inverse=True)
    detail = _detail(thumbnails[used])
    spectra = fft.rfft2(detail)
    result = np.empty(len(first), bool)
    for start in range(0, len(first), _BLOCK):
        a, b = where[: len(first)][start : start + _BLOCK], where[len(first) :][start : start + _BLOCK]
        shifted = fft.irfft2(spectra[a] * np.conj(spectra[b]), s=(SIZE, SIZE))
        near = np.roll(shifted, (_SHIFT, _SHIFT), (1, 2))[:, : 2 * _SHIFT + 1, : 2 * _SHIFT + 1]
        result[start : start + _BLOCK] = near.max((1, 2)) > DETAIL
    return result


def _detail(thumbnails: np.ndarray) -> np.ndarray:
    """Local contrast, (N, 64, 64) of unit norm: without shading, black borders and the outermost pixels."""
    from scipy import ndimage

    grey = thumbnails.astype(np.float32) / 255
    mask = ndimage.binary_opening(grey > _DARK, np.ones((1, 3, 3)))
    mask = ndimage.binary_erosion(mask, np.ones((1, 3, 3)), border_value=1)
    mask[mask.mean((1, 2)) < 0.1] = True  # nearly all dark: then the dark is the image
    # A margin as wide as the greatest shift, so that nothing wraps around in the Fourier product.
    mask[:, :_SHIFT] = mask[:, -_SHIFT:] = mask[:, :, :_SHIFT] = mask[:, :, -_SHIFT:] = False
    weight = mask.astype(np.float32)
    blurred_weight = _blurred(weight) + 1e-6
    detail = (grey - _blurred(grey * weight) / blurred_weight) * weight
    detail /= np.sqrt(_blurred(detail**2) / blurred_weight) + 0.02  # flat skin must not become all noise
    norm = np.sqrt((detail**2).sum((1, 2), keepdims=True))
    return np.asarray(detail / np.maximum(norm, 1e-6))


def _blurred(stack: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(stack, (0, 2, 2)))


def _groups(ids: Sequence[str], first: np.ndarray, second: np.ndarray) -> list[tuple[str, ...]]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(ids), len(ids)))
    _, component = connected_components(links, directed=False)
    members: dict[int, list[str]] = {}
    for case, number in zip(ids, component, strict=True):
        members.setdefault(int(number), []).append(case)
    groups = [tuple(sorted(group)) for group in members.values() if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def _middle_slice(image: Image) -> np.ndarray:
    from nibabel import orientations

    # Turned to RAS first, so that copies saved in another orientation are found.
    volume = orientations.apply_orientation(image.array[0], orientations.io_orientation(image.grid.affine))
    return np.asarray(volume[:, :, volume.shape[2] // 2])
