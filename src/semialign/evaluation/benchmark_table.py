"""The tables of a benchmark's results, in words that a newcomer can read, and their page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semialign.evaluation.benchmark_comparisons import cost_table, pair_tables, series_of, series_table
from semialign.evaluation.benchmark_notes import notes
from semialign.evaluation.benchmark_pairs import LEVEL, TEST
from semialign.evaluation.benchmark_scores import class_table, dice_table, distance_table, group_table
from semialign.evaluation.benchmark_words import Table, markdown_table


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
            tables = [dice_table(value, rows), *pair_tables(value, name), distance_table(rows)]
            tables += [cost_table(value, rows), group_table(value, rows), class_table(rows)]
            shown = tuple(table for table in tables if table.rows)
            found.append(Section(name, _about(value, rows), shown, tuple(notes(value, rows))))
    return found


def series_tables(value: Mapping[str, Any]) -> dict[str, Table]:
    """Return the table of every series of data sets that has results, by the series' name."""
    tables = {name: series_table(value, name, datasets) for name, datasets in series_of(value).items()}
    return {name: table for name, table in tables.items() if table.rows}


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
    if value["pairs"]:
        lines.append(
            f"Verdict: {TEST}. 'Better' and 'worse' stand where the corrected p is at most {LEVEL:g} and the interval "
            "of the difference is clear of 0; 'not told apart' is no proof of being alike."
        )
    lines += [f"Left out, though the file names it: {name} ({why})." for name, why in value.get("left_out", {}).items()]
    lines.append(
        "Cost: training time without validation; prediction a case without loading the model; peak memory of the "
        "process that trained, or of the GPU; parameters that a prediction uses, not those that only train. "
        "Entries 'as given' are predictions of another tool, scored here by the same rule; their costs are what the "
        "file says."
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
            lines += [f"**{table.title}**", "", *markdown_table(table), ""]
        lines += [f"- {note}" for note in section.notes]
        lines += [""] if section.notes else []
    for table in series_tables(value).values():
        lines += [f"## {table.title.split(':')[0]}", "", f"**{table.title}**", "", *markdown_table(table), ""]
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


def _about(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    first = next((row for row in rows if row["labels"] == "split"), rows[0])
    parts = ", ".join(f"{count} {part}" for part, count in first["cases"].items())
    whose = "" if first["labels"] == "split" else " (all labels)"
    return f"Protocol: {first['protocol']}{whose}: {parts} cases; seeds {', '.join(map(str, value['seeds']))}."
