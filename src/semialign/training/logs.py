"""Logs of a run: CSV always, TensorBoard beside it."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semialign.common.files import cannot_write, write_text


class CsvLog:
    """A CSV file of one row a step; columns may come to it later. Rows after ``until`` are dropped when reopened."""

    def __init__(self, path: Path, until: int | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = _rows(path, until) if until is not None and path.exists() else []
        if self.rows:
            self._rewrite()
        else:
            path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row and write the file; it stays readable whenever the process dies."""
        self.rows.append(dict(row))
        if len(self.rows) == 1 or not row.keys() <= self.rows[0].keys():
            self._rewrite()
            return
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as handle:
                csv.DictWriter(handle, list(self.rows[0]), lineterminator="\n").writerow(row)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _rewrite(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self.rows = [{column: row.get(column, "") for column in columns} for row in self.rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _rows(path: Path, until: int) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a killed process may leave half a line
    rows = [row for row in whole if None not in row and None not in row.values()]
    return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) <= until]


class Means:
    """Means of scalars over some steps; values stay on the device until they are asked for."""

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        self.values: dict[str, list[Tensor]] = {name: list(values) for name, values in (state or {}).items()}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in terms.items():
            self.values.setdefault(name, []).append(value.detach())

    def state(self) -> dict[str, Tensor]:
        """Return what was added since the last row, for a checkpoint: a resumed run's next row holds it too."""
        return {name: torch.stack([value.cpu() for value in values]) for name, values in self.values.items()}

    def take(self, share: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict) -> dict[str, float]:
        """Return the means and start anew; ``share`` makes every step's values those of all processes."""
        means = {name: float(values.mean()) for name, values in share(self.state()).items()}
        self.values = {}
        return {name: value if math.isfinite(value) else math.nan for name, value in means.items()}
