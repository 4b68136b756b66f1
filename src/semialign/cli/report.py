"""Write the report page of a run, a benchmark or an evaluation; a run's set-aside cases are predicted and scored."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign report``."""

    run_or_bench: tyro.conf.Positional[Path]
    """A run's folder, a benchmark's output, or a folder that evaluate wrote."""
    data: Path | None = None
    """The data set's folder, where it has moved since."""
    part: str | None = None
    """Of a run: validation (default), test, or labelled."""
    checkpoint: str = "best"
    """Of a run: best or last."""
    accelerator: str = "auto"
    """auto, cpu or cuda."""


def run(arguments: Arguments) -> None:
    """Write the page and say where it lies."""
    from semialign.cli.screen import progress_bars
    from semialign.evaluation.reporting import report

    with progress_bars() as progress:
        page = report(
            arguments.run_or_bench,
            data=arguments.data,
            part=arguments.part,
            checkpoint=arguments.checkpoint,
            accelerator=arguments.accelerator,
            progress=progress,
        )
    print(f"report: {page}")
