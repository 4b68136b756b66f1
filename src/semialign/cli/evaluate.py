"""Score predictions against labels: Dice, IoU, HD95, ASD and NSD per class and case."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from semialign.evaluation.results import Evaluation


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign evaluate``."""

    predictions: tyro.conf.Positional[Path]
    """Folder of predicted label files, or one file."""
    labels: tyro.conf.Positional[Path]
    """Folder of label files with the same names, or one file."""
    output: Path | None = None
    """Where cases.csv and summary.json go (default: PREDICTIONS/evaluation)."""
    dataset_json: Path | None = None
    """Names the classes (default: the dataset.json above or in LABELS, or in PREDICTIONS)."""
    split: Path | None = None
    """Split file or a published split's name; every case of --part must then be predicted."""
    part: str | None = None
    """Which part of the split to score: labelled, unlabelled, validation or test (default: test)."""
    frequencies: Path | None = None
    """Run folder or fingerprint.json: also average over head, middle and tail, by frequency in its labelled cases."""
    tolerance: float = 2.0
    """Tolerance of NSD in mm; pixels for pictures."""
    rule: str | None = None
    """How classes that a case lacks count: default; ga, magicnet or dhc to compare with published tables."""
    recipe: str | None = None
    """A recipe whose split and rule to score by, where --split and --rule name none."""
    group_by: str | None = None
    """Regular expression; figures also for each group of cases with the same match (a source, a centre)."""
    workers: int | None = None
    """Cases scored at a time (default: one a core, 8 at most)."""
    report: bool = True
    """Also write report.html there: tables, box plots, and pictures where the images lie beside LABELS."""


def run(arguments: Arguments) -> None:
    """Score, write and print."""
    from semialign.cli.screen import progress_bars
    from semialign.common.errors import UserError
    from semialign.evaluation.evaluate import cases_of_part, evaluate
    from semialign.evaluation.groups import read_frequencies
    from semialign.recipes.load import load_recipe

    asked = load_recipe(arguments.recipe) if arguments.recipe else {}
    split = arguments.split or (Path(asked["split"]) if asked.get("split") else None)
    if arguments.part is not None and split is None:
        raise UserError(f"--part {arguments.part}: needs the split it is a part of; add --split FILE")
    predictions = arguments.predictions
    beside = predictions.parent if predictions.is_file() else predictions
    output = arguments.output or beside / "evaluation"
    with progress_bars() as progress:
        evaluation = evaluate(
            predictions,
            arguments.labels,
            output=output,
            dataset_json=arguments.dataset_json,
            cases=cases_of_part(split, arguments.part or "test") if split else None,
            frequencies=read_frequencies(arguments.frequencies) if arguments.frequencies else None,
            tolerance=arguments.tolerance,
            rule=arguments.rule or asked.get("rule") or "default",
            group_by=arguments.group_by,
            workers=arguments.workers,
            progress=progress,
        )
    _print(evaluation)
    if arguments.frequencies and not evaluation.summary["groups"]:
        print(f"note: the classes have no groups: {arguments.frequencies} knows one frequency alone, or none")
    written = [output / "summary.json", output / "cases.csv"]
    if arguments.report:
        from semialign.evaluation.evaluation_report import report_evaluation

        written.append(report_evaluation(output))
    print(f"written: {', '.join(str(path) for path in written)}")


def _print(evaluation: "Evaluation") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    summary = evaluation.summary
    unit = {"mm": "mm", "pixels": "px"}[summary["units"]]
    mean = {"name": "mean", **summary["mean"], "infinite": summary["infinite"]}
    counts = ("scored", "absent", "missed", "spurious")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("class")
    for title in ("Dice", "IoU", f"HD95 {unit}", f"ASD {unit}", f"NSD {summary['tolerance']:g} {unit}", *counts):
        table.add_column(title, justify="right")
    blocks = [evaluation.class_rows(), evaluation.group_rows(), evaluation.case_group_rows()]
    ends = {sum(map(len, blocks[: i + 1])) - 1 for i in range(len(blocks))}
    for place, row in enumerate([*(row for block in blocks for row in block), mean]):
        cells = [_figure(row[m], 3) for m in ("dice", "iou")]
        cells += [_figure(row[m], 2, row["infinite"] if summary["rule"] == "default" else 0) for m in ("hd95", "asd")]
        cells += [_figure(row["nsd"], 3), *(str(row.get(count, "")) for count in counts)]
        table.add_row(Text(row["name"]), *cells, end_section=place in ends)
    Console(width=None if Console().is_terminal else 120).print(table)
    print(f"cases: {summary['cases']}")
    for note in evaluation.notes():
        print(f"note: {note}")


def _figure(value: float | None, digits: int, infinite: int = 0) -> str:
    # An average of distances never stands without the number of infinite ones it leaves out.
    text = "-" if value is None else f"{value:.{digits}f}"
    return f"{text} +{infinite}∞" if infinite else text
