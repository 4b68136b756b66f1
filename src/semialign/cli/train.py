"""Train a model from labelled and unlabelled cases; prepares the data first where that is not done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign train``."""

    data: tyro.conf.Positional[Path]
    """The data set's folder."""
    method: str | None = None
    """supervised, mean-teacher (default), ua-mt, cps, ...; `semialign methods` lists them."""
    plugin: tuple[str, ...] = ()
    """Plug-ins that sit on the method."""
    recipe: str | None = None
    """A shipped recipe's name or a YAML file; the other options lie over it."""
    split: Path | None = None
    """Split file or a published split's name (default: the recipe's; else every case with a label trains)."""
    steps: int | None = None
    """Optimiser steps."""
    minutes: float | None = None
    """Training time, instead of steps."""
    seed: int | None = None
    """Everything random follows from it."""
    output: Path | None = None
    """The run folder (default: runs/...)."""
    prepared: Path | None = None
    """Where the prepared data lie or go (default: DATA/prepared/SPLIT; SPLIT-RECIPE for a recipe with a plan)."""
    init: Path | None = None
    """A run whose weights this one starts from."""
    resume: bool = False
    """Go on with --output from its last checkpoint."""
    set: tuple[str, ...] = ()
    """key=value: any setting of training, method (weight=0.5) or plug-in (scdl.weight=0.5)."""
    accelerator: str = "auto"
    """auto, cpu or cuda."""
    devices: int = 1
    """Processes a machine, one a GPU."""
    nodes: int = 1
    """Machines."""
    dimensions: int | None = None
    """2: see volumes as stacks of slices, with a 2D network; 3: as volumes (default: the recipe's, or by size)."""


def run(arguments: Arguments) -> None:
    """Train and say where the run lies."""
    import logging
    import warnings

    from semialign.cli.screen import first_process, progress_bars
    from semialign.config import merge, parse_assignments
    from semialign.training.train import train

    logging.disable(logging.INFO)  # Fabric says in which precision it computes, amid the progress bars
    warnings.showwarning = lambda message, *rest, **more: print(f"note: {message}")  # type: ignore[assignment]
    named = {"steps": arguments.steps, "minutes": arguments.minutes, "seed": arguments.seed}
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    given |= {"plugins": list(arguments.plugin)} if arguments.plugin else {}
    with progress_bars() as progress:
        folder = train(
            arguments.data,
            method=arguments.method,
            recipe=arguments.recipe,
            split=arguments.split,
            prepared=arguments.prepared,
            output=arguments.output,
            init=arguments.init,
            resume=arguments.resume,
            settings=merge(parse_assignments(arguments.set), given),
            accelerator=arguments.accelerator,
            devices=arguments.devices,
            nodes=arguments.nodes,
            dimensions=arguments.dimensions,
            progress=progress,
        )
    if first_process():
        print(f"run: {folder}")
