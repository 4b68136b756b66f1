"""Predict and score a run's set-aside cases and write its report page."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign report``."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    data: Path | None = None
    """The data set's folder, where it has moved since."""
    part: str | None = None
    """validation (default), test, or labelled."""
    checkpoint: str = "best"
    """best or last."""
    accelerator: str = "auto"
    """auto, cpu or cuda."""


def run(arguments: Arguments) -> None:
    """Write the page and say where it lies."""
    from semialign.cli.screen import progress_bars
    from semialign.evaluation.run_report import report_run

    with progress_bars() as progress:
        page = report_run(
            arguments.run,
            data=arguments.data,
            part=arguments.part,
            checkpoint=arguments.checkpoint,
            accelerator=arguments.accelerator,
            progress=progress,
        )
    print(f"report: {page}")
