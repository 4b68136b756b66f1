"""Choose the cases to label next: they stand for many that the model is unsure of, no two alike. No label is opened.

Writes suggest.html (pictures of why), suggest.json and suggest.csv. Exit code: 0 when all is well, 1 when some cases
could not be read, 2 when the command was wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from semialign.suggestion.results import Suggestion


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign suggest``."""

    run: tyro.conf.Positional[Path]
    """The run folder that training wrote."""
    data: tyro.conf.Positional[Path | None] = None
    """The run's data set, where it has moved, or other images to choose from (default: the run's data set)."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """How many cases to choose (also -n)."""
    output: Path | None = None
    """Folder for the page and what was measured (default: RUN/suggest); what is there already is not done again."""
    split: Path | None = None
    """Also write this split file: the run's, with the chosen cases moved from unlabelled to labelled."""
    ensemble: tuple[Path, ...] = ()
    """Further run folders on the same plan: how far the runs disagree counts, instead of one run's flipped views."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's checkpoints."""
    overlap: float = 0.5
    """Share of a window that its neighbour covers too."""
    batch: int | None = None
    """Windows at a time (default: 1 on a processor, 4 on a GPU)."""
    accelerator: str = "auto"
    """Where to compute: auto, cpu or cuda."""


def run(arguments: Arguments) -> None:
    """Choose, and show the choice."""
    import sys

    from semialign.cli.screen import progress_bars
    from semialign.suggestion.suggest import suggest

    with progress_bars() as progress:
        found = suggest(
            arguments.run,
            arguments.data,
            count=arguments.count,
            output=arguments.output,
            split=arguments.split,
            ensemble=arguments.ensemble,
            checkpoint=arguments.checkpoint,
            overlap=arguments.overlap,
            batch=arguments.batch,
            accelerator=arguments.accelerator,
            progress=progress,
        )
    for reason in found.failed.values():
        print(f"error: {reason}", file=sys.stderr)
    _show(found)
    for note in found.notes:
        print(f"note: {note}")
    if arguments.split is not None:
        print(f"split: {arguments.split} (to be used once these cases have labels in labelsTr)")
    print(f"page: {found.folder / 'suggest.html'}")
    if found.failed:
        raise SystemExit(1)


def _show(found: "Suggestion") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # a plain string may hold markup: knee[left]

    table = Table("", title=f"Label next, of {len(found.chosen) + len(found.others)} unlabelled cases")
    for heading in ("case", "entropy", "disagreement", "most alike", "distance", "stands for"):
        table.add_column(heading, overflow="fold")  # ids are to be copied
    for one in found.chosen:
        alike = "-" if one.nearest is None else f"{one.nearest} ({one.nearest_is})"
        far = "-" if one.distance is None else f"{one.distance:.2f}"
        stands = str(len(one.stands_for))
        table.add_row(
            str(one.order), Text(one.case), f"{one.entropy:.3f}", f"{one.disagreement:.4f}", Text(alike), far, stands
        )
    Console().print(table)
