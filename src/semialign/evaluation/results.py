"""What an evaluation found: scores and averages, as tables, files and sentences."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import make_folder, read_json, write_json, write_text
from semialign.evaluation.aggregate import METRICS, case_dice
from semialign.evaluation.groups import COUNTS, RULE, members_text
from semialign.evaluation.metrics import DISTANCES, MISSED, SPURIOUS, ClassScore

FORMAT, VERSION = "semialign evaluation", 1
_FEW = 10  # below so many cases a table says its standard error


@dataclass(frozen=True)
class Evaluation:
    """The scores of every case and class, and their averages.

    ``scores``: case id to one :class:`ClassScore` a class, the same classes in every case, cases in alphabetical order.
    ``summary``: a JSON-ready tree: what :func:`aggregate` returns, and ``units`` (``mm`` or ``pixels``), ``tolerance``
    (of NSD, in these units), ``class_values``, ``ignore``, ``named`` (whether a ``dataset.json`` named the classes),
    ``predictions``, ``labels``, ``without_label`` and ``without_prediction`` (ids that were not scored), ``groups``
    (head, middle, tail as :func:`groups.group_figures` returns them; empty where no frequencies were given),
    ``case_groups`` (as :func:`groups.case_group_figures` does).
    """

    scores: dict[str, tuple[ClassScore, ...]]
    summary: dict[str, Any]

    @property
    def cases(self) -> list[dict[str, Any]]:
        """A row per case and class; an infinite distance is ``None`` there, as ``status`` missed or spurious tells."""
        return [_row(case, score) for case, scores in self.scores.items() for score in scores]

    def case_dice(self, *, nothing: float | None = None) -> dict[str, float]:
        """Mean foreground Dice of every case under the summary's rule; see :func:`aggregate.case_dice`."""
        return case_dice(self.scores, self.summary["rule"], nothing=nothing)

    def spread(self, metric: str) -> dict[str, list[tuple[str, float]]]:
        """Every class's figures as (case, value); absent classes are left out, missed ones are 0 or infinite."""
        figures: dict[str, list[tuple[str, float]]] = {}
        for case, scores in self.scores.items():
            for score in scores:
                value = getattr(score, metric)
                figures.setdefault(score.name, []).extend([] if value is None else [(case, float(value))])
        return figures

    def case_rows(self) -> list[dict[str, Any]]:
        """A flat row per case for tables: id, mean Dice (``None`` where no class counts), Dice of each class."""
        means = self.case_dice()
        rows = []
        for case, scores in self.scores.items():
            of_class = {f"dice {score.name}": score.dice for score in scores} if len(scores) > 1 else {}
            rows.append({"id": case, "dice": means.get(case), **of_class})
        return rows

    def class_rows(self) -> list[dict[str, Any]]:
        """A flat row per class for tables: name, mean of each metric, scored, absent, missed, spurious, infinite.

        ``infinite``: how many distances the means leave out.
        """
        counts = (*COUNTS, "infinite")
        return [
            {"name": name}
            | {m: entry[m]["mean"] for m in METRICS}
            | {count: self._left_out(entry) if count == "infinite" else entry[count] for count in counts}
            for name, entry in self.summary["classes"].items()
        ]

    def group_rows(self) -> list[dict[str, Any]]:
        """A flat row per group for tables, with the keys of :meth:`class_rows`; none where classes have no groups."""
        return self._rows_of("groups")

    def case_group_rows(self) -> list[dict[str, Any]]:
        """A flat row per group of cases for tables, with the keys of :meth:`class_rows`."""
        rows, groups = self._rows_of("case_groups"), self.summary.get("case_groups", {})
        return [row | {"name": f"{row['name']} ({groups[row['name']]['cases']})"} for row in rows]

    def _rows_of(self, key: str) -> list[dict[str, Any]]:
        keys = (*METRICS, *COUNTS, "infinite")
        groups = self.summary.get(key, {})  # older files have none
        rows = [{"name": name} | {key: of[key] for key in keys} for name, of in groups.items()]
        return [row | {"infinite": self._left_out(row)} for row in rows]

    def _left_out(self, of: Mapping[str, Any]) -> int:
        # The published rules put a number where a distance is infinite, and leave none out.
        return int(of["infinite"]) if self.summary["rule"] == "default" else 0

    def notes(self) -> list[str]:
        """Sentences that belong under every table of these figures: rule, units, standard error, what was left out."""
        return _notes(self.summary)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write ``summary.json`` (everything, valid JSON) and ``cases.csv`` (infinite distances ``inf``) to ``folder``."""
    folder = make_folder(Path(folder))
    text = io.StringIO()
    table = csv.DictWriter(text, list(evaluation.cases[0]), lineterminator="\n")
    table.writeheader()
    for row in evaluation.cases:
        infinite = dict.fromkeys(DISTANCES, "inf") if row["status"] in (MISSED, SPURIOUS) else {}
        table.writerow(row | infinite)
    write_text(folder / "cases.csv", text.getvalue())
    about = {"format": FORMAT, "version": VERSION}
    write_json(folder / "summary.json", about | evaluation.summary | {"scores": evaluation.cases})


def load_evaluation(path: Path) -> Evaluation:
    """Read an evaluation back from its folder or ``summary.json``; equal to what was written.

    Raises :class:`UserError` for a missing file, and for one that is none of ours or of another version.
    """
    path = Path(path) / "summary.json" if Path(path).is_dir() else Path(path)
    value = read_json(path)
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise UserError(f"{path}: not an evaluation; semialign evaluate writes one as evaluation/summary.json")
    version = value.pop("version", None)
    if version != VERSION:
        raise UserError(f"{path}: version {version}, this semialign reads {VERSION}; evaluate again")
    names = [field.name for field in fields(ClassScore)]
    scores: dict[str, list[ClassScore]] = {}
    for row in value.pop("scores"):
        infinite = dict.fromkeys(DISTANCES, math.inf) if row["status"] in (MISSED, SPURIOUS) else {}
        figures = row | {"name": row["class"]} | infinite
        scores.setdefault(row["case"], []).append(ClassScore(**{name: figures[name] for name in names}))
    return Evaluation({case: tuple(of_case) for case, of_case in scores.items()}, value)


def _row(case: str, score: ClassScore) -> dict[str, Any]:
    figures = asdict(score)
    row = {"case": case, "class": figures.pop("name"), **figures}
    return row | {d: None for d in DISTANCES if row[d] is not None and math.isinf(row[d])}


def _notes(summary: Mapping[str, Any]) -> list[str]:
    unit, spread = summary["units"], summary["case_dice"]
    notes = [f"rule {summary['rule']}: {summary['rule_text']}"]
    if summary["rule"] != "default":
        notes[0] += (
            "; only to compare with tables that were made so; box plots and cases' classes are not changed by it"
        )
    notes.append(f"HD95 and ASD in {unit}, symmetric, on the images' own grid; NSD at {summary['tolerance']:g} {unit}")
    if summary["infinite"] and summary["rule"] == "default":
        notes.append(f"{summary['infinite']} distances are infinite (class missed or spurious)")
    groups = summary.get("groups", {})
    if groups:
        notes.append(f"{members_text({name: of['classes'] for name, of in groups.items()})}; {RULE}")
    if summary["cases"] < _FEW:
        error = spread["standard_error"]
        known = "unknown" if error is None else f"{error:.3f}"
        cases = "1 case" if summary["cases"] == 1 else f"{summary['cases']} cases"
        notes.append(f"{cases} only: standard error of the mean Dice {known}")
    if not summary["named"]:
        notes.append("no dataset.json found: classes are named by their value")
    if summary["without_label"]:
        notes.append(f"left out, no label: {', '.join(summary['without_label'])}")
    if summary["without_prediction"]:
        notes.append(f"labels without a prediction, not scored: {len(summary['without_prediction'])}")
    return notes
