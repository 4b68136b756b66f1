"""Figures of a benchmark against figures worked out by hand, and the page that shows them."""

import copy
from typing import Any

import pytest

from semialign.common.errors import UserError
from semialign.evaluation.benchmark_pairs import compare_pairs
from semialign.evaluation.benchmark_summary import summarise
from semialign.evaluation.benchmark_table import markdown, sections
from semialign.evaluation.benchmark_words import duration

ENTRIES = ("labels only", "mean teacher", "all labels")


def record(
    entry: str, seed: int, dice: dict[str, float | None], *, best: dict[str, float | None] | None = None, **changes: Any
) -> Any:
    """A finished run on one class, whose figures follow from ``dice`` by case; ``None``: rightly nothing found."""

    def checkpoint(of_all: dict[str, float | None]) -> dict[str, Any]:
        of = {case: value for case, value in of_all.items() if value is not None}
        mean = sum(of.values()) / len(of)
        missed = sum(value == 0 for value in of.values())
        counts = {"scored": len(of) - missed, "missed": missed, "absent": 1, "spurious": 0}
        moments = {"dice": {"mean": mean}, "hd95": {"mean": 10 * mean}, "asd": {"mean": None}}
        return {
            "case_dice": of,
            "scores": [{"case": case, "class": "liver", "dice": value} for case, value in of_all.items()],
            "summary": {
                "mean": {"dice": mean, "hd95": 10 * mean, "asd": None},
                "classes": {"liver": {**counts, **moments}},
                "infinite": missed,
                "units": "mm",
                "rule": "default",
                "rule_text": "absent classes left out",
            },
        }

    return {
        "dataset": "heart",
        "entry": entry,
        "seed": seed,
        "labels": "all" if entry == "all labels" else "split",
        "settings": {"method": "supervised", "training": {"plugins": []}},
        "protocol": "by hand",
        "cases": {"labelled": 2, "unlabelled": 5, "validation": 1, "test": len(dice)},
        "group_by": None,
        "machine": "a machine",
        "state": "finished",
        "training_seconds": 60.0 + seed,
        "steps": 100 + 10 * seed,
        "predict_seconds": 0.5,
        "parameters": 1_500_000,
        "peak_memory_bytes": 2**31,
        "checkpoints": {"last": checkpoint(dice), **({"best": checkpoint(best)} if best else {})},
    } | changes


def three_entries() -> list[Any]:
    return [
        record("labels only", 0, {"a": 0.5, "b": 0.3}, best={"a": 0.6, "b": 0.4}),
        record("labels only", 1, {"a": 0.6, "b": 0.4}, best={"a": 0.6, "b": 0.4}),
        record("mean teacher", 0, {"a": 0.7, "b": 0.4}, best={"a": 0.7, "b": 0.6}),
        record("mean teacher", 1, {"a": 0.6, "b": 0.5}, best={"a": 0.7, "b": 0.6}),
        record("all labels", 0, {"a": 0.9, "b": 0.8}, best={"a": 0.9, "b": 0.8}),
        record("all labels", 1, {"a": 0.9, "b": 0.8}, best={"a": 0.8, "b": 0.9}),
    ]


def summed(records: list[Any], **changes: Any) -> dict[str, Any]:
    options = {"entries": ENTRIES, "baseline": "labels only", "ceiling": "all labels"} | changes
    return {row["entry"]: row for row in summarise(records, **options)}


def test_spread_over_seeds():
    rows = summed([*three_entries(), record("mean teacher", 2, {"a": 0.9, "b": 0.7}, best={"a": 0.1, "b": 0.1})])
    dice = rows["mean teacher"]["checkpoints"]["last"]["dice"]  # runs of mean 0.55, 0.55 and 0.8
    assert (dice["median"], dice["minimum"], dice["maximum"], dice["runs"]) == pytest.approx((0.55, 0.55, 0.8, 3))
    assert dice["mean"] == pytest.approx(1.9 / 3)
    assert rows["mean teacher"]["training_seconds"]["mean"] == 61.0
    assert rows["mean teacher"]["steps"]["maximum"] == 120
    assert rows["mean teacher"]["seeds"] == [0, 1, 2]


