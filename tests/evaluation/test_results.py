"""Evaluations written, read back and refused."""

import csv
import json
import math

import pytest

from semialign.common.errors import UserError
from semialign.evaluation.aggregate import METRICS, aggregate
from semialign.evaluation.groups import group_figures
from semialign.evaluation.metrics import ClassScore, absent
from semialign.evaluation.results import Evaluation, load_evaluation, write_evaluation

SCORES = {
    "a": (ClassScore("liver", 1, "scored", 0.75, 0.6, 3.5, 1.25, 0.9, 10, 12), absent("cyst, large", 2)),
    "b": (
        ClassScore("liver", 1, "missed", 0.0, 0.0, math.inf, math.inf, 0.0, 10, 0),
        ClassScore("cyst, large", 2, "spurious", 0.0, 0.0, math.inf, math.inf, 0.0, 0, 4),
    ),
}


@pytest.fixture
def evaluation() -> Evaluation:
    about = {"units": "mm", "tolerance": 2.0, "named": True, "without_label": [], "without_prediction": []}
    return Evaluation(SCORES, about | aggregate(SCORES))


def test_round_trip(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "scores")
    for path in (tmp_path / "scores", tmp_path / "scores" / "summary.json"):
        assert load_evaluation(path) == evaluation
    assert load_evaluation(path).case_dice() == {"a": 0.75, "b": 0.0}


def test_json_holds_no_infinity(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path)
    value = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (value["format"], value["version"]) == ("semialign evaluation", 1)
    assert value["scores"] == evaluation.cases
    assert [(row["status"], row["hd95"]) for row in value["scores"]] == [
        ("scored", 3.5),
        ("absent", None),
        ("missed", None),
        ("spurious", None),
    ]


def test_csv_tells_infinite_from_absent(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path)
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [(row["case"], row["class"], row["dice"], row["asd"]) for row in rows] == [
        ("a", "liver", "0.75", "1.25"),
        ("a", "cyst, large", "", ""),
        ("b", "liver", "0.0", "inf"),
        ("b", "cyst, large", "0.0", "inf"),
    ]


def test_groups_are_kept_and_older_files_without_them_are_read(evaluation, tmp_path):
    groups = group_figures(evaluation.summary["classes"], {"tail": ("cyst, large", "liver")}, metrics=METRICS)
    grouped = Evaluation(SCORES, evaluation.summary | {"groups": groups})
    write_evaluation(grouped, tmp_path / "grouped")
    assert load_evaluation(tmp_path / "grouped").group_rows() == grouped.group_rows()
    (row,) = grouped.group_rows()
    assert (row["dice"], row["asd"], row["infinite"]) == (pytest.approx((0.375 + 0) / 2), 1.25, 2)
    assert row.keys() == evaluation.class_rows()[0].keys()
    assert evaluation.group_rows() == []


def test_scores_can_be_averaged_again_under_another_rule(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path)
    assert aggregate(load_evaluation(tmp_path).scores, "ga")["mean"]["dice"] == pytest.approx((0.375 + 0.5) / 2)


def test_what_is_no_evaluation_is_refused(evaluation, tmp_path):
    with pytest.raises(UserError, match=r"summary.json: no such file"):
        load_evaluation(tmp_path)
    path = tmp_path / "summary.json"
    path.write_text('{"mean": 1}')
    with pytest.raises(UserError, match=r"summary.json: not an evaluation"):
        load_evaluation(path)
    path.write_text(json.dumps({"format": "semialign evaluation", "version": 99}))
    with pytest.raises(UserError, match=r"version 99, this semialign reads 1"):
        load_evaluation(path)
