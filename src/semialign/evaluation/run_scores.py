"""Predicting and scoring a part of a run's split, with how sure the model was; what is done already is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json
from semialign.data.dataset import Dataset
from semialign.data.splits import Split
from semialign.evaluation.calibration import Calibration
from semialign.evaluation.certainty import Gather, certainty_path, load_certainty, made_by
from semialign.evaluation.evaluate import evaluate
from semialign.evaluation.groups import FINGERPRINT, read_frequencies
from semialign.evaluation.results import Evaluation
from semialign.inference.inputs import find_cases, output_path
from semialign.inference.predictor import predict

Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scored:
    """A scored part of a run: scores, and by case prediction file, certainty file, entropy (bits) and seconds."""

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

    Labels of ``labelled``, ``validation`` and ``test`` cases alone are opened. Predictions of the same checkpoint that
    are newer than it and than their labels are kept. Raises :class:`UserError` for a case without label or one that
    cannot be predicted, and where the data set has other classes by now than the run learnt.
    """
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
    folder, sure = run / part, run / part / "certainty"
    which = checkpoint if (run / f"{checkpoint}.pt").exists() else "last"
    inputs = [path for case in ids for path in dataset.cases[case].images]
    files = {case.id: output_path(case, folder) for case in find_cases(inputs, len(dataset.channel_names))}
    labels = {case: label for case in ids if (label := dataset.cases[case].label) is not None}
    _drop_stale(run, files, labels, sure, which)
    summary = predict(
        [run],
        inputs,
        folder,
        checkpoint=checkpoint,
        accelerator=accelerator,
        observe=Gather(sure, labels, made_by=which),
        progress=progress,
    )
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
    return _with_certainty(evaluation, files, sure, dataset.class_names)


def _with_certainty(evaluation: Evaluation, files: dict[str, Path], sure: Path, names: Sequence[str]) -> Scored:
    paths = {case: certainty_path(sure, case) for case in files}
    total = Calibration.nothing(len(names))
    entropy, seconds = {}, {}
    for case, path in paths.items():
        found = load_certainty(path)
        if found is None:
            raise UserError(f"{path}: is broken; delete it and run the same command again")
        total, entropy[case], seconds[case] = total + found.calibration, found.unsure, found.seconds
    write_json(sure.parent / "evaluation" / "calibration.json", {"cases": list(files), **total.described(names)})
    return Scored(evaluation, files, paths, entropy, seconds, total)


def _frequencies(run: Path, dataset: Dataset) -> dict[str, float] | None:
    found = read_frequencies(run) if (run / FINGERPRINT).exists() else {}
    # Classes may have been renamed since; a page without groups is better than none.
    return found if set(dataset.class_names[1:]) <= set(found) else None


def _drop_stale(run: Path, files: dict[str, Path], labels: dict[str, Path], sure: Path, which: str) -> None:
    """Delete predictions older than the newest checkpoint or their label, made by another, or without certainty.

    A certainty file holds how the probabilities agreed with the label of its time.
    """
    newest = max((p.stat().st_mtime for p in run.glob("*.pt")), default=0.0)
    for case, path in files.items():
        kept = certainty_path(sure, case)
        since = max(newest, labels[case].stat().st_mtime)
        fresh = path.exists() and kept.exists() and min(p.stat().st_mtime for p in (path, kept)) >= since
        if not (fresh and made_by(kept) == which):
            path.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)
