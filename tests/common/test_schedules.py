"""Ramp-up and learning rate against figures worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semialign.common.schedules import poly, sigmoid_rampup


@pytest.mark.parametrize(
    ("step", "of", "expected"),
    [
        (0, 100, 0.006737946999085467),  # e^-5
        (50, 100, 0.2865047968601901),  # e^-1.25
        (90, 100, 0.951229424500714),  # e^-0.05
        (100, 100, 1.0),
        (150, 100, 1.0),
        (-3, 100, 0.006737946999085467),
        (0, 0, 1.0),
        (7, 0, 1.0),
    ],
)
def test_rampup(step: float, of: float, expected: float) -> None:
    assert sigmoid_rampup(step, of) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("step", "of", "expected"),
    [
        (0, 100, 1.0),
        (50, 100, 0.5358867312681466),  # 0.5^0.9 = e^(-0.9 ln 2)
        (99, 100, 0.015848931924611134),  # 0.01^0.9 = 10^-1.8
        (100, 100, 0.0),
        (250, 100, 0.0),
    ],
)
def test_poly(step: float, of: float, expected: float) -> None:
    assert poly(step, of) == pytest.approx(expected, rel=1e-12, abs=0)


def test_poly_of_another_power() -> None:
    assert poly(3, 4, 2.0) == 0.0625


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_both_stay_in_the_unit_interval_and_are_monotonic(step: int, of: int) -> None:
    assert math.exp(-5) <= sigmoid_rampup(step, of) <= sigmoid_rampup(step + 1, of) <= 1
    assert 0 <= poly(step + 1, of) <= poly(step, of) <= 1
