"""Run a matrix of data sets, methods and seeds from one YAML file, and compare. Call it again to go on.

Exit code: 0 when all is well, 1 when some runs failed (they are listed; the next call tries them again).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from semialign.evaluation.benchmark_words import Table

_READ = ("Rule", "Dice", "Difference", "Share")  # what there is to read about the table of Dice


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign bench``."""

    file: tyro.conf.Positional[Path]
    """The benchmark file (YAML); examples are in the folder benchmarks."""
    output: Path | None = None
    """Where runs and results go (default: the file's, or bench/NAME)."""
    only: tuple[str, ...] = ()
    """Names of data sets and entries: run these alone."""
    steps: int | None = None
    """Train every run for so many steps, whatever the file says."""
    minutes: float | None = None
    """Train every run for so many minutes, whatever the file says."""
    seeds: tuple[int, ...] | None = None
    """Seeds instead of the file's."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    jobs: int | None = None
    """Runs side by side (default: one a GPU, else one); on a processor they share its cores."""
    dry_run: bool = False
    """List the runs and where each stands; train nothing."""


def run(arguments: Arguments) -> None:
    """Run what is left of the matrix and print the table of Dice."""
    import sys

    from semialign.cli.bench_screen import screen
    from semialign.evaluation.benchmark import bench, list_runs

    options: dict[str, Any] = {
        "output": arguments.output,
        "only": arguments.only,
        "steps": arguments.steps,
        "minutes": arguments.minutes,
        "seeds": arguments.seeds,
    }
    if arguments.dry_run:
        listed = list_runs(arguments.file, **options)
        for cell, state in listed:
            print(f"{state:<12} {cell.title}: {cell.folder}")
        print(f"{len(listed)} runs, {sum(state == 'finished' for _, state in listed)} finished")
        return
    options |= {"accelerator": arguments.accelerator, "jobs": arguments.jobs}
    with screen() as (tell, progress, watch):
        result = bench(arguments.file, **options, tell=tell, progress=progress, watch=watch)
    _print(result.value)
    print(f"written: {', '.join(str(result.output / name) for name in ('bench.md', 'bench.json', 'report.html'))}")
    for title, reason in result.failed.items():
        print(f"error: {title}: {reason}", file=sys.stderr)
    if result.failed:
        raise SystemExit(1)


def _print(value: dict[str, Any]) -> None:
    from rich.console import Console

    from semialign.evaluation.benchmark_table import reading, sections, series_tables

    console = Console(width=None if Console().is_terminal else 150)
    for section in sections(value):
        console.print(f"\n{section.name}", style="bold", markup=False, highlight=False)
        console.print(section.about, markup=False, highlight=False)
        console.print(_rich(section.tables[0]))
        for note in section.notes:
            console.print(f"- {note}", markup=False, highlight=False)
    for found in series_tables(value).values():
        console.print(_rich(found))
    console.print()
    for line in reading(value):
        if line.startswith(_READ):
            console.print(line, style="dim", markup=False, highlight=False)
    if value["results"]:
        console.print(
            "Verdicts on pairs, distances, costs, groups and classes: in bench.md and report.html.", style="dim"
        )


def _rich(table: "Table") -> Any:
    import textwrap

    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        # Headings are broken to the width of the figures, so that figures need not be.
        heading = textwrap.fill(column, max(12, *map(len, (*cells, *column.split()))))
        justify: Any = "left" if column in ("entry", "checkpoint") else "right"
        shown.add_column(Text(heading), justify=justify, vertical="bottom")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
