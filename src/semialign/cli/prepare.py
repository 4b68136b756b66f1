"""Check a data set, plan its training and write the store that training reads patches from."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign prepare``."""

    data: tyro.conf.Positional[Path]
    """The data set's folder."""
    split: Path | None = None
    """Split file or a published split's name (default: the recipe's; else every case with a label trains)."""
    recipe: str | None = None
    """A shipped recipe's name or a YAML file, whose plan lies over the one that is made."""
    output: Path | None = None
    """Where to write (default: DATA/prepared/SPLIT, and -RECIPE for one with a plan, -2d for --dimensions 2)."""
    workers: int | None = None
    """Processes (default: one a core)."""
    accelerator: str = "auto"
    """What to plan for: auto, cpu or cuda."""
    dimensions: int | None = None
    """2: see volumes as stacks of slices, with a 2D network; 3: as volumes (default: the recipe's, or by size)."""


def run(arguments: Arguments) -> None:
    """Prepare and print what was found."""
    from semialign.cli.screen import progress_bars
    from semialign.data.prepare import prepare

    with progress_bars() as progress:
        done = prepare(
            arguments.data,
            arguments.split,
            recipe=arguments.recipe,
            output=arguments.output,
            workers=arguments.workers,
            accelerator=arguments.accelerator,
            dimensions=arguments.dimensions,
            progress=progress,
        )
    warnings = done.fingerprint["warnings"]
    for warning in warnings[:20]:
        print(f"note: {warning}")
    if len(warnings) > 20:
        print(f"note: {len(warnings) - 20} more such notes stand in {done.folder / 'fingerprint.json'}")
    parts = ", ".join(f"{n} {part}" for part, n in done.fingerprint["parts"].items())
    plan = done.plan
    print(f"{done.dataset.name}: {parts}; patches of {' x '.join(map(str, plan.patch_size))}", end="")
    print(f" of slices across axis {plan.slice_axis}" if plan.slice_axis is not None else "", end="")
    print(f" at {' x '.join(f'{s:g}' for s in plan.spacing)} mm" if plan.spacing else "", end="")
    print(f" of volumes resized to {' x '.join(map(str, plan.volume_size))}" if plan.volume_size else "")
    print(f"plan: {done.folder / 'plan.yaml'}")
