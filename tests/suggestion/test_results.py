"""What is said of a choice, and the map that is drawn of it."""

from pathlib import Path

import numpy as np
import pytest

from semialign.suggestion.case_map import map_of_cases, plane
from semialign.suggestion.choosing import Choice
from semialign.suggestion.measuring import Measured
from semialign.suggestion.results import Suggestion, described

MEASURED = {name: Measured(0.5, 0.01, found, ()) for name, found in (("x", 7), ("y", 0), ("z", 9))}
UNSURE = {"x": 1.0, "y": 2 / 3, "z": 1 / 3}


def suggestion(folder: Path) -> Suggestion:
    choices = [
        Choice("x", 1.5, 1.5, "labelled/a", ("x", "y", "z")),
        Choice("y", 0.4, 0.6, "x", ("y",)),
    ]
    return Suggestion(folder, *described(choices, MEASURED, UNSURE, {"labelled/a": "a"}), ["a"])


def test_the_reason_names_rank_and_the_most_alike_case(tmp_path: Path) -> None:
    found = suggestion(tmp_path)
    first, second = found.chosen
    assert (first.order, first.nearest, first.nearest_is) == (1, "a", "labelled")
    assert "than of 2 of the 2 other" in first.why
    assert "most alike labelled case is a, at 1.50" in first.why
    assert "stands for itself and 2 more" in first.why
    assert "no structure" not in first.why
    assert (second.order, second.nearest, second.nearest_is) == (2, "x", "chosen")
    assert "than of 1 of the 2 other" in second.why
    assert "finds no structure at all. The case stands for itself alone;" in second.why
    assert [one.case for one in found.others] == ["z"]


def test_a_first_choice_has_nothing_to_be_compared_to() -> None:
    chosen, _ = described([Choice("x", 1.0, None, None, ("x",))], MEASURED, UNSURE, {})
    assert "nothing labelled to compare it to" in chosen[0].why
    only, _ = described([Choice("x", 0.0, None, None, ("x",))], MEASURED, {"x": 1.0}, {})
    assert only[0].why.startswith("It is the only unlabelled case")


def test_the_map_keeps_distances_where_a_plane_holds_them() -> None:
    rng = np.random.default_rng(0)
    flat, turn = rng.normal(size=(6, 2)), np.linalg.qr(rng.normal(size=(5, 5)))[0]
    at, share = plane(np.pad(flat, ((0, 0), (0, 3))) @ turn + 3)
    assert share == pytest.approx(1)
    apart = [np.linalg.norm(points[:, None] - points[None], axis=2) for points in (flat, at)]
    np.testing.assert_allclose(*apart, atol=1e-9)
    assert plane(np.ones((3, 4)))[1] == 1.0


def test_the_map_marks_what_is_labelled_and_chosen(tmp_path: Path) -> None:
    places = {"labelled/a": np.zeros(3), "x": np.ones(3), "y": np.array([0, 2, 1.0]), "z": np.array([2, 0, 0.5])}
    drawn = map_of_cases(suggestion(tmp_path), places)
    assert "Map of cases: 1 unlabelled, 1 labelled, 2 chosen" in drawn
    assert [name in drawn for name in ("a, labelled", "x, chosen", "y, chosen", "z, unlabelled")] == [True] * 4
    assert drawn.count("<line") == 1, "z to x; y stands for itself since it was chosen"
    assert map_of_cases(suggestion(tmp_path), {"x": np.zeros(2), "y": np.ones(2)}) == ""
