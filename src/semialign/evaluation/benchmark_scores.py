"""The tables of scores of a benchmark: Dice, distances, by group and by class."""

from collections.abc import Mapping, Sequence
from typing import Any

from semialign.evaluation.benchmark_words import (
    NONE,
    Table,
    difference,
    figure,
    median,
    percent,
    shown_checkpoints,
    unit_of,
)

Rows = Sequence[Mapping[str, Any]]
COUNTS = ("missed", "spurious", "absent")


def dice_table(value: Mapping[str, Any], rows: Rows) -> Table:
    """Return the table of test Dice: spread over seeds, difference to the baseline, share of the gap."""
    columns = ["entry", "labelled cases", "checkpoint", "median over seeds [lowest to highest]", "mean over seeds"]
    columns += [f"difference to '{value['baseline']}' (95 % interval)"] if value["baseline"] else []
    columns += ["share of the gap closed"] if value["baseline"] and value["ceiling"] else []
    body = []
    for row in rows:
        for place, (which, word) in enumerate(shown_checkpoints(row)):
            of = row["checkpoints"][which]
            cells = [row["entry"], str(row["cases"]["labelled"])] if place == 0 else ["", ""]
            cells += [word, median(of["dice"]), figure(of["dice"]["mean"])]
            cells += [difference(of["difference"])] if value["baseline"] else []
            cells += [percent(of["gap_closed"])] if value["baseline"] and value["ceiling"] else []
            body.append(tuple(cells))
        if not row["checkpoints"]:
            cells = [row["entry"], str(row["cases"]["labelled"]), "all runs failed"]
            body.append(tuple(cells + [NONE] * (len(columns) - len(cells))))
    return Table("Test Dice", tuple(columns), tuple(body))


def distance_table(rows: Rows) -> Table:
    """Return the table of distances, with the counts of classes that a case or a prediction lacks."""
    unit, body = unit_of(rows), []
    for row in rows:
        for place, (which, word) in enumerate(shown_checkpoints(row)):
            of = row["checkpoints"][which]
            cells = [row["entry"] if place == 0 else "", word]
            cells += [median(of["spread"][metric], 2) for metric in ("hd95", "asd")]
            body.append((*cells, _infinite(of), *(str(of["counts"][key]) for key in COUNTS)))
    columns = ("entry", "checkpoint", *(f"{name}, {unit}, median over seeds" for name in ("HD95", "ASD")))
    columns += ("infinite distances", *(f"{key} classes" for key in COUNTS))
    return Table("Test distances, and classes that are lacking (counted over cases and seeds)", columns, tuple(body))


def group_table(value: Mapping[str, Any], rows: Rows) -> Table:
    """Return the table of head, middle and tail of the classes."""
    unit, body = unit_of(rows), []
    for row in rows:
        words = dict(shown_checkpoints(row))
        shown = [(which, name) for which in words for name in row["checkpoints"][which]["groups"]]
        for place, (which, name) in enumerate(shown):
            of = row["checkpoints"][which]["groups"][name]
            first = place == 0 or shown[place - 1][0] != which
            cells = [row["entry"] if place == 0 else "", words[which] if first else "", name, median(of["dice"])]
            cells += [difference(of["difference"])] if value["baseline"] else []
            cells += [_distance(of, metric) for metric in ("hd95", "asd")]
            body.append((*cells, f"{of['infinite']} of {of['scored'] + of['infinite']}"))
    columns = ["entry", "checkpoint", "group", "Dice, median over seeds [lowest to highest]"]
    columns += [f"difference to '{value['baseline']}' (95 % interval)"] if value["baseline"] else []
    columns += [f"HD95, {unit}", f"ASD, {unit}", "infinite distances"]
    return Table("Test scores by group of classes", tuple(columns), tuple(body), aside=True)


def class_table(rows: Rows) -> Table:
    """Return the table of every class."""
    names = list(dict.fromkeys(n for row in rows for of in row["checkpoints"].values() for n in of["classes"]))
    unit, body = unit_of(rows), []
    for row in rows:
        for place, (which, word) in enumerate(shown_checkpoints(row)):
            classes = row["checkpoints"][which]["classes"]
            for name in names:
                of = classes[name]
                head = [row["entry"] if place == 0 and name == names[0] else "", word if name == names[0] else ""]
                spreads = [median(of["spread"]["dice"]), *(median(of["spread"][m], 2) for m in ("hd95", "asd"))]
                body.append((*head, name, *spreads, *(str(of[key]) for key in COUNTS)))
    columns = ("entry", "checkpoint", "class", "Dice", f"HD95, {unit}", f"ASD, {unit}", *COUNTS)
    title = "Test scores by class: medians over seeds [lowest to highest], counts over all seeds"
    return Table(title, columns, tuple(body), aside=True)


def _distance(of: Mapping[str, Any], metric: str) -> str:
    averaged, every = of["averaged"][metric], len(of["classes"])
    return median(of["spread"][metric], 2) + (f" ({averaged} of {every} classes)" if averaged < every else "")


def _infinite(of: Mapping[str, Any]) -> str:
    every = sum(entry[key] for entry in of["classes"].values() for key in ("scored", "missed", "spurious"))
    return f"{of['infinite']} of {every}"
