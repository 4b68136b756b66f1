"""The tables of a benchmark's results, in words that a newcomer can read, and their page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semialign.evaluation.benchmark_notes import notes
from semialign.evaluation.benchmark_summary import CHECKPOINTS

NONE = "-"


@dataclass(frozen=True)
class Table:
    """A table of text: a title, column headings, rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """What is shown of one data set: a heading, what the data are, tables and the notes that belong under them."""

    name: str
    about: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def sections(value: Mapping[str, Any]) -> list[Section]:
    """Return a section per data set of the contents of ``bench.json``."""
    found = []
    for name in value["datasets"]:
        rows = [row for row in value["results"] if row["dataset"] == name]
        if rows:
            tables = (_dice_table(value, rows), _cost_table(value, rows), _group_table(value, rows), _class_table(rows))
            shown = tuple(table for table in tables if table.rows)
            found.append(Section(name, _about(value, rows), shown, tuple(notes(value, rows))))
    return found


def reading(value: Mapping[str, Any]) -> list[str]:
    """Return sentences that say how to read the tables."""
    lines = [
        f"Rule: {value['length']}. Test cases choose nothing: the best checkpoint is the best on validation cases, "
        "the last one stands at the end of training.",
        "Dice: overlap of prediction and label, 0 (none) to 1 (equal); mean over classes of the means over test cases.",
        "HD95 and ASD: 95th percentile and mean of the distances between the two surfaces, both ways; smaller is "
        "better. They are infinite where a class is missed, or spurious (found where there is none): such cases are "
        "counted, not averaged.",
    ]
    if value["baseline"]:
        lines.append(
            f"Difference: mean over test cases of Dice less that of '{value['baseline']}', each case averaged over "
            "seeds first, with a 95 % bootstrap interval over cases; an interval that holds 0 shows no difference. It "
            "speaks of these labelled cases alone: others would give other figures. A case that holds no class counts "
            "1 where none is predicted, 0 where one is. Where cases lack classes it may "
            "deviate from the difference of the columns, in which classes weigh alike, not cases."
        )
    if value["baseline"] and value["ceiling"]:
        lines.append(
            f"Share of the gap closed: 0 % is '{value['baseline']}', 100 % is '{value['ceiling']}', which has the "
            "labels of all training cases."
        )
    if any(of["groups"] for row in value["results"] for of in row["checkpoints"].values()):
        lines.append(
            "Head, middle and tail: classes by their share of the labelled cases' voxels, cut at the widest gaps of "
            "its logarithm. A group's figure is the mean over its classes. A class whose distances are all infinite "
            "has none to average: '2 of 3 classes' says over how many at least the distances of a run are averaged."
        )
    return lines


