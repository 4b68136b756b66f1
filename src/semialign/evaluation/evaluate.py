"""Scoring a folder of predictions against a folder of labels: the function behind ``semialign evaluate``."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError, closest, require_known
from semialign.common.files import read_json, visible_in
from semialign.data.dataset import labels_described as classes_described
from semialign.data.formats import ending_of, stem_of
from semialign.data.grid import difference
from semialign.data.image_io import read_label
from semialign.data.splits import PARTS, read_split_file
from semialign.evaluation.aggregate import METRICS, RULES, aggregate
from semialign.evaluation.groups import case_group_figures, class_groups, group_figures
from semialign.evaluation.metrics import DEFAULT_TOLERANCE, ClassScore, absent, boxes_of, score_case
from semialign.evaluation.results import Evaluation, load_evaluation, write_evaluation

__all__ = ["Evaluation", "cases_of_part", "evaluate", "load_evaluation", "write_evaluation"]

_LARGEST = 65_535  # no label map numbers its classes higher; what does is damaged


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    output: Path | None = None,
    dataset_json: Path | None = None,
    cases: Sequence[str] | None = None,
    frequencies: Mapping[str, float] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    rule: str = "default",
    group_by: str | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Score label files in ``predictions`` against those of the same case id in ``labels``; each a folder or one file.

    Class names and the ignore value come from ``dataset_json`` or the ``dataset.json`` above or in ``labels``, or in
    ``predictions``; without any, every value found is a class. ``cases``: score these, all of them; without it, every
    prediction that has a label. ``frequencies``: of the foreground classes in the labelled training cases (see
    :func:`groups.read_frequencies`); head, middle and tail are told apart by them (:func:`groups.class_groups`).
    ``tolerance`` of NSD: mm, for pictures pixels. ``rule``: see :data:`RULES`. ``group_by``: a regular expression;
    figures also for each group of cases with the same match. ``output``: folder for ``cases.csv`` and
    ``summary.json``; ``None`` writes nothing. ``workers``: threads (default: one a core, 8 at most). ``progress`` is
    called with (what, done, of).

    Raises :class:`UserError` for missing files, a prediction on another grid than its label, values that are no class.
    """
    require_known(rule, RULES, "rule")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(f"tolerance {tolerance}: must be a number of mm (pixels for pictures), 0 or more")
    predictions, labels = Path(predictions), Path(labels)
    pairs, left_out = _pairs(predictions, labels, cases)
    classes, ignore = _classes(predictions, labels, dataset_json)
    groups = _groups(classes, frequencies, labels)
    found = _score_all(pairs, classes, ignore, tolerance, workers, progress)
    if len({picture for _, picture in found.values()}) > 1:
        raise UserError(f"{predictions}: holds both pictures and volumes; evaluate them apart (pixels are not mm)")
    scores = _same_classes({case: scores for case, (scores, _) in found.items()})
    first = next(iter(scores.values()))
    if not first:
        raise UserError(f"{labels}: labels and predictions are all background; name the classes by --dataset-json")
    averages = aggregate(scores, rule)
    summary = {
        "predictions": str(predictions.absolute()),
        "labels": str(labels.absolute()),
        "units": "pixels" if any(picture for _, picture in found.values()) else "mm",
        "tolerance": float(tolerance),
        "class_values": {score.name: score.value for score in first},
        "ignore": ignore,
        "named": classes is not None,
        **left_out,
        **averages,
        "groups": group_figures(averages["classes"], groups, metrics=METRICS),
        "case_groups": case_group_figures(scores, group_by, rule),
    }
    evaluation = Evaluation(scores, summary)
    if output is not None:
        write_evaluation(evaluation, output)
    return evaluation


def cases_of_part(split: Path, part: str) -> tuple[str, ...]:
    """Return the case ids under ``part`` of a split file or published split; :class:`UserError` where there is none."""
    require_known(part, PARTS, "part")
    value = read_split_file(split)
    ids = value.get(part, []) if isinstance(value, dict) else None
    if not isinstance(ids, list) or not all(isinstance(case, str) for case in ids):
        raise UserError(f'{split}: a split file holds lists of case ids under "labelled", "unlabelled", ...')
    if not ids:
        raise UserError(f"{split}: no {part} cases; choose another --part")
    return tuple(ids)


def _pairs(
    predictions: Path, labels: Path, cases: Sequence[str] | None
) -> tuple[dict[str, tuple[Path, Path]], dict[str, list[str]]]:
    predicted, labelled = label_files(predictions), label_files(labels)
    if predictions.is_file() and labels.is_file():
        labelled = {next(iter(predicted)): labels}  # two files belong together whatever their names
    if cases is None:
        wanted = sorted(set(predicted) & set(labelled))
        if not wanted:
            some = ", ".join(sorted(predicted)[:3])
            raise UserError(
                f"{predictions}: no prediction ({some}, ...) has a label of the same name in {labels}; "
                "name a prediction as its label"
            )
    else:
        wanted = sorted(set(cases))
        _require_all(wanted, predicted, f"{predictions}: no prediction", "predict them first")
        _require_all(wanted, labelled, f"{labels}: no label", "add them or choose other cases")
    chosen = set(wanted) if cases is not None else set(predicted) | set(labelled)
    left_out = {
        "without_label": sorted(chosen & set(predicted) - set(labelled)),
        "without_prediction": sorted(chosen & set(labelled) - set(predicted)),
    }
    return {case: (predicted[case], labelled[case]) for case in wanted}, left_out


