"""Charts and the reading of logs: points where they belong, gaps where values lack, resumed runs without doubles."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from semialign.evaluation.report_bars import bar_chart, percent, strip_chart
from semialign.evaluation.report_charts import POINTS, Series, downsampled, line_chart, ticks
from semialign.evaluation.report_curves import loss_terms, read_columns, training_curves, validation_curves
from semialign.evaluation.report_tables import distance, human, nested, number


def line(*values: float, name: str = "a", slot: int = 1) -> Series:
    return Series(name, np.arange(len(values), dtype=float), np.array(values, float), slot)


def points(chart: str) -> list[tuple[str, float, float]]:
    path = re.search(r'<path class="line[^>]* d="([^"]*)"', chart)
    assert path is not None
    return [(c, float(x), float(y)) for c, x, y in re.findall(r"([ML])(-?[\d.]+) (-?[\d.]+)", path[1])]


@pytest.mark.parametrize(
    "values",
    [
        (3.0,),
        (0.0,),
        (2.0, 2.0, 2.0),
        (1e-8, 2e-8),
        (1e38, 1.0),
        (-5.0, 5.0),
        (1.0, 1.0 + 1e-15),
        (math.nan, 1.0, math.nan, 2.0),
        (math.inf, 1.0, -math.inf),
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_any_values_stay_within_the_frame(values: tuple[float, ...], log: bool) -> None:
    chart = line_chart([line(*values)], title="t", log=log)
    drawable = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not drawable:
        assert chart == ""
        return
    assert len(points(chart)) == len(drawable)
    assert all(46 <= x <= 406.1 and 11.9 <= y <= 212.1 for _, x, y in points(chart))
    assert "nan" not in chart
    assert "inf" not in chart.replace("infinite", "")


def test_parts_of_a_minute_are_told_parts_of_a_step_are_not() -> None:
    half = Series("a", np.array([0.05, 0.5]), np.array([0.1, 0.2]), 1)
    assert ">0.3<" in line_chart([half], title="t", across="minute")
    assert ">0.3<" not in line_chart([half], title="t", across="step")


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    for log in (False, True):
        drawn = points(line_chart([line(1.0, 4.0, 2.0)], title="t", log=log))
        assert drawn[0][1] < drawn[1][1] < drawn[2][1]
        assert drawn[1][2] < drawn[2][2] < drawn[0][2]
    # Log: 1 to 10 is as far as 10 to 100.
    y = [p[2] for p in points(line_chart([line(1.0, 10.0, 100.0)], title="t", log=True))]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)


def test_missing_values_leave_a_gap() -> None:
    drawn = points(line_chart([line(1.0, 2.0, math.nan, 3.0, 4.0)], title="t"))
    assert [command for command, _, _ in drawn] == ["M", "L", "M", "L"]


def test_downsampling_averages_and_keeps_the_sum() -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=POINTS * 5)
    y[:5], y[7] = np.nan, np.nan
    small = downsampled(Series("a", np.arange(y.size, dtype=float), y, 1))
    assert len(small.x) == len(small.y) == POINTS
    expected = [
        np.mean(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan for part in y.reshape(POINTS, 5)
    ]
    np.testing.assert_allclose(small.y, expected)
    np.testing.assert_allclose(small.x, np.arange(y.size).reshape(POINTS, 5).mean(1))
    assert downsampled(line(1.0, 2.0)).y.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2000), (-3, 7), (0.81, 0.83), (1e-9, 3e-9), (0, 123456)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high, 6)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-12 <= t <= high + 1e-9 * high for t in found)
    step = found[1] - found[0]
    assert f"{step:.0e}"[0] in "125"


def test_bars_grow_with_the_logarithm() -> None:
    chart = bar_chart({"a": 0.1, "b": 0.01, "c": 0.0, "d": math.nan}, title="t", slots={"a": 1})
    wide = [float(w) for w in re.findall(r'<rect x="\d+" y="\d+" width="([\d.]+)"', chart)]
    assert len(wide) == 2
    full = 206.0
    low = 1 - wide[0] / full  # decades from 0.1 to 1, as a share of the axis
    assert 1 - wide[1] / full == pytest.approx(2 * low, abs=0.01)
    assert "b 1 %" in chart
    assert "d –" in chart


def test_dots_lie_at_their_dice() -> None:
    cases = [("x", 0.5), ("y", 1.0), ("z", 0.75)]
    at = {
        n: float(x) for x, n in re.findall(r'cx="([\d.]+)"[^>]*><title>(\w)', strip_chart({"test": cases}, title="t"))
    }
    assert at["z"] - at["x"] == pytest.approx(at["y"] - at["z"], abs=0.11)
    assert "3 cases, median 0.750" in strip_chart({"test": cases}, title="t")


def test_terms_are_the_columns_that_sum_up_to_the_loss() -> None:
    random = np.random.default_rng(0)
    a, b, other = random.random((3, 50))
    a[3] = b[3] = np.nan
    columns = {
        "step": np.arange(50.0),
        "seconds": other,
        "lr": other,
        "loss": a + b,
        "dice": a,
        "ce": b,
        "weight": other,
    }
    assert loss_terms(columns) == ["dice", "ce"]
    columns["loss"] = 3 * other
    assert loss_terms(columns) == []
    assert loss_terms({**columns, "loss_x": a}) == ["loss_x"]


def test_a_resumed_log_has_no_doubles(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n0,9\n10,8\n20,7\n30,6\n20,5\n30,4\n40,3\n")
    columns = read_columns(log)
    assert columns["step"].tolist() == [0, 10, 20, 30, 40]
    assert columns["loss"].tolist() == [9, 8, 5, 4, 3]


def test_stages_follow_one_another(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,stage,loss,extra\n0,pretrain,9,\n10,pretrain,8,\n0,train,7,1\n10,train,6,\n5,train,1,2\n")
    columns = read_columns(log)
    assert columns["step"].tolist() == [0, 10, 11, 16]
    assert columns["loss"].tolist() == [9, 8, 7, 1]
    assert np.isnan(columns["extra"][:2]).all()
    assert columns["extra"][2:].tolist() == [1, 2]


def test_the_loss_turns_logarithmic_where_a_term_would_lie_flat(tmp_path: Path) -> None:
    for second, expected in ((0.001, True), (0.4, False)):
        log = tmp_path / "log.csv"
        rows = "".join(f"{i},0.01,{1 + second},1,{second}\n" for i in range(30))
        log.write_text("step,lr,loss,supervised,consistency\n" + rows)
        large, small = training_curves(log)
        assert ("(log scale)" in large) == expected
        assert "consistency" in large
        assert "Learning rate" in small


def test_losses_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n0,1\n1,nan\n2,inf\n3,1\n")
    assert "2 logged losses are not finite" in training_curves(log)[0]


def test_validation_marks_the_best_step(tmp_path: Path) -> None:
    path = tmp_path / "validation.csv"
    path.write_text("step,mean_dice,dice a,dice b\n10,nan,nan,nan\n20,0.6,0.7,0.5\n30,0.9,0.8,\n40,0.7,0.7,0.7\n")
    chart = validation_curves(path, ["a", "b"])
    assert "best 0.900, step 30" in chart
    assert chart.count("<path class=") == 2 * 3  # mean and two classes, and their legend
    path.write_text("step,mean_dice,dice a\n10,nan,nan\n")
    assert validation_curves(path, ["a"]) == ""


def test_numbers() -> None:
    assert [number(v) for v in (0.81249, None, math.nan, math.inf, -math.inf, np.float32(0.5))] == [
        "0.812", "–", "–", "∞", "−∞", "0.500",
    ]  # fmt: skip
    assert [distance(v) for v in (1.234, 12.34, math.inf, None, 9.999)] == ["1.23", "12.3", "∞", "–", "10.0"]
    assert [human(v) for v in (3, 12345, 0.123456, True, None, 1e6, "x")] == [
        "3", "12\u202f345", "0.1235", "yes", "–", "1\u202f000\u202f000", "x",
    ]  # fmt: skip
    assert [percent(v) for v in (0.5, 0.01234, 0.000012345)] == ["50 %", "1.23 %", "0.0012 %"]


def test_nested_values_become_small_tables() -> None:
    spacing = nested("spacing", [[1.0, 1.0, 2.0], [1.0, 1.0, 4.0], [1.0, 1.0, 3.0]])
    assert [re.findall(r"<td>([^<]*)</td>", row) for row in spacing.split("<tr>")[2:]] == [
        ["1", "1", "2"], ["1", "1", "3"], ["1", "1", "4"],
    ]  # fmt: skip
    assert "1 × 1 × 2" in nested("size", [[1, 1, 2]] * 9)
    assert "and 88 more" in nested("cases", [f"case {i}" for i in range(100)])
    for value in (
        {},
        [],
        None,
        [[]],
        {"a": {}},
        {"a": [{"b": 1}]},
        [None],
        "x",
        math.nan,
        {"a": {"b": {"c": [1, "d"]}}},
    ):
        assert isinstance(nested("key", value), str)