def markdown(value: Mapping[str, Any]) -> str:
    """Return the page of results: ``bench.md``."""
    lines = [f"# {value['name']}", ""]
    lines += [value["description"], ""] if value["description"] else []
    for section in sections(value):
        lines += [f"## {section.name}", "", section.about, ""]
        for table in section.tables:
            lines += [f"**{table.title}**", "", *_markdown_table(table), ""]
        lines += [f"- {note}" for note in section.notes]
        lines += [""] if section.notes else []
    if not value["results"]:
        lines += ["No run is finished yet.", ""]
    lines += ["## How to read this", "", *(f"- {line}" for line in reading(value)), ""]
    commit = f", commit {value['commit']}" if value["commit"] else ""
    asked = ", ".join(f"{key} {of}" for key, of in value["overrides"].items())
    lines.append(
        f"Made by semialign {value['versions']['semialign']}{commit}, from {value['file']}"
        f"{f' with {asked} asked for beside it' if asked else ''}. For research, not for clinical use."
    )
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Return seconds in words: ``45 s``, ``2 min 5 s``, ``3 h 20 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _about(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    first = next((row for row in rows if row["labels"] == "split"), rows[0])
    parts = ", ".join(f"{count} {part}" for part, count in first["cases"].items())
    whose = "" if first["labels"] == "split" else " (all labels)"
    return f"Protocol: {first['protocol']}{whose}: {parts} cases; seeds {', '.join(map(str, value['seeds']))}."


def _dice_table(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ["entry", "labelled cases", "checkpoint", "median over seeds [lowest to highest]", "mean over seeds"]
    columns += [f"difference to '{value['baseline']}' (95 % interval)"] if value["baseline"] else []
    columns += ["share of the gap closed"] if value["baseline"] and value["ceiling"] else []
    body = []
    for row in rows:
        for place, which in enumerate(w for w in CHECKPOINTS if w in row["checkpoints"]):
            of = row["checkpoints"][which]
            cells = [row["entry"], str(row["cases"]["labelled"])] if place == 0 else ["", ""]
            cells += [which, _median(of["dice"]), _figure(of["dice"]["mean"])]
            cells += [_difference(of["difference"])] if value["baseline"] else []
            cells += [_percent(of["gap_closed"])] if value["baseline"] and value["ceiling"] else []
            body.append(tuple(cells))
        if not row["checkpoints"]:
            cells = [row["entry"], str(row["cases"]["labelled"]), "all runs failed"]
            body.append(tuple(cells + [NONE] * (len(columns) - len(cells))))
    return Table("Test Dice", tuple(columns), tuple(body))


def _cost_table(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    unit, body = _unit(rows), []
    for row in rows:
        done, asked = len(row["seeds"]), len(value["seeds"])
        for place, which in enumerate(w for w in CHECKPOINTS if w in row["checkpoints"]):
            of = row["checkpoints"][which]
            cells = [row["entry"] if place == 0 else "", which]
            cells += [_figure(of["hd95"], 2), _figure(of["asd"], 2), _infinite(of)]
            cost = [duration(row["training_seconds"]["mean"]), f"{row['steps']['median']:.0f}"]
            cost.append(str(done) if done == asked else f"{done} of {asked}")
            body.append(tuple(cells + (cost if place == 0 else [""] * len(cost))))
    columns = ("entry", "checkpoint", f"HD95, {unit}", f"ASD, {unit}", "infinite distances")
    return Table("Test distances, and cost", (*columns, "training time a run", "steps a run", "seeds"), tuple(body))


def _group_table(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    unit, body = _unit(rows), []
    for row in rows:
        shown = [(which, name) for which in CHECKPOINTS for name in row["checkpoints"].get(which, {}).get("groups", ())]
        for place, (which, name) in enumerate(shown):
            of = row["checkpoints"][which]["groups"][name]
            first = place == 0 or shown[place - 1][0] != which
            cells = [row["entry"] if place == 0 else "", which if first else "", name]
            cells += [_figure(of["dice"]["mean"]) if of["dice"]["runs"] < 2 else _range(of["dice"])]
            cells += [_difference(of["difference"])] if value["baseline"] else []
            cells += [_distance(of, metric) for metric in ("hd95", "asd")]
            body.append((*cells, f"{of['infinite']} of {of['scored'] + of['infinite']}"))
    columns = ["entry", "checkpoint", "group", "Dice, mean over seeds [lowest to highest]"]
    columns += [f"difference to '{value['baseline']}' (95 % interval)"] if value["baseline"] else []
    columns += [f"HD95, {unit}", f"ASD, {unit}", "infinite distances"]
    return Table("Test scores by group of classes", tuple(columns), tuple(body))


def _class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(n for row in rows for of in row["checkpoints"].values() for n in of["classes"]))
    unit, body = _unit(rows), []
    for row in rows:
        for place, which in enumerate(w for w in CHECKPOINTS if w in row["checkpoints"]):
            classes = row["checkpoints"][which]["classes"]
            for name in names:
                of = classes[name]
                head = [row["entry"] if place == 0 and name == names[0] else "", which if name == names[0] else ""]
                counts = [str(of[key]) for key in ("missed", "spurious", "absent")]
                body.append((*head, name, _figure(of["dice"]), _figure(of["hd95"], 2), _figure(of["asd"], 2), *counts))
    columns = ("entry", "checkpoint", "class", "Dice", f"HD95, {unit}", f"ASD, {unit}")
    return Table(
        "Test scores by class: means over seeds, counts over all seeds",
        (*columns, "missed", "spurious", "absent"),
        tuple(body),
    )


def _markdown_table(table: Table) -> list[str]:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _unit(rows: Sequence[Mapping[str, Any]]) -> str:
    return next((of["units"] for row in rows for of in row["checkpoints"].values()), "mm")


def _figure(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _range(of: Mapping[str, Any]) -> str:
    return f"{_figure(of['mean'])} [{_figure(of['minimum'])} to {_figure(of['maximum'])}]"


def _distance(of: Mapping[str, Any], metric: str) -> str:
    averaged, every = of["averaged"][metric], len(of["classes"])
    return _figure(of[metric], 2) + (f" ({averaged} of {every} classes)" if averaged < every else "")


def _median(of: Mapping[str, Any]) -> str:
    if of["runs"] < 2:
        return _figure(of["median"])
    return f"{_figure(of['median'])} [{_figure(of['minimum'])} to {_figure(of['maximum'])}]"


def _difference(of: Mapping[str, Any] | None) -> str:
    return NONE if of is None else f"{of['mean']:+.3f} ({of['low']:+.3f} to {of['high']:+.3f})"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def _infinite(of: Mapping[str, Any]) -> str:
    every = sum(entry[key] for entry in of["classes"].values() for key in ("scored", "missed", "spurious"))
    return f"{of['infinite']} of {every}"
