"""Box plots against figures worked out by hand."""

import math
import re

import pytest

from semialign.evaluation.report_boxes import box_plot, quartiles


def test_quartiles_and_whiskers_by_hand() -> None:
    # Quartiles 2, 3 and 4; whiskers reach values within 3 of the box: 10 lies outside.
    assert quartiles([1, 2, 3, 4, 10]) == (1, 2, 3, 4, 4)
    assert quartiles([5.0]) == (5, 5, 5, 5, 5)
    least, lower, middle, upper, most = quartiles([0, 0, 0, 0, 9])
    assert (least, lower, middle, upper, most) == (0, 0, 0, 0, 0)


def test_boxes_and_dots_lie_at_their_values() -> None:
    cases = [(f"c{i}", value) for i, value in enumerate((0.5, 0.6, 0.7, 0.8, 1.0))]
    chart = box_plot({"liver": cases}, title="Dice", slots={"liver": 2}, limits=(0.0, 1.0))
    at = {told: float(x) for x, told in re.findall(r'cx="([\d.]+)"[^>]*><title>(c\d)', chart)}
    assert len(at) == 5
    ((x, width),) = [
        (float(a), float(b)) for a, b in re.findall(r'class="box" x="([\d.]+)"[^>]*width="([\d.]+)"', chart)
    ]
    assert x == pytest.approx(at["c1"], abs=0.11)
    assert x + width == pytest.approx(at["c3"], abs=0.21)
    (median,) = re.findall(r'class="median" x1="([\d.]+)"', chart)
    assert float(median) == pytest.approx(at["c2"], abs=0.11)
    assert at["c2"] - at["c1"] == pytest.approx((at["c4"] - at["c3"]) / 2, abs=0.2)
    assert "var(--c2)" in chart


def test_infinite_values_are_counted_not_drawn() -> None:
    groups = {"a": [("x", 3.0), ("y", math.inf), ("z", math.inf)], "b": [("x", math.inf)]}
    chart = box_plot(groups, title="HD95", slots={})
    assert "+2 × ∞" in chart
    assert "b: no value, 1 infinite" in chart
    assert chart.count("<circle") == 1
    assert "nan" not in chart
    assert box_plot({"b": groups["b"]}, title="HD95", slots={}) == ""
    assert box_plot({}, title="HD95", slots={}) == ""


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0, 0.0), (1.0, 1.0), (0.3,) * 200])
def test_values_without_spread_do_no_harm(values: tuple[float, ...]) -> None:
    cases = [(str(i), value) for i, value in enumerate(values)]
    for limits in ((0.0, 1.0), None):
        chart = box_plot({"a": cases}, title="t", slots={"a": 1}, limits=limits)
        xs = [float(x) for x in re.findall(r' (?:x|x1|x2|cx)="([-\d.]+)"', chart)]
        assert all(0 <= x <= 480 for x in xs)
