"""The page of a benchmark's results in Markdown: every figure, in words, and what is lacking."""

from typing import Any

from bench_records import ENTRIES, page, record, rows_of, three_entries, two_groups

from semialign.evaluation.benchmark_table import markdown, sections
from semialign.evaluation.benchmark_words import duration


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


def test_records_of_before_costs_were_measured_still_count():
    old = three_entries()
    for run in old:
        for key in ("predict_seconds", "parameters", "peak_memory_bytes"):
            del run[key]
    assert rows_of(markdown(page(old)), "Cost")[0] == ["labels only", "1 min 0 s", "105", "-", "-", "-", "2"]


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


def test_only_entries_that_are_due_on_a_data_set_are_lacking_there():
    records = three_entries()[:2]
    assert "Not run yet: mean teacher, all labels." in markdown(page(records))
    due = {"heart": ["labels only", "all labels"]}
    assert "Not run yet: all labels." in markdown(page(records, entries_of=due))


def test_a_note_says_where_no_verdict_was_possible():
    text = markdown(page(three_entries()))
    assert "With 2 cases that differ, no p is below 0.5, too large for a verdict among 3 pairs" in text
    many = {f"c{i}": 0.5 + i / 100 for i in range(10)}
    assert "too large for a verdict" not in markdown(page([record(entry, 0, many) for entry in ENTRIES]))
    some = many | {f"c{i}": 0.3 for i in range(4)}
    lower = {case: dice - 0.2 - dice / 10 for case, dice in many.items()}
    text = markdown(page([record(*of) for of in zip(ENTRIES, (0, 0, 0), (many, some, lower), strict=True)]))
    assert "'labels only' and 'mean teacher' differ in 4 cases, too few for a verdict among 3 pairs." in text
    assert text.count("too few for a verdict") == 1
    assert "too large for a verdict" not in text


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


def test_a_data_set_whose_test_cases_hold_no_class_ends_nothing():
    empty = [record(entry, 0, {"a": None, "b": None}) for entry in ENTRIES]
    text = markdown(page(empty))
    assert rows_of(text, "Test Dice")[0] == ["labels only", "2", "last", "-", "-", "-", "-"]
    assert "there is no Dice to average" in text
