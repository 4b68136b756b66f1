"""What a suggestion holds, and the files it is written to."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json, written_whole
from semialign.data.splits import PARTS, Split, write_split
from semialign.suggestion.choosing import Choice
from semialign.suggestion.measuring import Measured

COLUMNS = (
    "order", "case", "gain", "unsureness", "entropy", "disagreement", "distance", "nearest", "nearest_is",
    "stands_for", "found",
)  # fmt: skip


@dataclass(frozen=True)
class Suggested:
    """An unlabelled case: what was measured, and, where it was chosen, when and why.

    ``entropy``, ``disagreement``: bits. ``unsureness``: where it stands among the unlabelled cases by both, 1 the most
    unsure. ``distance``: to the ``nearest`` labelled or earlier chosen case, 1 is usual between two cases. ``gain`` and
    ``stands_for``: see :class:`~semialign.suggestion.choosing.Choice`. ``found``: voxels predicted as any structure.
    ``order`` counts from 1; None: not chosen.
    """

    case: str
    unsureness: float
    entropy: float
    disagreement: float
    found: int
    order: int | None = None
    gain: float | None = None
    distance: float | None = None
    nearest: str | None = None
    nearest_is: str | None = None  # labelled or chosen
    stands_for: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Suggestion:
    """What to label next: ``chosen`` in order, ``others`` the most unsure first, and what could not be read."""

    folder: Path
    chosen: list[Suggested]
    others: list[Suggested]
    labelled: list[str]
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """The ids of the chosen cases, in order."""
        return [one.case for one in self.chosen]


def described(
    choices: Sequence[Choice],
    measured: Mapping[str, Measured],
    unsure: Mapping[str, float],
    labelled: Mapping[str, str],
) -> tuple[list[Suggested], list[Suggested]]:
    """Return the chosen cases in order, and the others; ``labelled``: what the names of labelled cases stand for."""

    def figures(case: str) -> dict[str, Any]:
        of = measured[case]
        own = {"entropy": of.entropy, "disagreement": of.disagreement, "found": of.found}
        return {"case": case, "unsureness": unsure[case], **own}

    chosen = []
    for order, choice in enumerate(choices, 1):
        nearest = None if choice.nearest is None else labelled.get(choice.nearest, choice.nearest)
        kind = None if choice.nearest is None else "labelled" if choice.nearest in labelled else "chosen"
        one = Suggested(
            **figures(choice.case),
            order=order,
            gain=choice.gain,
            distance=choice.distance,
            nearest=nearest,
            nearest_is=kind,
            stands_for=choice.stands_for,
        )
        chosen.append(Suggested(**asdict(one) | {"why": _why(one, len(unsure))}))
    taken = {one.case for one in chosen}
    rest = sorted((case for case in unsure if case not in taken), key=lambda case: (-unsure[case], case))
    return chosen, [Suggested(**figures(case)) for case in rest]


def _why(one: Suggested, count: int) -> str:
    below = round(one.unsureness * count - 1)
    said = (
        f"The model is more unsure of it than of {below} of the {count - 1} other unlabelled cases" if count > 1 else ""
    )
    said = said or "It is the only unlabelled case"
    said += f" (entropy {one.entropy:.3f} bits around what it predicts, disagreement {one.disagreement:.4f} bits)"
    if one.found == 0:
        said += ", and it finds no structure at all"
    others = len(one.stands_for) - 1
    said += f". The case stands for itself and {others} more" if others > 0 else ". The case stands for itself alone"
    if one.distance is None:
        return f"{said}; it is the first, with nothing labelled to compare it to."
    kind = "labelled case" if one.nearest_is == "labelled" else "chosen case"
    return f"{said}; the most alike {kind} is {one.nearest}, at {one.distance:.2f} of the usual distance of two cases."


def write_results(suggestion: Suggestion, *, about: Mapping[str, Any]) -> None:
    """Write ``suggest.json`` and ``suggest.csv``; ``about`` goes first into the former."""
    shown = [{key: _plain(value) for key, value in asdict(one).items()} for one in suggestion.chosen]
    kept = [
        {key: _plain(value) for key, value in asdict(one).items() if key in ("case", *COLUMNS[3:6], "found")}
        for one in suggestion.others
    ]
    more = {"labelled": suggestion.labelled, "notes": suggestion.notes, "failed": suggestion.failed}
    write_json(suggestion.folder / "suggest.json", {**about, "suggested": shown, "others": kept, **more})
    path = suggestion.folder / "suggest.csv"
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for one in (*suggestion.chosen, *suggestion.others):
            table.writerow({key: _cell(value) for key, value in asdict(one).items()})


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return len(value) or ""
    return "" if value is None else _plain(value)


def _plain(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def moved(split: Split, cases: Sequence[str], *, run: str) -> Split:
    """Return ``split`` with ``cases`` moved from unlabelled to labelled."""
    left = tuple(case for case in split.unlabelled if case not in set(cases))
    said = f"{split.protocol}, then {len(cases)} chosen by semialign suggest {run}"
    return Split(split.labelled + tuple(cases), left, split.validation, split.test, said)


def write_new_split(path: Path, split: Split) -> None:
    """Write ``split``; a file that holds another raises :class:`UserError`."""
    if path.exists():
        old = read_json(path)
        if not (isinstance(old, dict) and all(old.get(part) == list(getattr(split, part)) for part in PARTS)):
            raise UserError(f"{path}: holds something else already; move it or choose another --split")
    write_split(path, split)
