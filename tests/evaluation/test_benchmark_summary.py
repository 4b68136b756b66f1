"""Figures of a benchmark against figures worked out by hand."""

import copy
from typing import Any

import pytest
from bench_records import record, summed, three_entries, two_groups

from semialign.common.errors import UserError


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
