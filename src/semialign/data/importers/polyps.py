"""Several polyp sets as one, each a folder in the form that ``polyp`` reads: Kvasir-SEG, CVC-ClinicDB, CVC-300, ...

A case's id begins with its folder's name, ``CVC-ClinicDB_12``, so that splits and evaluations can tell the sets apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from semialign.common.errors import UserError
from semialign.data.importers import polyp
from semialign.data.importers.base import FoundCase, Published, common_ending, plural

SOURCE = "^([^_]+)_"  # what of an id tells the set
_NAME = "polyps"


def recognise(source: Path) -> bool:
    """Whether at least two folders in ``source`` hold a polyp set."""
    return len(list(_sets(source))) > 1


def find(source: Path) -> Published:
    """List the images of all sets; the images become PNG where their endings differ."""
    cases: list[FoundCase] = []
    notes: list[str] = []
    sets: dict[str, Path] = {}
    for folder in _sets(source):
        name = folder.name.replace("_", "-").replace(" ", "-")
        if name in sets:
            raise UserError(f"{folder}: its cases would be called as those of {sets[name].name}; rename one of the two")
        sets[name] = folder
        found = polyp.find(folder)
        cases += [replace(case, id=f"{name}_{case.id}") for case in found.cases]
        notes += [f"{name}: {plural(len(found.cases), 'case')}", *(f"{name}: {note}" for note in found.notes)]
    notes.append(f"figures of each set: semialign evaluate ... --group-by '{SOURCE}'")
    ending = common_ending((case.origin for case in cases), kept=polyp.KEPT, otherwise=".png")
    return Published(_NAME, ("R", "G", "B"), polyp.LABELS, cases, ending, ".png", notes=tuple(notes))


def _sets(source: Path) -> Iterator[Path]:
    folders = [path for path in sorted(source.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return (path for path in folders if polyp.recognise(path))
