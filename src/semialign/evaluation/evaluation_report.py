"""The page of an evaluation: tables and box plots, and pictures where the images lie beside the labels."""

from pathlib import Path

from semialign.common.errors import UserError
from semialign.data.dataset import Dataset, load_dataset
from semialign.evaluation.evaluate import label_files
from semialign.evaluation.report import PictureCase, Report, write_report
from semialign.evaluation.report_cases import chosen, picture_case
from semialign.evaluation.results import Evaluation, load_evaluation


def report_evaluation(folder: Path, *, data: Path | None = None) -> Path:
    """Write ``report.html`` into the folder of an evaluation (with its ``summary.json``) and return its path.

    Pictures of the worst, median and best case are shown where the labels lie in a data set (its ``labelsTr``; or
    ``data``, the data set's folder) and labels and predictions are where they were. Raises :class:`UserError` for a
    folder that holds no evaluation.
    """
    folder = Path(folder)
    evaluation = load_evaluation(folder)
    write_report(folder / "report.html", _report(evaluation, folder, data))
    return folder / "report.html"


def _report(evaluation: Evaluation, folder: Path, data: Path | None) -> Report:
    summary = evaluation.summary
    mean, few = summary["mean"], len(evaluation.scores)
    unit = "px" if summary["units"] == "pixels" else "mm"
    facts = [
        ("Mean Dice", "–" if mean["dice"] is None else f"{mean['dice']:.3f}"),
        ("Cases", str(few)),
        ("Classes", str(len(summary["classes"]))),
        (f"Mean HD95, {unit}", "–" if mean["hd95"] is None else f"{mean['hd95']:.2f}"),
    ]
    if summary["infinite"] and summary["rule"] == "default":
        facts.append(("Infinite distances", str(summary["infinite"])))
    return Report(
        title=f"Evaluation of {_place(summary['predictions'], folder)}",
        summary=facts,
        glance={},
        log=None,
        validation=None,
        class_rows=evaluation.class_rows(),
        group_rows=evaluation.group_rows(),
        case_group_rows=evaluation.case_group_rows(),
        spread={metric: evaluation.spread(metric) for metric in ("dice", "hd95")},
        case_rows=[{"part": "scored", **row} for row in evaluation.case_rows()],
        cases=_pictures(evaluation, data),
        unit=unit,
        settings={key: summary[key] for key in ("predictions", "labels", "rule", "tolerance", "class_values")},
        class_names=_class_names(evaluation),
        notes=evaluation.notes(),
    )


def _place(predictions: str, folder: Path) -> str:
    return Path(predictions).name or folder.absolute().parent.name


def _class_names(evaluation: Evaluation) -> list[str]:
    """Return names by value; a value without a class, as where no ``dataset.json`` named any, is called by it."""
    values = {value: name for name, value in evaluation.summary["class_values"].items()}
    return ["background", *(values.get(value, f"value {value}") for value in range(1, max(values, default=0) + 1))]


def _pictures(evaluation: Evaluation, data: Path | None) -> list[PictureCase]:
    labels, predictions = (Path(evaluation.summary[key]) for key in ("labels", "predictions"))
    dataset = _dataset(Path(data) if data is not None else labels.absolute().parent)
    if dataset is None or not labels.is_dir() or not predictions.is_dir():
        return []
    try:
        true, predicted = label_files(labels), label_files(predictions)
    except UserError:
        return []  # they have moved since; the scores stand
    dice = evaluation.case_dice()
    shown = []
    for case, title in chosen(dice).items():
        if not (case in dataset.cases and case in true and case in predicted):
            continue
        try:
            picture = picture_case(
                dataset,
                case,
                label=true[case],
                prediction=predicted[case],
                title=title,
                part="scored",
                dice=dice[case],
            )
        except UserError:
            continue  # the scores stand, whatever ails the image
        shown.append(picture)
    return shown


def _dataset(root: Path) -> Dataset | None:
    try:
        return load_dataset(root) if (root / "imagesTr").is_dir() else None
    except UserError:
        return None
