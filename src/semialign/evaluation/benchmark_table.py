"""The tables of a benchmark's results, in words that a newcomer can read, and their page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semialign.evaluation.benchmark_summary import CHECKPOINTS

FEW_CASES, FEW_SEEDS = 10, 3
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
            tables = (_dice_table(value, rows), _cost_table(value, rows), _class_table(rows))
            shown = tuple(table for table in tables if table.rows)
            found.append(Section(name, _about(value, rows), shown, tuple(_notes(value, rows))))
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
            "speaks of these labelled cases alone: others would give other figures. Where cases lack classes it may "
            "deviate from the difference of the columns, in which classes weigh alike, not cases."
        )
    if value["baseline"] and value["ceiling"]:
        lines.append(
            f"Share of the gap closed: 0 % is '{value['baseline']}', 100 % is '{value['ceiling']}', which has the "
            "labels of all training cases."
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


def _notes(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    figures = [(row, which, of) for row in rows for which, of in row["checkpoints"].items()]
    notes = [f"Classes that a case lacks, rule {of['rule']}: {of['rule_text']}." for _, _, of in figures[:1]]
    fewest = min((of["drawn"] for _, _, of in figures), default=FEW_CASES)
    if fewest < FEW_CASES:
        errors = [of["standard_error"] for _, _, of in figures if of["standard_error"] is not None]
        known = f"{min(errors):.3f} to {max(errors):.3f}" if errors else "unknown"
        what = "test patients" if rows[0]["group_by"] else "test cases"
        notes.append(f"Only {fewest} {what}: the standard error of a mean Dice is {known}.")
    if len(value["seeds"]) < FEW_SEEDS:
        number = "One seed" if len(value["seeds"]) == 1 else f"{len(value['seeds'])} seeds"
        notes.append(f"{number} only: others may order the entries otherwise.")
    if not rows[0]["cases"]["validation"]:
        notes.append("No validation cases, so no best checkpoint: the last one is reported.")
    notes += _comparison_notes(value, rows, [of["difference"] for _, _, of in figures if of["difference"]])
    machines = sorted({machine for row in rows for machine in row["machines"]})
    if machines:
        mixed = " (equal time is not equal work on different machines)" if len(machines) > 1 else ""
        notes.append(f"Trained on: {'; '.join(machines)}{mixed}.")
    for row in rows:
        notes += [f"Failed: {row['entry']}, seed {seed}: {reason}" for seed, reason in row["failed"].items()]
    lacking = [name for name in value["entries"] if name not in [row["entry"] for row in rows]]
    return notes + ([f"Not run yet: {', '.join(lacking)}."] if lacking else [])


def _comparison_notes(
    value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> list[str]:
    notes = []
    if not value["baseline"]:
        notes.append("No entry trains on the labelled cases alone: what the unlabelled ones add cannot be told.")
    if differences and differences[0]["drawn"] == "patients":
        notes.append(f"Intervals draw the {differences[0]['cases']} patients, each the mean of its cases.")
    left_out = max((difference["left_out"] for difference in differences), default=0)
    if left_out:
        notes.append(f"Differences leave out up to {left_out} cases that hold no class and count in some runs only.")
    for row in rows:
        gaps = [of["difference"] for of in row["checkpoints"].values()] if row["entry"] == value["ceiling"] else []
        if any(gap and gap["low"] <= 0 <= gap["high"] for gap in gaps):
            notes.append(
                "The gap between labelled cases alone and all labels is not clear of 0: shares of it mean little."
            )
    return notes


def _markdown_table(table: Table) -> list[str]:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _unit(rows: Sequence[Mapping[str, Any]]) -> str:
    return next((of["units"] for row in rows for of in row["checkpoints"].values()), "mm")


def _figure(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


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
