"""What the check found, kept case by case while it runs: one that is stopped or meets a fault goes on where it was."""

import json
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Checked:
    """A file of lines (key, description), one a case that was checked; a line cut short counts as not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[Hashable, dict[str, Any]] = {}
        with suppress(OSError, UnicodeDecodeError):
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError):
                    key, described = json.loads(line)
                    self._found[key] = described

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._found[key]

    def add(self, key: str, described: dict[str, Any]) -> None:
        """Keep ``described`` under ``key``."""
        with self.path.open("a", encoding="utf-8") as file:
            # The line break comes first: a line that was cut short spoils no other.
            file.write("\n" + json.dumps([key, described]))
        self._found[key] = described

    def remove(self) -> None:
        """Forget everything: the check is through."""
        self.path.unlink(missing_ok=True)
