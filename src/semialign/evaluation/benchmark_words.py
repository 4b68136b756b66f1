"""Tables of text, and how a benchmark writes its figures in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semialign.evaluation.benchmark_cases import CHECKPOINTS

NONE = "-"


@dataclass(frozen=True)
class Table:
    """A table of text: a title, column headings, rows; ``aside``: of those who look closer."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    aside: bool = False


def shown_checkpoints(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the checkpoints of a row of results, each with the word that tables call it by."""
    return [(w, "as given" if row.get("given") else w) for w in CHECKPOINTS if w in row["checkpoints"]]


def duration(seconds: float) -> str:
    """Return seconds in words: ``45 s``, ``2 min 5 s``, ``3 h 20 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def unit_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what distances are measured in: ``mm`` or ``pixels``."""
    return next((of["units"] for row in rows for of in row["checkpoints"].values()), "mm")


def figure(value: float | None, digits: int = 3) -> str:
    """Return a figure with so many digits after the point."""
    return NONE if value is None else f"{value:.{digits}f}"


def median(of: Mapping[str, Any], digits: int = 3) -> str:
    """Return the median over seeds, with the lowest and the highest where there are several."""
    if of["runs"] < 2:
        return figure(of["median"], digits)
    return f"{figure(of['median'], digits)} [{figure(of['minimum'], digits)} to {figure(of['maximum'], digits)}]"


def difference(of: Mapping[str, Any] | None) -> str:
    """Return a difference with its interval."""
    return NONE if of is None else f"{of['mean']:+.3f} ({of['low']:+.3f} to {of['high']:+.3f})"


def percent(value: float | None) -> str:
    """Return a share as a whole percentage."""
    return NONE if value is None else f"{100 * value:.0f} %"


def p_text(value: float) -> str:
    """Return a p-value with two telling digits, never rounded to 0."""
    return "p < 0.0001" if value < 1e-4 else f"p {value:.2g}"


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a table in Markdown."""
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
