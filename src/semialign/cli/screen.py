"""Progress on the screen."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


def first_process() -> bool:
    """Whether this process is the only one or the first of several (Fabric's own, torchrun's, SLURM's)."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


class Say(Protocol):
    """Called with (what, done, of) as work goes on."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show that ``done`` of ``of`` parts of ``what`` are done."""
        ...


@contextmanager
def progress_bars() -> Iterator[Say]:
    """Yield a function ``say(what, done, of)`` that keeps a bar with time left for every ``what``."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    more = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *more, console=console, disable=not first_process()) as bars:
        tasks = {}

        def say(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=of)
            bars.update(tasks[what], completed=done, total=of)

        yield say
