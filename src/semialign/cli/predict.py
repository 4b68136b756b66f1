"""Segment images with a trained model, or the mean of several, into files of the inputs' geometry and format.

Exit code: 0 when all is well, 1 when some cases failed, 2 when all did or the command was wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign predict``."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder that training wrote, or a file that export wrote."""
    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="INPUT ...")]
    """Image files, folders of them, DICOM series folders, or a data set folder."""
    output: Path
    """Folder for the predictions, CASE.ext each; what is there already is not done again."""
    ensemble: tuple[Path, ...] = ()
    """Further runs on the same plan; all runs' probabilities are averaged."""
    probabilities: bool = False
    """Also write CASE_probabilities.npy: float16, (classes, *size of the input)."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's checkpoints."""
    mirror: bool = False
    """Average over flipped images too: slower by 2 for each axis that training flipped, 4 (2D) or 8 (3D)."""
    keep_all: bool = False
    """Keep every piece of a structure, where the plan (keep_largest) would keep the largest alone."""
    overlap: float = 0.5
    """Share of a window that its neighbour covers too."""
    batch: int | None = None
    """Windows at a time (default: 1 on a processor, 4 on a GPU)."""
    accelerator: str = "auto"
    """Where to compute: auto, cpu or cuda."""
    overwrite: bool = False
    """Predict again what is there already."""


def run(arguments: Arguments) -> None:
    """Predict and say what was done, skipped and failed."""
    import sys

    from semialign.cli.screen import progress_bars
    from semialign.inference.predictor import predict

    with progress_bars() as progress:
        summary = predict(
            [arguments.run, *arguments.ensemble],
            arguments.inputs,
            arguments.output,
            checkpoint=arguments.checkpoint,
            probabilities=arguments.probabilities,
            mirror=arguments.mirror,
            keep_all=arguments.keep_all,
            overlap=arguments.overlap,
            batch=arguments.batch,
            accelerator=arguments.accelerator,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    for reason in summary.failed.values():
        print(f"error: {reason}", file=sys.stderr)
    parts = [f"{len(summary.done)} predicted"]
    parts += [f"{len(summary.skipped)} already there (--overwrite predicts again)"] if summary.skipped else []
    parts += [f"{len(summary.failed)} failed"] if summary.failed else []
    print(f"{arguments.output}: {', '.join(parts)}")
    if summary.failed:
        raise SystemExit(1 if summary.done or summary.skipped else 2)