def test_difference_pairs_cases_after_averaging_over_seeds():
    last = summed(three_entries())["mean teacher"]["checkpoints"]["last"]["difference"]
    # By case: a (0.7 + 0.6)/2 - (0.5 + 0.6)/2 = 0.1, b 0.45 - 0.35 = 0.1: no spread over cases at all.
    assert (last["mean"], last["low"], last["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert (last["cases"], last["drawn"]) == (2, "cases")
    best = summed(three_entries())["mean teacher"]["checkpoints"]["best"]["difference"]
    # a 0.7 - 0.6 = 0.1, b 0.6 - 0.4 = 0.2: the bootstrap of two cases draws means 0.1, 0.15 and 0.2.
    assert (best["mean"], best["low"], best["high"]) == pytest.approx((0.15, 0.1, 0.2))


def test_references_are_not_compared_with_themselves():
    rows = summed(three_entries())
    assert rows["labels only"]["checkpoints"]["last"]["difference"] is None
    assert rows["labels only"]["checkpoints"]["last"]["gap_closed"] is None
    assert rows["all labels"]["checkpoints"]["last"]["gap_closed"] is None
    assert rows["all labels"]["checkpoints"]["last"]["difference"]["mean"] == pytest.approx(0.4)


def test_gap_closed():
    rows = summed(three_entries())["mean teacher"]["checkpoints"]
    assert rows["last"]["gap_closed"] == pytest.approx((0.55 - 0.45) / (0.85 - 0.45))
    assert rows["best"]["gap_closed"] == pytest.approx((0.65 - 0.5) / (0.85 - 0.5))
    without = summed(three_entries(), ceiling=None)["mean teacher"]["checkpoints"]["last"]
    assert without["gap_closed"] is None
    assert without["difference"] is not None
    alone = summed(three_entries(), baseline=None)["mean teacher"]["checkpoints"]["last"]
    assert (alone["gap_closed"], alone["difference"]) == (None, None)


def test_a_gap_that_is_none_is_not_divided_by():
    records = three_entries()
    for place in (4, 5):
        records[place]["checkpoints"]["last"] = copy.deepcopy(records[0]["checkpoints"]["last"])
        records[place]["checkpoints"]["last"]["summary"]["mean"]["dice"] = 0.2
    assert summed(records)["mean teacher"]["checkpoints"]["last"]["gap_closed"] is None


def test_patients_are_drawn_whole():
    dice = {"p1-a": 0.8, "p1-b": 0.6, "p2-a": 0.2}
    records = [
        record("labels only", 0, dict.fromkeys(dice, 0.1), group_by="^(p1|p2)"),
        record("mean teacher", 0, dice, group_by="^(p1|p2)"),
    ]
    difference = summed(records)["mean teacher"]["checkpoints"]["last"]["difference"]
    # Patients: p1 0.7 - 0.1, p2 0.2 - 0.1; the mean over cases would be 0.4333.
    assert difference["mean"] == pytest.approx(0.35)
    assert (difference["drawn"], difference["cases"]) == ("patients", 2)
    assert (difference["low"], difference["high"]) == pytest.approx((0.1, 0.6))


def test_rightly_finding_nothing_counts_one():
    records = [
        record("labels only", 0, {"a": 0.5, "b": 0.3, "empty": None, "bare": None}),
        record("mean teacher", 0, {"a": 0.7, "b": 0.4, "empty": 0.0, "bare": None}),
        record("mean teacher", 1, {"a": 0.7, "b": 0.4, "empty": None, "bare": None}),
    ]
    difference = summed(records)["mean teacher"]["checkpoints"]["last"]["difference"]
    # Something is found in the empty case under one seed of two: there it counts (0 + 1) / 2 against 1.
    assert difference["mean"] == pytest.approx((0.2 + 0.1 - 0.5 + 0.0) / 4)
    assert difference["cases"] == 4
    # The mean Dice and its standard error are of the cases with a class.
    of = summed(records)["labels only"]["checkpoints"]["last"]
    assert (of["drawn"], of["dice"]["mean"]) == (2, pytest.approx(0.4))


def test_runs_on_other_cases_are_not_compared():
    records = [record("labels only", 0, {"a": 0.5}), record("mean teacher", 0, {"b": 0.7})]
    with pytest.raises(UserError, match="only one evaluation holds a, b"):
        summed(records)


CLASSES = ("liver", "kidney", "cyst", "duct")
FREQUENCIES = {"liver": 0.1, "kidney": 0.1, "cyst": 0.001, "duct": 0.0}  # head: liver, kidney; tail: cyst, duct
OTHER = {"liver": 0.001, "kidney": 0.001, "cyst": 0.1, "duct": 0.1}


def grouped(entry: str, seed: int, cases: dict[str, list[float | None]], **changes: Any) -> Any:
    """A finished run whose cases list the Dice of all classes; the ASD is 10 times as much, infinite at 0."""
    rows = [{"case": c, "class": n, "dice": d} for c, of in cases.items() for n, d in zip(CLASSES, of, strict=True)]
    classes: dict[str, Any] = {}
    for place, name in enumerate(CLASSES):
        dice = [of[place] for of in cases.values() if of[place] is not None]
        finite = [10 * value for value in dice if value]
        classes[name] = {
            "dice": {"mean": mean(dice)},
            "hd95": {"mean": None},
            "asd": {"mean": mean(finite)},
            "scored": len(finite),
            "missed": len(dice) - len(finite),
            "absent": len(cases) - len(dice),
            "spurious": 0,
        }
    made = record(entry, seed, {"a": 0.5}, class_frequencies=FREQUENCIES, **changes)
    made["checkpoints"]["last"]["scores"] = rows
    made["checkpoints"]["last"]["summary"]["classes"] = classes
    return made


def mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None


def two_groups() -> list[Any]:
    return [
        grouped("labels only", 0, {"a": [0.9, 0.7, 0.0, 0.0], "b": [0.7, 0.5, 0.2, None]}),
        grouped("labels only", 1, {"a": [0.9, 0.7, 0.0, 0.0], "b": [0.7, 0.5, 0.4, None]}),
        grouped("mean teacher", 0, {"a": [0.9, 0.7, 0.3, 0.1], "b": [0.7, 0.5, 0.6, None]}),
        grouped("all labels", 0, {"a": [0.9, 0.9, 0.9, 0.9], "b": [0.9, 0.9, 0.9, None]})
        | {"class_frequencies": OTHER},
    ]


def test_groups_by_hand():
    rows = summed(two_groups())
    head, tail = rows["labels only"]["checkpoints"]["last"]["groups"].values()
    assert (head["classes"], tail["classes"]) == (["liver", "kidney"], ["cyst", "duct"])
    # Head: the means over cases are 0.8 and 0.6. Tail: cyst 0.1 and 0.2 by seed, duct 0 under both.
    assert head["dice"]["mean"] == pytest.approx(0.7)
    assert (tail["dice"]["mean"], tail["dice"]["minimum"], tail["dice"]["maximum"]) == pytest.approx((0.075, 0.05, 0.1))
    # The duct is never found: its distances are counted, and the mean says that it is over one class.
    assert tail["asd"] == pytest.approx((2.0 + 4.0) / 2)
    assert tail["averaged"]["asd"] == 1
    assert (tail["infinite"], tail["missed"], tail["absent"], tail["scored"]) == (4, 4, 2, 2)
    assert (head["infinite"], head["averaged"]["asd"], head["difference"]) == (0, 2, None)


def test_differences_of_groups_pair_cases():
    tail = summed(two_groups())["mean teacher"]["checkpoints"]["last"]["groups"]["tail"]["difference"]
    # Case a: (0.3 + 0.1) / 2 - 0; case b, without a duct: 0.6 - (0.2 + 0.4) / 2.
    assert tail["mean"] == pytest.approx((0.2 + 0.3) / 2)
    assert (tail["low"], tail["high"], tail["cases"]) == (pytest.approx(0.2), pytest.approx(0.3), 2)
    head = summed(two_groups())["mean teacher"]["checkpoints"]["last"]["groups"]["head"]["difference"]
    assert (head["mean"], head["low"], head["high"]) == pytest.approx((0, 0, 0))


def test_groups_follow_the_labelled_cases_of_the_baseline_and_never_the_ceiling():
    def members(records: list[Any], **changes: Any) -> list[Any]:
        rows = summed(records, **changes).values()
        return [{name: of["classes"] for name, of in row["checkpoints"]["last"]["groups"].items()} for row in rows]

    expected = {"head": ["liver", "kidney"], "tail": ["cyst", "duct"]}
    records = two_groups()
    assert members(records) == [expected] * 3
    assert members(records[2:]) == [expected] * 2  # no run of the baseline is finished: another on the same labels
    assert members(records, baseline=None) == [expected] * 3
    assert members(records[3:]) == [{}]
    assert members(three_entries()) == [{}] * 3  # no frequencies are known


def test_markdown_shows_groups():
    text = markdown(page(two_groups()))
    table = text.split("**Test scores by group of classes**")[1].split("**")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert lines[0][2:5] == [
        "group",
        "Dice, median over seeds [lowest to highest]",
        "difference to 'labels only' (95 % interval)",
    ]
    assert lines[2] == [
        "labels only",
        "last",
        "head",
        "0.700 [0.700 to 0.700]",
        "-",
        "- (0 of 2 classes)",
        "7.00 [7.00 to 7.00]",
        "0 of 8",
    ]
    assert lines[3] == [
        "",
        "",
        "tail",
        "0.075 [0.050 to 0.100]",
        "-",
        "- (0 of 2 classes)",
        "3.00 [2.00 to 4.00] (1 of 2 classes)",
        "4 of 6",
    ]
    assert lines[5][2:5] == ["tail", "0.275", "+0.250 (+0.200 to +0.300)"]
    assert "by frequency in the labelled cases: head: liver, kidney; tail: cyst, duct." in text
    assert "'2 of 3 classes' says" in text
    assert "by group" not in markdown(page(three_entries()))


def test_infinite_distances_are_counted_over_all_seeds_and_not_averaged():
    records = [
        record("labels only", 0, {"a": 0.0, "b": 0.4}),
        record("labels only", 1, {"a": 0.0, "b": 0.8}),
    ]
    of = summed(records)["labels only"]["checkpoints"]["last"]
    assert of["infinite"] == 2
    assert of["hd95"] == pytest.approx(3.0)  # runs of 2 and 4
    assert of["asd"] is None
    assert (of["classes"]["liver"]["missed"], of["classes"]["liver"]["scored"]) == (2, 2)
    assert of["classes"]["liver"]["dice"] == pytest.approx(0.3)
    # Cases average 0 and 0.6 over seeds: sample deviation 0.6 / sqrt 2, over sqrt 2.
    assert of["standard_error"] == pytest.approx(0.3)


def test_classes_and_distances_have_their_spread_over_seeds():
    records = [record("labels only", seed, {"a": value, "b": value}) for seed, value in enumerate((0.2, 0.6, 0.7))]
    of = summed(records)["labels only"]["checkpoints"]["last"]
    assert (of["spread"]["hd95"]["median"], of["spread"]["hd95"]["maximum"]) == pytest.approx((6.0, 7.0))
    liver = of["classes"]["liver"]["spread"]["dice"]
    assert (liver["median"], liver["minimum"], liver["maximum"]) == pytest.approx((0.6, 0.2, 0.7))
    assert of["counts"] == {"scored": 6, "absent": 3, "missed": 0, "spurious": 0}


def test_records_of_before_costs_were_measured_still_count():
    old = three_entries()
    for run in old:
        for key in ("predict_seconds", "parameters", "peak_memory_bytes"):
            del run[key]
    assert rows_of(markdown(page(old)), "Cost")[0] == ["labels only", "1 min 0 s", "105", "-", "-", "-", "2"]


def test_best_is_shown_only_where_every_seed_has_it():
    records = [record("labels only", 0, {"a": 0.5}, best={"a": 0.5}), record("labels only", 1, {"a": 0.5})]
    assert list(summed(records)["labels only"]["checkpoints"]) == ["last"]


def test_failed_runs_leave_their_reason_and_the_others_count():
    failed = {"state": "failed", "reason": "no memory", "checkpoints": {}}
    records = [*three_entries(), record("mean teacher", 2, {"a": 1.0}, **failed)]
    row = summed(records)["mean teacher"]
    assert row["failed"] == {"2": "no memory"}
    assert row["checkpoints"]["last"]["dice"]["mean"] == pytest.approx(0.55)
    lost = summed([record("mean teacher", 2, {"a": 1.0}, **failed)])["mean teacher"]
    assert lost["checkpoints"] == {}


def page(records: list[Any], **changes: Any) -> dict[str, Any]:
    value = {
        "name": "trial",
        "description": "What it is.",
        "file": "trial.yaml",
        "length": "equal training time: 2 minutes a run",
        "overrides": {},
        "seeds": [0, 1],
        "datasets": ["heart"],
        "entries": list(ENTRIES),
        "baseline": "labels only",
        "ceiling": "all labels",
        "versions": {"semialign": "9.9"},
        "commit": "c0ffee",
    } | changes
    names = {"entries": value["entries"], "baseline": value["baseline"], "ceiling": value["ceiling"]}
    pairs = compare_pairs(records, entries=value["entries"])
    return value | {"results": summarise(records, **names), "pairs": pairs}


def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table with that title, without its head."""
    table = text.split(f"**{title}")[1].split("**")[1].split("\n- ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines][2:]


def test_markdown_shows_every_figure_in_words():
    text = markdown(page(three_entries()))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    head, rows = lines[0], {(row[0], row[2]): row for row in lines[2:8]}
    assert head[3:] == [
        "median over seeds [lowest to highest]",
        "mean over seeds",
        "difference to 'labels only' (95 % interval)",
        "share of the gap closed",
    ]
    last = rows["mean teacher", "last"]
    assert last[1] == "2"
    assert last[3:] == ["0.550 [0.550 to 0.550]", "0.550", "+0.100 (+0.100 to +0.100)", "25 %"]
    assert lines[5][2:] == ["best", "0.650 [0.650 to 0.650]", "0.650", "+0.150 (+0.100 to +0.200)", "43 %"]
    assert rows_of(text, "Test distances")[2:4] == [
        ["mean teacher", "last", "5.50 [5.50 to 5.50]", "-", "0 of 4", "0", "0", "2"],
        ["", "best", "6.50 [6.50 to 6.50]", "-", "0 of 4", "0", "0", "2"],
    ]
    assert rows_of(text, "Cost")[1] == [
        "mean teacher", "1 min 0 s", "105", "0.50 s", "2.00 GiB", "1.50 M", "2",
    ]  # fmt: skip
    for sentence in (
        "Protocol: by hand: 2 labelled, 5 unlabelled, 1 validation, 2 test cases; seeds 0, 1.",
        "rule default: absent classes left out",
        "Only 2 test cases: the standard error of a mean Dice is 0.000 to 0.100.",
        "2 seeds only",
        "equal training time: 2 minutes a run",
        "Test cases choose nothing",
        "commit c0ffee",
        "| liver |",
    ):
        assert sentence in text


def test_markdown_says_what_is_lacking():
    failed = {"state": "failed", "reason": "no memory", "checkpoints": {}}
    text = markdown(page([record("mean teacher", 1, {"a": 1.0}, **failed)], baseline=None, ceiling=None))
    assert "| mean teacher | 2 | all runs failed |" in text
    assert "Failed: mean teacher, seed 1: no memory" in text
    assert "Test distances" not in text
    assert "No entry trains on the labelled cases alone" in text
    assert "Not run yet: labels only, all labels." in text
    assert "share of the gap" not in text
    assert "No run is finished yet." in markdown(page([]))


def test_notes_depend_on_the_data():
    many = {f"c{i}": 0.5 + i / 100 for i in range(10)}
    records = [record(entry, seed, many) for entry in ENTRIES for seed in (0, 1, 2)]
    notes = " ".join(sections(page(records, seeds=[0, 1, 2]))[0].notes)
    assert "standard error" not in notes
    assert "seeds only" not in notes
    assert "not clear of 0" in notes  # all entries are equal
    assert "Trained on: a machine." in notes
    records[0]["machine"] = "another"
    assert "different machines" in " ".join(sections(page(records))[0].notes)
    grouped = [r | {"group_by": "c[0-4]|c[5-9]"} for r in records]
    assert "10 patients" in " ".join(sections(page(grouped))[0].notes)
    pairs = [r | {"group_by": "c[0-4]|c"} for r in records]  # c0 to c4, and the rest as one
    assert "Only 6 test patients: the standard error" in " ".join(sections(page(pairs))[0].notes)


def test_a_note_says_where_no_verdict_was_possible():
    assert "With 2 cases, no p is below 0.5, too large for a verdict among 3 pairs" in markdown(page(three_entries()))
    many = {f"c{i}": 0.5 + i / 100 for i in range(10)}
    assert "too large for a verdict" not in markdown(page([record(entry, 0, many) for entry in ENTRIES]))


def test_series_put_dice_beside_the_number_of_labels():
    def of(dataset: str, labelled: int, shift: float) -> list[Any]:
        cases = {"labelled": labelled, "unlabelled": 5, "validation": 1, "test": 2}
        return [
            record(entry, seed, {"a": 0.5 + shift, "b": 0.7 + shift + 0.02 * seed}, dataset=dataset, cases=cases)
            for entry in ENTRIES
            for seed in (0, 1)
        ]

    records = [*of("eight", 8, 0.1), *of("four", 4, 0.0), *of("alone", 2, 0.0)]
    value = page(records, datasets=["eight", "four", "alone"], series={"eight": "heart", "four": "heart"})
    text = markdown(value)
    assert rows_of(text, "Series heart") == [
        [entry, "0.605 [0.600 to 0.610]", "0.705 [0.700 to 0.710]"] for entry in ("labels only", "mean teacher")
    ]
    assert "| entry | 4 labelled | 8 labelled |" in text
    assert text.count("Series ") == 2  # the heading and the title
    assert "Series" not in markdown(page(records, datasets=["eight"]))


def test_a_bar_in_a_name_does_not_break_the_table():
    records = [record("a|b", 0, {"a": 0.5})]
    row = next(line for line in markdown(page(records, entries=["a|b"])).splitlines() if line.startswith("| a"))
    assert row.startswith("| a\\|b | 2 | last |")


def test_duration():
    assert [duration(s) for s in (0.4, 59.4, 59.6, 125, 3599.6, 7260)] == [
        "0 s", "59 s", "1 min 0 s", "2 min 5 s", "1 h 0 min", "2 h 1 min",
    ]  # fmt: skip
