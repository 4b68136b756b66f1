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
    """Split file; every case of --part must then be predicted."""
    part: str | None = None
    """Which part of the split to score: labelled, unlabelled, validation or test (default: test)."""
    tolerance: float = 2.0
    """Tolerance of NSD in mm; pixels for pictures."""
    rule: str = "default"
    """How classes that a case lacks count: default; ga, magicnet or dhc to compare with published tables."""
    workers: int | None = None
    """Cases scored at a time (default: one a core, 8 at most)."""


def run(arguments: Arguments) -> None:
    """Score, write and print."""
    from semialign.cli.screen import progress_bars
    from semialign.common.errors import UserError
    from semialign.evaluation.evaluate import cases_of_part, evaluate

    if arguments.part is not None and arguments.split is None:
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
            cases=cases_of_part(arguments.split, arguments.part or "test") if arguments.split else None,
            tolerance=arguments.tolerance,
            rule=arguments.rule,
            workers=arguments.workers,
            progress=progress,
        )
    _print(evaluation)
    print(f"written: {output / 'summary.json'}, {output / 'cases.csv'}")


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
    rows = evaluation.class_rows()
    for place, row in enumerate([*rows, mean]):
        cells = [_figure(row[m], 3) for m in ("dice", "iou")]
        cells += [_figure(row[m], 2, row["infinite"] if summary["rule"] == "default" else 0) for m in ("hd95", "asd")]
        cells += [_figure(row["nsd"], 3), *(str(row.get(count, "")) for count in counts)]
        table.add_row(Text(row["name"]), *cells, end_section=place == len(rows) - 1)
    Console(width=None if Console().is_terminal else 120).print(table)
    print(f"cases: {summary['cases']}")
    for note in evaluation.notes():
        print(f"note: {note}")


def _figure(value: float | None, digits: int, infinite: int = 0) -> str:
    # An average of distances never stands without the number of infinite ones it leaves out.
    text = "-" if value is None else f"{value:.{digits}f}"
    return f"{text} +{infinite}∞" if infinite else text
