"""Logs of a run: CSV always, TensorBoard beside it."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semialign.common.files import write_text


class CsvLog:
    """A CSV file of one row a step; columns may come to it later. Rows after ``until`` are dropped when reopened."""

    def __init__(self, path: Path, until: int | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if until is not None and path.exists():
            with open(path, newline="") as handle:
                self.rows = [row for row in csv.DictReader(handle) if int(row["step"]) <= until]
        elif path.exists():
            path.unlink()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row and write the file; it stays readable whenever the process dies."""
        known = {key for old in self.rows[:1] for key in old}
        self.rows.append(dict(row))
        if len(self.rows) > 1 and known == row.keys():
            with open(self.path, "a", newline="") as handle:
                csv.DictWriter(handle, list(self.rows[0])).writerow(self.rows[-1])
            return
        columns = list(dict.fromkeys(key for old in self.rows for key in old))
        self.rows = [{column: old.get(column, "") for column in columns} for old in self.rows]
        lines = [columns, *([old[column] for column in columns] for old in self.rows)]
        write_text(self.path, "".join(",".join(map(str, line)) + "\n" for line in lines))


class Means:
    """Means of scalars over some steps; values stay on the device until they are asked for."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in terms.items():
            self.values.setdefault(name, []).append(value.detach())

    def take(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = {name: float(torch.stack([v.cpu() for v in values]).mean()) for name, values in self.values.items()}
        self.values = {}
        return {name: value if math.isfinite(value) else math.nan for name, value in means.items()}
