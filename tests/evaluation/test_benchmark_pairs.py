"""Verdicts on pairs of entries, against scipy and by hand, and the matrix that shows them."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from semialign.common.errors import UserError
from semialign.evaluation.benchmark_comparisons import pair_tables
from semialign.evaluation.benchmark_pairs import compare_pairs

NAMES = ["a", "b", "c"]


def run(entry: str, seed: int, dice: Any, *, best: Any = None, **changes: Any) -> dict[str, Any]:
    def scored(values: Any) -> dict[str, Any]:
        return {"scores": [{"case": f"p{i // 2}-{i}", "class": "x", "dice": float(v)} for i, v in enumerate(values)]}

    checkpoints = {"last": scored(dice)} | ({"best": scored(best)} if best is not None else {})
    base = {"dataset": "heart", "entry": entry, "seed": seed, "group_by": None, "state": "finished"}
    return base | {"checkpoints": checkpoints} | changes


def three(cases: int = 14) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    a = rng.uniform(0.5, 0.9, cases)
    return {"a": a, "b": a - 0.05 + rng.normal(0, 0.01, cases), "c": a + rng.normal(0, 0.05, cases)}


def test_p_values_are_scipys_and_corrected_by_hand():
    figures = three()
    # Two seeds that lie evenly around the figures: averaged over seeds, they are the figures.
    records = [run(n, seed, v + shift) for n, v in figures.items() for seed, shift in ((0, 0.01), (1, -0.01))]
    found = compare_pairs(records, entries=NAMES)
    assert [(pair["a"], pair["b"]) for pair in found] == list(combinations(NAMES, 2))
    expected = [stats.wilcoxon(figures[a], figures[b]).pvalue for a, b in combinations(NAMES, 2)]
    assert [pair["p"] for pair in found] == pytest.approx(expected)
    order = np.argsort(expected)
    holm = np.maximum.accumulate([expected[place] * (3 - rank) for rank, place in enumerate(order)]).clip(max=1)
    assert [found[place]["p_holm"] for place in order] == pytest.approx(list(holm))
    for pair in found:
        assert pair["difference"]["mean"] == pytest.approx(np.mean(figures[pair["a"]] - figures[pair["b"]]))


def test_verdicts():
    found = {(p["a"], p["b"]): p for p in compare_pairs([run(n, 0, v) for n, v in three().items()], entries=NAMES)}
    assert found["a", "b"]["verdict"] == "better"
    assert found["b", "c"]["verdict"] == "worse"
    assert found["a", "c"]["verdict"] == "not told apart"


def test_patients_count_once_and_few_cannot_be_told_apart():
    records = [run(n, 0, v, group_by=r"^p\d+") for n, v in three(8).items()]
    (first, *_) = compare_pairs(records, entries=NAMES)
    assert (first["difference"]["cases"], first["least_p"]) == (4, pytest.approx(stats.wilcoxon([1, 2, 3, 4]).pvalue))
    assert first["verdict"] == "not told apart"


def test_a_case_that_fails_alone_gives_no_verdict():
    a = np.linspace(0.6, 0.8, 12)
    b = a + 0.01 * np.arange(1, 13) / 12
    b[0] -= 0.9  # better on eleven cases, worse by far on one: the mean says the opposite of the ranks
    (pair,) = compare_pairs([run("a", 0, a), run("b", 0, b)], entries=["a", "b"])
    assert pair["p"] < 0.05
    assert pair["difference"]["mean"] > 0
    assert pair["verdict"] == "not told apart"


def test_given_predictions_meet_both_checkpoints():
    figures = three()
    records = [run("a", 0, figures["a"], best=figures["c"]), run("b", 0, figures["b"], given=True)]
    found = {pair["checkpoint"]: pair["p"] for pair in compare_pairs(records, entries=["a", "b"])}
    assert found["last"] == pytest.approx(stats.wilcoxon(figures["a"], figures["b"]).pvalue)
    assert found["best"] == pytest.approx(stats.wilcoxon(figures["c"], figures["b"]).pvalue)
    alone = compare_pairs([run(n, 0, figures[n], given=True) for n in NAMES], entries=NAMES)
    assert {pair["checkpoint"] for pair in alone} == {"last"}


def test_only_finished_runs_on_the_same_cases_compare():
    figures = three()
    failed = {"state": "failed", "checkpoints": {}}
    assert compare_pairs([run("a", 0, figures["a"]), run("b", 0, [], **failed)], entries=NAMES) == []
    with pytest.raises(UserError, match="only one evaluation holds"):
        compare_pairs([run("a", 0, figures["a"]), run("b", 0, figures["b"][:5])], entries=NAMES)


def test_matrix_shows_both_directions():
    pairs = compare_pairs([run(n, 0, v) for n, v in three().items()], entries=NAMES)
    (table,) = pair_tables({"pairs": pairs, "entries": ["a", "b", "lacking", "c"]}, "heart")
    assert table.columns == ("entry", "against a", "against b", "against c")
    rows = {row[0]: row[1:] for row in table.rows}
    assert [rows[name][place] for place, name in enumerate(NAMES)] == ["-"] * 3
    assert rows["a"][1].startswith("better (+0.0")
    assert rows["b"][0] == rows["a"][1].replace("better (+", "worse (-")
    assert pair_tables({"pairs": pairs, "entries": NAMES}, "liver") == []


def test_cases_that_are_alike_lend_no_weight():
    """Nine of 14 cases are rightly empty under both entries: the five others cannot tell them apart."""
    b = np.full(14, 0.5)
    a = b + np.array([0.01, 0.02, 0.03, 0.04, 0.05] + [0.0] * 9)
    records = [run("a", seed, a + shift) for seed, shift in enumerate((0.1, -0.1, 0.0))]
    records += [run("b", seed, b + shift) for seed, shift in enumerate((0.1, 0.0, -0.1))]
    (pair,) = compare_pairs(records, entries=["a", "b"])
    assert pair["p"] == pytest.approx(stats.wilcoxon([1, 2, 3, 4, 5]).pvalue) == pytest.approx(0.0625)
    assert (pair["differing"], pair["least_p"], pair["verdict"]) == (5, 0.0625, "not told apart")