def _require_all(wanted: list[str], there: Mapping[str, Path], lack: str, mend: str) -> None:
    missing = [case for case in wanted if case not in there]
    if missing:
        raise UserError(f"{lack} for {len(missing)} of {len(wanted)} cases: {', '.join(missing)}; {mend}")


def label_files(path: Path) -> dict[str, Path]:
    """Return the label files of a folder, or the one file, by case id; :class:`UserError` for none and for doubles."""
    if path.is_file():
        return {stem_of(path): path}
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files: dict[str, Path] = {}
    for file in visible_in(path):
        if file.is_file() and ending_of(file):
            other = files.setdefault(stem_of(file), file)
            if other is not file:
                raise UserError(f"{file}: a second file of case {stem_of(file)}, beside {other.name}; remove one")
    if not files:
        inside = next((name for name in ("labelsTr", "labelsTs") if (path / name).is_dir()), None)
        raise UserError(f"{path}: no label files" + (f"; give {path / inside}" if inside else " in this folder"))
    return files


def _classes(predictions: Path, labels: Path, given: Path | None) -> tuple[dict[str, int] | None, int | None]:
    if given is not None:
        given = Path(given)
        about: Path | None = given / "dataset.json" if given.is_dir() else given
    else:
        folders = [path.absolute() if path.is_dir() else path.absolute().parent for path in (labels, predictions)]
        places = (folders[0].parent, folders[0], folders[1])
        about = next((place / "dataset.json" for place in places if (place / "dataset.json").is_file()), None)
    if about is None:
        return None, None
    described = read_json(about)
    if not isinstance(described, dict):
        raise UserError(f"{about}: must hold an object with channel_names and labels")
    values, ignore = classes_described(about, described)
    return {name: values[name] for name in sorted(values, key=lambda name: values[name]) if values[name] > 0}, ignore


def _groups(
    classes: Mapping[str, int] | None, frequencies: Mapping[str, float] | None, labels: Path
) -> dict[str, tuple[str, ...]]:
    if frequencies is None:
        return {}
    if classes is None:
        raise UserError(f"{labels}: no dataset.json names the classes, so they cannot be grouped; add --dataset-json")
    unknown = [name for name in classes if name not in frequencies]
    if unknown:
        raise UserError(
            f"class '{unknown[0]}' has no frequency{closest(unknown[0], frequencies)}; "
            "name a run on the same data set by --frequencies"
        )
    return class_groups(frequencies)


def _score_all(
    pairs: Mapping[str, tuple[Path, Path]],
    classes: Mapping[str, int] | None,
    ignore: int | None,
    tolerance: float,
    workers: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, tuple[list[ClassScore], bool]]:
    # Threads rather than processes: gzip, distance trees and erosion release the interpreter's lock, and a process
    # would first spend seconds on its imports. MONAI is imported once here, before threads could do it halfway.
    import monai.metrics.utils  # noqa: F401

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {}
    with ThreadPoolExecutor(max(1, min(workers or min(cores, 8), len(pairs)))) as pool:
        tasks = {case: pool.submit(_score_pair, *pair, classes, ignore, tolerance) for case, pair in pairs.items()}
        try:
            for done, (case, task) in enumerate(tasks.items(), 1):
                found[case] = task.result()
                if progress is not None:
                    progress("cases scored", done, len(tasks))
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _score_pair(
    prediction: Path, label: Path, classes: Mapping[str, int] | None, ignore: int | None, tolerance: float
) -> tuple[list[ClassScore], bool]:
    predicted, grid = read_label(prediction)
    true, true_grid = read_label(label)
    apart = difference(grid, true_grid)
    if apart:
        raise UserError(
            f"{prediction}: {apart}, unlike its label {label}; resample the prediction to the label's grid "
            "with nearest-neighbour"
        )
    known = set(classes.values()) if classes is not None else None
    values = _values(prediction, predicted, known) | _values(label, true, None if known is None else known | {ignore})
    scored = classes if classes is not None else {f"class {value}": value for value in sorted(values)}
    scores = score_case(predicted, true, spacing=true_grid.spacing, classes=scored, ignore=ignore, tolerance=tolerance)
    return scores, grid.picture


def _values(path: Path, array: np.ndarray, known: set[Any] | None) -> set[int]:
    # The foreground values of a label map, which must all be known.
    least, most = int(array.min()), int(array.max())
    present = set(boxes_of(array, min(most, _LARGEST)))
    strange = sorted(present - known) if known is not None else []
    strange += [value for value in (least, most) if value < 0 or value > _LARGEST]
    if strange:
        mend = "correct the file or name the class in dataset.json" if known is not None else "correct the file"
        raise UserError(f"{path}: value {strange[0]} is no class; {mend}")
    return present


def _same_classes(found: Mapping[str, Sequence[ClassScore]]) -> dict[str, tuple[ClassScore, ...]]:
    # Without a dataset.json a case lists only the values it holds; those of other cases are absent from it.
    names = dict(sorted({score.value: score.name for scores in found.values() for score in scores}.items()))
    complete = {}
    for case, scores in found.items():
        by_value = {score.value: score for score in scores}
        complete[case] = tuple(by_value.get(value) or absent(name, value) for value, name in names.items())
    return complete
