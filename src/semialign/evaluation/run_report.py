"""A finished run's page: predict and score its validation cases, pick pictures, write ``report.html``."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError, require_known
from semialign.common.files import read_json, read_yaml
from semialign.data.dataset import Dataset, load_dataset, read_case
from semialign.data.geometry import canonical_spacing, canonical_view
from semialign.data.image_io import read_label
from semialign.data.splits import Split, load_split
from semialign.evaluation.evaluate import evaluate
from semialign.evaluation.groups import FINGERPRINT, read_frequencies
from semialign.evaluation.report import PictureCase, Report, write_report
from semialign.evaluation.results import Evaluation
from semialign.inference.inputs import find_cases, output_path
from semialign.inference.predictor import predict

Say = Callable[[str, int, int], None]
REPORTABLE = ("validation", "test", "labelled")


def report_run(
    run: Path,
    *,
    data: Path | None = None,
    part: str | None = None,
    checkpoint: str = "best",
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Path:
    """Write ``RUN/report.html`` and return its path.

    ``part``: whose cases are scored and shown: ``validation`` (default), ``test``, or ``labelled`` (default where
    nothing was set aside; these trained the model, and the page says so). Predictions and scores go to ``RUN/PART``.
    ``data``: the data set's folder, where it has moved. Raises :class:`UserError` for a folder that is no finished run.
    """
    run = Path(run)
    about = read_json(run / "data.json")
    dataset = load_dataset(Path(data) if data else Path(about["root"]))
    split = load_split(run / "split.json", dataset)
    part = part or ("validation" if split.validation else "labelled")
    require_known(part, REPORTABLE, "part")
    evaluation, files = score_part(
        run, dataset, split, part, checkpoint=checkpoint, accelerator=accelerator, progress=progress
    )
    write_report(run / "report.html", _report(run, dataset, part, evaluation, files))
    return run / "report.html"


def score_part(
    run: Path,
    dataset: Dataset,
    split: Split,
    part: str,
    *,
    checkpoint: str = "best",
    accelerator: str = "auto",
    progress: Say | None = None,
) -> tuple[Evaluation, dict[str, Path]]:
    """Predict the cases of a split's part into ``RUN/PART`` and score them; returns scores and prediction files.

    Labels of ``labelled``, ``validation`` and ``test`` cases alone are opened. Predictions that are newer than the
    checkpoint are kept. Raises :class:`UserError` for a case without label or one that cannot be predicted.
    """
    ids = getattr(split, part)
    lacking = [case for case in ids if dataset.cases[case].label is None]
    if not ids or lacking:
        what = f"case {lacking[0]} has no label" if lacking else f"the split names no {part} cases"
        raise UserError(f"{dataset.root}: {what}; nothing to score")
    folder = run / part
    _drop_stale(folder, run)
    inputs = [path for case in ids for path in dataset.cases[case].images]
    summary = predict([run], inputs, folder, checkpoint=checkpoint, accelerator=accelerator, progress=progress)
    if summary.failed:
        reason = next(iter(summary.failed.values()))
        raise UserError(reason)
    files = {case.id: output_path(case, folder) for case in find_cases(inputs, len(dataset.channel_names))}
    evaluation = evaluate(
        folder,
        dataset.root / "labelsTr",
        output=folder / "evaluation",
        cases=list(ids),
        dataset_json=dataset.root / "dataset.json",
        frequencies=_frequencies(run, dataset),
    )
    return evaluation, files


def _frequencies(run: Path, dataset: Dataset) -> dict[str, float] | None:
    found = read_frequencies(run) if (run / FINGERPRINT).exists() else {}
    # Classes may have been renamed since; a page without groups is better than none.
    return found if set(dataset.class_names[1:]) <= set(found) else None


def _drop_stale(folder: Path, run: Path) -> None:
    newest = max((p.stat().st_mtime for p in run.glob("*.pt")), default=0.0)
    for path in folder.glob("*") if folder.is_dir() else []:
        if path.is_file() and path.stat().st_mtime < newest:
            path.unlink()


def _report(run: Path, dataset: Dataset, part: str, evaluation: Evaluation, files: dict[str, Path]) -> Report:
    config, result = read_yaml(run / "config.yaml"), read_json(run / "result.json")
    dice = evaluation.case_dice()
    chosen = _chosen(dice)
    notes = list(evaluation.notes())
    if part == "labelled":
        notes.append("these cases trained the model: their scores say nothing about new scans; set some aside")
    mean = evaluation.summary["mean"]["dice"]
    minutes = result["training_seconds"] / 60
    facts = [
        (f"Mean Dice ({part}, {len(files)} cases)", "–" if mean is None else f"{mean:.3f}"),
        ("Method", ", ".join([config["method"], *config["plugins"]])),
        ("Training", f"{result['steps']} steps, {minutes:.1f} minutes"),
        ("Peak memory", f"{result['peak_memory_bytes'] / 2**30:.1f} GiB"),
    ]
    return Report(
        title=f"{dataset.name}: {config['method']}",
        summary=facts,
        glance=_glance(read_json(run / "fingerprint.json")),
        log=run / "log.csv",
        validation=run / "validation.csv",
        proxies=run / "proxies.csv",
        class_rows=evaluation.class_rows(),
        group_rows=evaluation.group_rows(),
        case_rows=[{"id": case, "part": part, "dice": dice.get(case)} for case in files],
        cases=[_picture(dataset, case, title, part, files[case], dice[case]) for case, title in chosen.items()],
        settings=config | {"versions_in_training": result["versions"]},
        class_names=dataset.class_names,
        notes=notes,
    )


def _chosen(dice: Mapping[str, float]) -> dict[str, str]:
    """Return the cases to show, worst first, each with what it is: worst, median or best; of two, worst and best."""
    order = sorted(dice, key=lambda case: dice[case])
    if not order:
        return {}
    titles: dict[str, str] = {}
    for title, case in (("worst", order[0]), ("best", order[-1]), ("median", order[len(order) // 2])):
        titles.setdefault(case, title)
    return {case: titles[case] for case in order if case in titles}


def _glance(fingerprint: dict[str, Any]) -> dict[str, Any]:
    def both(name: str) -> str:
        ends = [fingerprint[f"{end}_{name}"] for end in ("smallest", "median", "largest")]
        return ", ".join(" x ".join(f"{v:g}" for v in end) for end in ends)

    glance: dict[str, Any] = {"cases": fingerprint["parts"], "class_frequencies": fingerprint["class_frequencies"]}
    glance["size, voxels (smallest, median, largest)"] = both("size")
    if not fingerprint["picture"]:
        glance["spacing, mm (smallest, median, largest)"] = both("spacing")
    if fingerprint["warnings"]:
        glance["notes"] = fingerprint["warnings"]
    return dict(json.loads(json.dumps(glance)))


def _picture(dataset: Dataset, case: str, title: str, part: str, prediction: Path, dice: float) -> PictureCase:
    source = dataset.cases[case]
    assert source.label is not None
    image = read_case(source, len(dataset.channel_names))
    label, grid = read_label(source.label)
    predicted, _ = read_label(prediction)
    label = label.astype(np.int32)
    if dataset.ignore is not None:
        label[label == dataset.ignore] = -1
    channels = image.array if len(image.array) in (1, 3) else image.array[:1]
    return PictureCase(
        id=case,
        part=part,
        image=canonical_view(channels, image.grid),
        label=canonical_view(label, image.grid),
        prediction=canonical_view(predicted, image.grid),
        spacing=canonical_spacing(grid),
        dice=dice,
        title=title,
    )
