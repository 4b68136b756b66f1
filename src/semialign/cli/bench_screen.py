"""What ``semialign bench`` shows as it runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semialign.evaluation.benchmark import Told

SHOWN = 8  # of the runs that ended last: those that run must stay in sight


class Board:
    """The table of runs: those that run with what they are at, and those that ended with their outcome."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._now: dict[str, Told] = {}
        self._ended: dict[str, tuple[Told, float]] = {}
        self._step: tuple[str, int, int] | None = None

    def watch(self, told: "Told") -> None:
        """Note where a run stands."""
        self._step = None
        begun = self._begun.setdefault(told.title, time.monotonic())
        if told.state == "running":
            self._now[told.title] = told
        else:
            self._now.pop(told.title, None)
            self._ended[told.title] = (told, time.monotonic() - begun)

    def step(self, what: str, done: int, of: int) -> None:
        """Note what goes on before any run begins."""
        self._step = None if self._now else (what, done, of)

    def __rich__(self) -> Any:
        """Return the table as it is now."""
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from semialign.evaluation.benchmark_words import duration

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in ("run", "state", "now", "", "time"):
            table.add_column(column)
        for told, seconds in list(self._ended.values())[-SHOWN:]:
            style = "red" if told.state == "failed" else "green"
            table.add_row(Text(told.title), Text(told.state, style), Text(told.what), "", duration(seconds))
        for title, told in self._now.items():
            bar = ProgressBar(total=told.of, completed=told.done, width=20) if told.of else ""
            now = f"{told.what} {told.done} of {told.of}" if told.of else told.what
            took = duration(time.monotonic() - self._begun[title])
            table.add_row(Text(title), Text(told.state, "cyan"), Text(now), bar, took)
        if self._step is not None:
            what, done, of = self._step
            bar = ProgressBar(total=of, completed=done, width=20)
            table.add_row("before the runs", "", Text(f"{what} {done} of {of}"), bar, "")
        return table


@contextmanager
def screen() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None], Callable[["Told"], None]]]:
    """Yield ``tell(line)``, ``progress(what, done, of)`` and ``watch(told)`` for :func:`bench`."""
    import logging
    import warnings

    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    board = Board()
    live = Live(board, console=console, transient=True, refresh_per_second=4) if console.is_terminal else None

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: tell(f"  note: {message}")  # type: ignore[assignment]
        logging.disable(logging.INFO)  # Fabric names its precision once a run
        try:
            if live is None:
                yield tell, board.step, board.watch
            else:
                with live:
                    yield tell, board.step, board.watch
        finally:
            logging.disable(logging.NOTSET)
