"""Write a trained model as one small file that predict takes in place of the run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign export``."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder that training wrote."""
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.pt")]
    """The file to write."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's checkpoints."""
    overwrite: bool = False
    """Replace the file if it is there."""


def run(arguments: Arguments) -> None:
    """Export and print the sizes."""
    from semialign.inference.export import export

    made = export(arguments.run, arguments.output, checkpoint=arguments.checkpoint, overwrite=arguments.overwrite)
    print(
        f"{made.path}: {made.size / 2**20:.1f} MiB of {made.checkpoint_size / 2**20:.1f} in the checkpoint; "
        f"{made.parameters:,} weights, {made.left_out:,} of training left out"
    )
