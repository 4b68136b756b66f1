"""Intervals, p-values and spreads against scipy, exact enumeration and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from semialign.common.errors import UserError
from semialign.evaluation.statistics import (
    Spread,
    gap_closed,
    holm,
    mean_over_seeds,
    paired_bootstrap,
    spread,
    standard_error,
    wilcoxon_p_value,
)


def noisy(size: int, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of per-case figures that vary together from case to case."""
    rng = np.random.default_rng(seed)
    cases = rng.normal(0.8, 0.1, size)
    return cases + shift + rng.normal(0, 0.02, size), cases


def test_interval_agrees_with_scipys_bootstrap():
    a, b = noisy(30, 0.01)
    found = paired_bootstrap(a, b)
    theirs = stats.bootstrap((a - b,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)
    assert found.mean == pytest.approx((a - b).mean())
    assert (found.cases, found.confidence) == (30, 0.95)


def test_interval_and_p_value_agree_with_all_resamples_of_four_cases():
    difference = np.array([0.1, -0.05, 0.3, 0.02])
    means = np.array([np.mean(drawn) for drawn in itertools.product(difference, repeat=4)])
    found = paired_bootstrap(difference, np.zeros(4), resamples=40_000, confidence=0.8)
    assert found.low == pytest.approx(np.quantile(means, 0.1), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.9), abs=0.01)
    exact = 2 * min((means <= 0).mean(), (means >= 0).mean())
    assert found.p_value == pytest.approx(exact, rel=0.1)


def test_pairing_finds_a_small_difference_that_unpaired_spread_would_hide():
    a, b = noisy(40, 0.02)
    found = paired_bootstrap(a, b)
    assert 0 < found.low < 0.02 < found.high
    assert found.p_value < 0.01
    assert stats.ttest_ind(a, b).pvalue > 0.05


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        a, b = noisy(40, 0.02, seed)
        found = paired_bootstrap(a, b, resamples=500, confidence=0.9, seed=seed)
        covered += found.low <= 0.02 <= found.high
    assert 0.82 < covered / 200 < 0.96


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    a, b = noisy(12)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)


def test_cases_pair_by_id_whatever_their_order():
    a, b = noisy(9)
    first = {f"case{i}": float(v) for i, v in enumerate(a)}
    second = {f"case{i}": float(v) for i, v in enumerate(b)}
    turned = dict(reversed(second.items()))
    assert paired_bootstrap(first, turned) == paired_bootstrap(list(a), list(b))


def test_blocks_of_draws_change_nothing_but_memory(monkeypatch):
    a, b = noisy(10)
    whole = paired_bootstrap(a, b, resamples=1000)
    monkeypatch.setattr("semialign.evaluation.statistics._BLOCK", 70)
    assert paired_bootstrap(a, b, resamples=1000) == whole


def test_equal_figures_differ_by_nothing():
    a, _ = noisy(8)
    found = paired_bootstrap(a, a)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert wilcoxon_p_value(a, a) == 1


def test_wilcoxon_by_hand():
    # Six differences of one sign: of 2 ** 6 signings one is as extreme on either side.
    a = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    b = a - [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert wilcoxon_p_value(a, b) == pytest.approx(2 / 64)
    assert wilcoxon_p_value(a[:5], b[:5]) == pytest.approx(2 / 32)


def test_holm_by_hand_keeps_order_and_never_falls():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"d": 4 * 0.005, "a": 3 * 0.01, "c": 2 * 0.03, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"only": 0.03}) == {"only": 0.03}
    assert holm({}) == {}


def test_standard_error_by_hand():
    assert standard_error([0.7, 0.9]) == pytest.approx(0.1)
    values = np.random.default_rng(0).random(20)
    assert standard_error(list(values)) == pytest.approx(stats.sem(values))
    assert standard_error([0.5]) is None
    assert standard_error([]) is None


def test_spread_over_seeds():
    assert spread([0.81, 0.7, 0.79]) == Spread(0.79, 0.7, 0.81, 3)
    assert spread([0.5]) == Spread(0.5, 0.5, 0.5, 1)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_gap_closed_by_hand():
    assert gap_closed(0.85, floor=0.8, ceiling=0.9) == pytest.approx(0.5)
    assert gap_closed(0.78, 0.8, 0.9) == pytest.approx(-0.2)
    assert gap_closed(0.91, 0.8, 0.9) == pytest.approx(1.1)
    assert gap_closed(0.8, 0.8, 0.8) is None
    assert gap_closed(0.8, 0.9, 0.8) is None


def test_mean_over_seeds_by_hand():
    assert mean_over_seeds([{"a": 0.5, "b": 0.9}, {"b": 0.7, "a": 0.7}]) == pytest.approx({"a": 0.6, "b": 0.8})
    assert mean_over_seeds([]) == {}
    with pytest.raises(UserError, match="only one evaluation holds b; evaluate"):
        mean_over_seeds([{"a": 0.5}, {"a": 0.5, "b": 0.1}])


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(UserError, match="only one evaluation holds a, c; evaluate"):
        paired_bootstrap({"a": 1.0, "b": 0.5}, {"b": 1.0, "c": 0.5})
    with pytest.raises(UserError, match="cannot compare 2 with 1 cases"):
        paired_bootstrap([1.0, 0.5], [1.0])
    with pytest.raises(UserError, match="cannot compare 0"):
        paired_bootstrap({}, {})
    with pytest.raises(TypeError):
        paired_bootstrap({"a": 1.0}, [1.0])
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([math.inf], [1.0])
