"""Which cases a report page shows, and what it shows of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semialign.common.errors import UserError
from semialign.data.dataset import Dataset, read_case
from semialign.data.geometry import canonical_spacing, canonical_view
from semialign.data.grid import difference
from semialign.data.image_io import read_label
from semialign.evaluation.report_views import PictureCase


def chosen(dice: Mapping[str, float]) -> dict[str, str]:
    """Return the cases to show, worst first, each with what it is: worst, median or best; of two, worst and best."""
    order = sorted(dice, key=lambda case: dice[case])
    if not order:
        return {}
    titles: dict[str, str] = {}
    for title, case in (("worst", order[0]), ("best", order[-1]), ("median", order[len(order) // 2])):
        titles.setdefault(case, title)
    return {case: titles[case] for case in order if case in titles}


def picture_case(
    dataset: Dataset,
    case: str,
    *,
    label: Path,
    prediction: Path,
    title: str,
    part: str,
    dice: float,
    entropy: np.ndarray | None = None,
) -> PictureCase:
    """Return a case with its image, label and prediction, turned to RAS order; ``entropy`` is so already.

    Raises :class:`UserError` where image and label are not on one grid.
    """
    image = read_case(dataset.cases[case], len(dataset.channel_names))
    true, grid = read_label(label)
    apart = difference(grid, image.grid)
    if apart:
        raise UserError(f"{label}: {apart} as in its image; the case cannot be shown")
    predicted, _ = read_label(prediction)
    # The smallest that holds the mark of what nobody annotated: three volumes are held at once.
    true = true.astype(np.int16 if true.max(initial=0) < 2**15 else np.int32)
    if dataset.ignore is not None:
        true[true == dataset.ignore] = -1
    channels = image.array if len(image.array) in (1, 3) else image.array[:1]
    return PictureCase(
        id=case,
        part=part,
        image=canonical_view(channels, image.grid),
        label=canonical_view(true, image.grid),
        prediction=canonical_view(predicted, image.grid),
        spacing=canonical_spacing(grid),
        dice=dice,
        title=title,
        entropy=entropy,
    )
