"""The notes under a benchmark's tables: what the figures rest on, and what is lacking."""

from collections.abc import Mapping, Sequence
from typing import Any

from semialign.evaluation.benchmark_pairs import LEVEL
from semialign.evaluation.groups import members_text

FEW_CASES, FEW_SEEDS = 10, 3


def notes(value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences that belong under the tables of one data set; ``rows`` as ``summarise`` returns them."""
    figures = [(row, which, of) for row in rows for which, of in row["checkpoints"].items()]
    found = [f"Classes that a case lacks, rule {of['rule']}: {of['rule_text']}." for _, _, of in figures[:1]]
    fewest = min((of["drawn"] for _, _, of in figures), default=FEW_CASES)
    if not fewest:
        found.append("No test case has a class, or a prediction of one, in every seed: there is no Dice to average.")
    elif fewest < FEW_CASES:
        errors = [of["standard_error"] for _, _, of in figures if of["standard_error"] is not None]
        known = f"{min(errors):.3f} to {max(errors):.3f}" if errors else "unknown"
        what = "test patients" if rows[0]["group_by"] else "test cases"
        found.append(f"Only {fewest} {what}: the standard error of a mean Dice is {known}.")
    if len(value["seeds"]) < FEW_SEEDS:
        number = "One seed" if len(value["seeds"]) == 1 else f"{len(value['seeds'])} seeds"
        found.append(f"{number} only: others may order the entries otherwise.")
    if not rows[0]["cases"]["validation"]:
        found.append("No validation cases, so no best checkpoint: the last one is reported.")
    found += _comparison_notes(value, rows, [of["difference"] for _, _, of in figures if of["difference"]])
    found += _pair_notes([pair for pair in value["pairs"] if rows and pair["dataset"] == rows[0]["dataset"]])
    groups = next((of["groups"] for _, _, of in figures if of["groups"]), None)
    if groups:
        members = members_text({name: of["classes"] for name, of in groups.items()})
        found.append(f"Groups of classes, by frequency in the labelled cases: {members}.")
    commits = sorted({commit for row in rows for commit in row["commits"]})
    if len(commits) > 1:
        found.append(f"Trained with more than one state of semialign: {'; '.join(commits)}.")
    machines = sorted({machine for row in rows for machine in row["machines"]})
    if machines:
        mixed = " (equal time is not equal work on different machines)" if len(machines) > 1 else ""
        found.append(f"Trained on: {'; '.join(machines)}{mixed}.")
    beside = max((row["side_by_side"] for row in rows), default=1)
    if beside > 1:
        shared = " and shared its cores" if any("processor" in machine for machine in machines) else ""
        found.append(f"Up to {beside} runs ran side by side{shared}: times are those of such a machine.")
    for row in rows:
        found += [
            f"Failed: {row['entry']}{'' if row['given'] else f', seed {seed}'}: {reason}"
            for seed, reason in row["failed"].items()
        ]
    due = value.get("entries_of", {}).get(rows[0]["dataset"], value["entries"])
    lacking = [name for name in due if name not in [row["entry"] for row in rows]]
    return found + ([f"Not run yet: {', '.join(lacking)}."] if lacking else [])


def _pair_notes(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    of_last = [pair for pair in pairs if pair["checkpoint"] == pairs[0]["checkpoint"]]
    number = len(of_last)
    # Entries that are alike on all of many cases are not told apart, and that says something.
    mute = [
        pair for pair in of_last if 2.0 ** (1 - (pair["differing"] or pair["difference"]["cases"])) * number > LEVEL
    ]
    what = "1 pair" if number == 1 else f"{number} pairs"
    if mute and len(mute) == number:
        best = min(mute, key=lambda pair: pair["least_p"])
        return [
            f"With {best['differing']} cases that differ, no p is below {best['least_p']:.2g}, too large for a verdict "
            f"among {what}: 'not told apart' says nothing here."
        ]
    return [
        f"'{pair['a']}' and '{pair['b']}' differ in {pair['differing']} cases, too few for a verdict among {what}."
        for pair in mute
    ]


def _comparison_notes(
    value: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> list[str]:
    notes = []
    if not value["baseline"]:
        notes.append("No entry trains on the labelled cases alone: what the unlabelled ones add cannot be told.")
    if differences and differences[0]["drawn"] == "patients":
        notes.append(f"Intervals draw the {differences[0]['cases']} patients, each the mean of its cases.")
    for row in rows:
        gaps = [of["difference"] for of in row["checkpoints"].values()] if row["entry"] == value["ceiling"] else []
        if any(gap and gap["low"] <= 0 <= gap["high"] for gap in gaps):
            notes.append(
                "The gap between labelled cases alone and all labels is not clear of 0: shares of it mean little."
            )
    return notes
