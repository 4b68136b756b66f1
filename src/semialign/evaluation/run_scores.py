"""Predicting and scoring a part of a run's split, with how sure the model was; what is done already is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json
from semialign.data.case_keys import case_key, digest
from semialign.data.dataset import Case, Dataset
from semialign.data.splits import Split
from semialign.evaluation.calibration import Calibration
from semialign.evaluation.certainty import Gather, certainty_path, load_certainty, made_by
from semialign.evaluation.evaluate import evaluate
from semialign.evaluation.groups import FINGERPRINT, read_frequencies
from semialign.evaluation.results import Evaluation
from semialign.inference.inputs import output_path
from semialign.inference.predictor import predict_with

Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scored:
    """A scored part of a run: scores, and by case prediction file, certainty file, entropy (bits) and seconds.

    ``checkpoint``: the file that predicted.
    """

    checkpoint: Path
    evaluation: Evaluation
    files: dict[str, Path]
    certainty: dict[str, Path]
    entropy: dict[str, float | None]
    seconds: dict[str, float]
    calibration: Calibration


def score_part(
    run: Path,
    dataset: Dataset,
    split: Split,
    part: str,
    *,
    checkpoint: str = "best",
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Scored:
    """Predict the cases of a split's part into ``RUN/PART`` and score them.

    Labels of ``labelled``, ``validation`` and ``test`` cases alone are opened. Predictions of the same checkpoint,
    images and labels are kept. Raises :class:`UserError` for a case without label or one that
    cannot be predicted, and where the data set has other classes by now than the run learnt.
    """
    from semialign.inference.model import checkpoint_path, load_trained

    learnt = len(read_json(run / FINGERPRINT)["class_frequencies"]) if (run / FINGERPRINT).exists() else None
    if learnt not in (None, dataset.num_classes):
        raise UserError(
            f"{dataset.root / 'dataset.json'}: has {dataset.num_classes} classes (background included), but {run} "
            f"learnt {learnt}; train on it anew, or name the data set of the run with --data"
        )
    ids = getattr(split, part)
    lacking = [case for case in ids if dataset.cases[case].label is None]
    if not ids or lacking:
        what = f"case {lacking[0]} has no label" if lacking else f"the split names no {part} cases"
        raise UserError(f"{dataset.root}: {what}; nothing to score")
    model = load_trained(run, checkpoint=checkpoint, accelerator=accelerator)  # before anything is deleted
    weights = checkpoint_path(run, checkpoint)
    folder, sure = run / part, run / part / "certainty"
    cases = [dataset.cases[case] for case in ids]
    files = {case.id: output_path(case, folder) for case in cases}
    labels = {case.id: case.label for case in cases if case.label is not None}
    keys = _keys(weights, cases)
    _drop_stale(files, sure, keys)
    observe = Gather(sure, labels, made_by=keys)
    summary = predict_with([model], cases, folder, names=[str(run)], observe=observe, progress=progress)
    if summary.failed:
        reason = next(iter(summary.failed.values()))
        raise UserError(reason)
    evaluation = evaluate(
        folder,
        dataset.root / "labelsTr",
        output=folder / "evaluation",
        cases=list(ids),
        dataset_json=dataset.root / "dataset.json",
        frequencies=_frequencies(run, dataset),
    )
    return _with_certainty(weights, evaluation, files, sure, dataset.class_names)


def _with_certainty(
    weights: Path, evaluation: Evaluation, files: dict[str, Path], sure: Path, names: Sequence[str]
) -> Scored:
    paths = {case: certainty_path(sure, case) for case in files}
    total = Calibration.nothing(len(names))
    entropy, seconds = {}, {}
    for case, path in paths.items():
        found = load_certainty(path)
        if found is None:
            raise UserError(f"{path}: is broken; delete it and run the same command again")
        total, entropy[case], seconds[case] = total + found.calibration, found.unsure, found.seconds
    write_json(sure.parent / "evaluation" / "calibration.json", {"cases": list(files), **total.described(names)})
    return Scored(weights, evaluation, files, paths, entropy, seconds, total)


def _frequencies(run: Path, dataset: Dataset) -> dict[str, float] | None:
    found = read_frequencies(run) if (run / FINGERPRINT).exists() else {}
    # Classes may have been renamed since; a page without groups is better than none.
    return found if set(dataset.class_names[1:]) <= set(found) else None


def _keys(weights: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Return what the figures of each case hang on: checkpoint, images and label."""
    about = weights.stat()
    made_by = [weights.name, about.st_size, about.st_mtime_ns]
    return {case.id: digest([*made_by, *case_key(case, labelled=True)]) for case in cases}


def _drop_stale(files: dict[str, Path], sure: Path, keys: dict[str, str]) -> None:
    """Delete predictions made by another checkpoint, of other images or before a label was mended.

    A certainty file holds how the probabilities agreed with the label of its time.
    """
    for case, path in files.items():
        kept = certainty_path(sure, case)
        if not (path.exists() and made_by(kept) == keys[case]):
            path.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)
