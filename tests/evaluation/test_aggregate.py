"""Averages and the rules for absent, missed and spurious classes, all by hand."""

import math

import pytest

from semialign.common.errors import UserError
from semialign.evaluation.aggregate import RULES, aggregate, case_dice
from semialign.evaluation.metrics import ClassScore, absent


def scored(name: str, dice: float, distance: float) -> ClassScore:
    return ClassScore(name, 1, "scored", dice, dice / 2, 2 * distance, distance, dice, 50, 50)


def missed(name: str) -> ClassScore:
    return ClassScore(name, 1, "missed", 0.0, 0.0, math.inf, math.inf, 0.0, 50, 0)


def spurious(name: str) -> ClassScore:
    return ClassScore(name, 1, "spurious", 0.0, 0.0, math.inf, math.inf, 0.0, 0, 50)


# Four cases and three classes; the gallbladder is of every kind, the bladder is nowhere.
CASES = {
    "one": [scored("liver", 0.9, 1.0), scored("gallbladder", 0.6, 4.0), absent("bladder", 3)],
    "two": [scored("liver", 0.8, 2.0), absent("gallbladder", 1), absent("bladder", 3)],
    "three": [scored("liver", 0.7, 3.0), missed("gallbladder"), absent("bladder", 3)],
    "four": [scored("liver", 0.6, 6.0), spurious("gallbladder"), absent("bladder", 3)],
}
BLANK = {
    "blank": [missed("liver"), absent("gallbladder", 1)],
    "other": [scored("liver", 0.8, 2.0), missed("gallbladder")],
}


def test_default_rule_leaves_absent_out_and_counts_infinite_distances():
    found = aggregate(CASES)
    gallbladder = found["classes"]["gallbladder"]
    assert {key: gallbladder[key] for key in ("scored", "absent", "missed", "spurious", "infinite")} == {
        "scored": 1,
        "absent": 1,
        "missed": 1,
        "spurious": 1,
        "infinite": 2,
    }
    assert gallbladder["dice"]["mean"] == pytest.approx((0.6 + 0 + 0) / 3)
    assert gallbladder["dice"]["count"] == 3
    assert gallbladder["iou"]["mean"] == pytest.approx(0.3 / 3)
    assert gallbladder["asd"] == {"mean": 4.0, "std": None, "median": 4.0, "count": 1}
    assert gallbladder["hd95"]["mean"] == 8.0


def test_moments_of_a_class_by_hand():
    liver = aggregate(CASES)["classes"]["liver"]
    assert liver["dice"]["mean"] == pytest.approx(0.75)
    assert liver["dice"]["median"] == pytest.approx(0.75)
    assert liver["dice"]["std"] == pytest.approx(math.sqrt((0.15**2 + 0.05**2) * 2 / 3))
    assert liver["asd"]["mean"] == 3.0
    assert liver["asd"]["median"] == 2.5
    assert (liver["scored"], liver["infinite"]) == (4, 0)


def test_a_class_in_no_case_has_no_figures_and_joins_no_mean():
    found = aggregate(CASES)
    bladder = found["classes"]["bladder"]
    assert bladder["dice"] == {"mean": None, "std": None, "median": None, "count": 0}
    assert (bladder["scored"], bladder["absent"]) == (0, 4)
    assert found["mean"]["dice"] == pytest.approx((0.75 + 0.2) / 2)
    assert found["mean"]["asd"] == pytest.approx((3.0 + 4.0) / 2)
    assert found["infinite"] == 2


def test_mean_dice_of_cases_by_hand():
    expected = {"one": 0.75, "two": 0.8, "three": 0.35, "four": 0.3}
    assert case_dice(CASES) == pytest.approx(expected)
    spread = aggregate(CASES)["case_dice"]
    assert spread["mean"] == pytest.approx(0.55)
    assert (spread["min"], spread["max"], spread["count"]) == (pytest.approx(0.3), pytest.approx(0.8), 4)
    deviation = math.sqrt((0.2**2 + 0.25**2 + 0.2**2 + 0.25**2) / 3)
    assert spread["std"] == pytest.approx(deviation)
    assert spread["standard_error"] == pytest.approx(deviation / 2)


# Mean Dice and ASD of the gallbladder (scored 0.6 and 4.0; absent, missed, spurious once each) and of the bladder.
@pytest.mark.parametrize(
    ("rule", "gallbladder", "bladder"),
    [
        ("default", ((0.6 + 0 + 0) / 3, 4.0), (None, None)),
        ("ga", ((0.6 + 1 + 0 + 0) / 4, (4 + 0 + 128 + 128) / 4), (1.0, 0.0)),
        ("magicnet", ((0.6 + 0 + 0 + 0) / 4, 4 / 4), (0.0, 0.0)),
        ("dhc", ((0.6 + 0.01 + 0 + 0) / 4, (4 + 0 + 128 + 128) / 4), (0.01, 0.0)),
    ],
)
def test_every_rule_by_hand(rule, gallbladder, bladder):
    found = aggregate(CASES, rule)
    for name, expected in (("gallbladder", gallbladder), ("bladder", bladder)):
        entry = found["classes"][name]
        assert (entry["dice"]["mean"], entry["asd"]["mean"]) == pytest.approx(expected)
    assert found["classes"]["gallbladder"]["infinite"] == 2  # counted whatever the rule makes of them
    assert (found["rule"], found["rule_text"]) == (rule, RULES[rule].text)
    present = [dice for dice in (0.75, gallbladder[0], bladder[0]) if dice is not None]
    assert found["mean"]["dice"] == pytest.approx(sum(present) / len(present))


def test_the_same_scores_differ_by_points_between_rules():
    means = [aggregate(CASES, rule)["mean"]["dice"] for rule in RULES]
    assert max(means) - min(means) > 0.02


def test_a_wholly_blank_prediction_is_nought_in_everything_under_ga_alone():
    ga, default = aggregate(BLANK, "ga"), aggregate(BLANK)
    assert ga["classes"]["gallbladder"]["dice"]["mean"] == 0.0  # its absence in the blank case earns no 1
    assert ga["classes"]["liver"]["asd"]["mean"] == pytest.approx((0 + 2.0) / 2)
    assert default["classes"]["gallbladder"]["dice"] == {"mean": 0.0, "std": None, "median": 0.0, "count": 1}
    assert aggregate(BLANK, "dhc")["classes"]["gallbladder"]["dice"]["mean"] == pytest.approx(0.005)
    assert case_dice(BLANK, "ga") == pytest.approx({"blank": 0.0, "other": 0.4})


def test_a_case_without_any_class_has_no_mean_dice():
    cases = {"empty": [absent("liver", 1)], "full": [scored("liver", 0.5, 1.0)]}
    assert case_dice(cases) == {"full": 0.5}
    assert case_dice(cases, nothing=1.0) == {"empty": 1.0, "full": 0.5}
    assert case_dice(cases, "ga") == {"empty": 0.0, "full": 0.5}  # its prediction is blank
    found = aggregate(cases)
    assert (found["cases"], found["case_dice"]["count"], found["case_dice"]["standard_error"]) == (2, 1, None)


def test_unknown_rule_names_the_known_ones():
    with pytest.raises(UserError, match="unknown rule 'defalt'; did you mean 'default'"):
        aggregate(CASES, "defalt")
    with pytest.raises(UserError, match="unknown rule"):
        case_dice(CASES, "published")
