"""The fingerprint: what the training images look like. Labels are opened for labelled and validation cases alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semialign.common.components import share_in_one_piece
from semialign.common.seeding import numpy_rng
from semialign.data.dataset import Case, Dataset, check_label, read_case
from semialign.data.geometry import canonical_extent, canonical_shape, canonical_spacing
from semialign.data.image_io import read_label
from semialign.data.leaks import content_of

SAMPLES = 10_000
OUTLIER = 100.0
ONE_PIECE = 0.99  # of a region's voxels; annotations hold specks
WITNESSES = 3


def fingerprint_case(dataset: Dataset, case: Case, labelled: bool) -> dict[str, Any]:
    """Check one case and describe it; ``labelled`` opens its label.

    Returns size and spacing (canonical axes), per channel a sample of intensities (from the foreground where there is a
    label), voxels per class, the size of the box around the foreground, the share of the foreground and of each class
    that is one piece, warnings, and what tells a copy of the image (see :func:`content_of`). Raises :class:`UserError`
    for a faulty file.
    """
    image = read_case(case, len(dataset.channel_names))
    warnings = [f"{case.images[0].name}: {text}" for channel in image.array if (text := _outlier(channel)) is not None]
    counts: list[int] | None = None
    where: np.ndarray | None = None
    extent: list[int] | None = None
    pieces: list[float | None] | None = None
    if labelled and case.label is not None:
        label, grid = read_label(case.label)
        check_label(case.label, label, grid, image.grid, dataset)
        counts = [int((label == value).sum()) for value in range(dataset.num_classes)]
        foreground = (label > 0) & (label < dataset.num_classes)
        extent = list(canonical_extent(foreground, image.grid)) if foreground.any() else None
        pieces = [share_in_one_piece(mask) for mask in (foreground, *(label == c for c in range(1, len(counts))))]
        # CT windows follow the labelled structures; a picture's channels are described as a whole.
        where = np.flatnonzero(foreground) if foreground.any() and not image.grid.picture else None
        if not any(counts[1:]):
            warnings.append(f"{case.label.name}: holds background alone")
    rng = numpy_rng("fingerprint", case.id)
    count = image.array[0].size if where is None else len(where)
    drawn = rng.integers(0, count, SAMPLES) if count > SAMPLES else np.arange(count)
    where = drawn if where is None else where[drawn]
    return {
        "case": case.id,
        "picture": image.grid.picture,
        "size": list(canonical_shape(image.grid)),
        "spacing": [round(float(s), 6) for s in canonical_spacing(image.grid)],
        "samples": [c.ravel()[where].astype(np.float32).tolist() for c in image.array],
        "voxels": counts,
        "extent": extent,
        "pieces": pieces,
        "warnings": warnings,
        "content": content_of(image),
    }


def summarise(dataset: Dataset, cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the cases' descriptions; intensities come from labelled cases where there are any (all cases else).

    Of volumes, from those that hold a structure: a scan without any shows air, which is none of a CT window's business.
    """
    labelled = [c for c in cases if c["voxels"] is not None] or list(cases)
    if not cases[0]["picture"]:
        labelled = [c for c in labelled if c["voxels"] is not None and sum(c["voxels"][1:])] or labelled
    intensities = []
    for channel in range(len(dataset.channel_names)):
        values = np.concatenate([np.asarray(c["samples"][channel], np.float32) for c in labelled])
        low, high = np.percentile(values, [0.5, 99.5])
        inside = np.clip(values, low, high)
        intensities.append(
            {"low": float(low), "high": float(high), "mean": float(inside.mean()), "std": float(inside.std())}
        )
    totals = np.sum([c["voxels"] for c in cases if c["voxels"] is not None] or [[0] * dataset.num_classes], axis=0)
    extents = [c["extent"] for c in cases if c.get("extent")]
    sizes, spacings = np.array([c["size"] for c in cases]), np.array([c["spacing"] for c in cases])
    return {
        "picture": bool(cases[0]["picture"]),
        "cases": len(cases),
        "median_size": [float(v) for v in np.median(sizes, axis=0)],
        "smallest_size": sizes.min(0).tolist(),
        "largest_size": sizes.max(0).tolist(),
        "median_spacing": [float(v) for v in np.median(spacings, axis=0)],
        "smallest_spacing": spacings.min(0).tolist(),
        "largest_spacing": spacings.max(0).tolist(),
        "intensities": intensities,
        "class_voxels": dict(zip(dataset.class_names, map(int, totals), strict=True)),
        "class_frequencies": dict(zip(dataset.class_names, map(float, totals / max(totals.sum(), 1)), strict=True)),
        "median_extent": [float(v) for v in np.median(extents, axis=0)] if extents else None,
        "one_piece": _in_one_piece([c["pieces"] for c in cases if c["pieces"] is not None]),
        "warnings": [w for c in cases for w in c["warnings"]],
    }


def _in_one_piece(cases: Sequence[Sequence[float | None]]) -> list[list[int]]:
    """Return the groups of classes that are one piece in every labelled case: the whole foreground, or else classes.

    A case without the class says nothing of it. Fewer than :data:`WITNESSES` cases are no evidence.
    """

    def holds(shares: Sequence[float | None]) -> bool:
        seen = [share for share in shares if share is not None]
        return len(seen) >= WITNESSES and min(seen) >= ONE_PIECE

    if not cases:
        return []
    foreground, *classes = zip(*cases, strict=True)
    if holds(foreground):
        return [list(range(1, len(classes) + 1))]
    return [[value] for value, shares in enumerate(classes, 1) if holds(shares)]


def _outlier(channel: np.ndarray) -> str | None:
    low, middle, high = np.percentile(channel, [0.5, 50, 99.5])
    spread = max(float(high - low), 1e-6)
    top = float(np.abs(channel.astype(np.float32) - middle).max())
    if top > OUTLIER * spread and high > low:
        return f"an intensity lies {top / spread:.0f} times the usual range away from the rest; it is clipped"
    return None
