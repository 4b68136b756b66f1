"""Known answers of the choice: on points in the plane, on ranks, on blocks of features."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semialign.suggestion.choosing import ALIKE, Choice, choose, places, unsureness


def at(**points: tuple[float, float]) -> dict[str, np.ndarray]:
    return {name: np.array(point, float) for name, point in points.items()}


def brute(
    unsure: dict[str, float], place: dict[str, np.ndarray], labelled: list[str], count: int
) -> list[tuple[str, float, float | None, set[str]]]:
    """Return case, gain, distance and whom it stands for of every turn, by loops over pairs."""

    def apart(a: str, b: str) -> float:
        return math.dist(place[a], place[b])

    start = max(apart(a, b) for a in unsure for b in unsure)
    known, turns = list(labelled), []
    for _ in range(count):
        best = None
        for case in sorted(unsure, key=lambda name: (-unsure[name], name)):
            if known and min(apart(case, other) for other in known) <= ALIKE:
                continue
            total = 0.0
            for other in unsure:
                now = min([apart(other, k) for k in known], default=start)
                total += unsure[other] * max(0.0, now - apart(other, case))
            gain = total / sum(unsure.values())
            if best is None or gain > best[1] * (1 + 1e-5):
                best = (case, gain)
        if best is None:
            break
        far = min((apart(best[0], other) for other in known), default=None)
        stands = {o for o in unsure if not known or min(apart(o, k) for k in known) > apart(o, best[0])}
        turns.append((*best, far, stands))
        known.append(best[0])
    return turns


def scattered(seed: int, cases: int, labelled: int) -> tuple[dict[str, float], dict[str, np.ndarray], list[str]]:
    rng = np.random.default_rng(seed)
    names, known = [f"c{i}" for i in range(cases)], [f"k{i}" for i in range(labelled)]
    return {n: float(rng.uniform(0.05, 1)) for n in names}, {n: rng.normal(size=3) for n in names + known}, known


def test_the_gain_is_what_the_weighted_mean_distance_falls_by() -> None:
    # Distances to "known": 1, 2, 3 (sum of weights 2). Taking "b" leaves 1, 0, 1; "a" leaves 0, 1, 2; "c" 1, 1, 0.
    place = at(known=(0, 0), a=(1, 0), b=(2, 0), c=(3, 0))
    (first,) = choose({"a": 0.5, "b": 0.5, "c": 1.0}, place, labelled=["known"], count=1)
    assert (first.case, first.nearest, first.distance, first.stands_for) == ("c", "known", 3.0, ("b", "c"))
    assert first.gain == pytest.approx((0.5 * 1 + 1.0 * 3) / 2)
    (first,) = choose({"a": 0.5, "b": 1.0, "c": 0.5}, place, labelled=["known"], count=1)
    assert first.case == "b"
    assert first.gain == pytest.approx((1.0 * 2 + 0.5 * 2) / 2)


def test_an_outlier_is_not_taken_before_a_dense_unsure_cluster() -> None:
    crowd = {f"near{i}": np.array([1 + 0.02 * i, 0.2]) for i in range(8)}
    place = at(known=(0, 0), odd=(0, -5)) | crowd
    unsure = {"odd": 1.0} | dict.fromkeys(crowd, 0.8)
    first, second = choose(unsure, place, labelled=["known"], count=2)
    assert first.case in crowd
    assert set(first.stands_for) == set(crowd)
    assert (second.case, second.stands_for) == ("odd", ("odd",))


def test_an_unsure_group_is_taken_before_a_calm_one_of_the_same_form() -> None:
    place = at(known=(0, 0), calm1=(2, 0), calm2=(2, 0.5), unsure1=(-2, 0), unsure2=(-2, 0.5))
    unsure = {"calm1": 0.3, "calm2": 0.3, "unsure1": 0.6, "unsure2": 0.6}
    assert choose(unsure, place, labelled=["known"], count=1)[0].stands_for == ("unsure1", "unsure2")


def test_duplicates_are_never_both_chosen() -> None:
    place = at(known=(0, 0), one=(3, 0), two=(3, 0), third=(0, 1))
    chosen = choose({"one": 0.99, "two": 1.0, "third": 0.1}, place, labelled=["known"], count=3)
    assert [choice.case for choice in chosen] == ["two", "third"], "the more unsure of the two, and never the other"


def test_a_copy_of_a_labelled_case_is_never_chosen() -> None:
    place = at(known=(0, 0), copy=(0.5 * ALIKE, 0), other=(1, 0))
    chosen = choose({"copy": 1.0, "other": 0.1}, place, labelled=["known"], count=2)
    assert [choice.case for choice in chosen] == ["other"]


def test_with_nothing_labelled_the_middle_of_the_unsure_comes_first() -> None:
    place = at(a=(0, 0), b=(1, 0), c=(2, 0), far=(10, 0))
    first, second = choose(dict.fromkeys(("a", "b", "c", "far"), 0.5), place, labelled=[], count=2)
    # Distances start at 10; b leaves 1, 0, 1 and 9, a mean of 2.75; c leaves 2, 1, 0 and 8, the same: the first name.
    assert (first.case, first.distance, first.nearest) == ("b", None, None)
    assert first.gain == pytest.approx(10 - 11 / 4)
    assert set(first.stands_for) == set(place)
    assert (second.case, second.nearest, second.distance, second.stands_for) == ("far", "b", 9.0, ("far",))
    assert choose({}, {}, labelled=[], count=3) == []


def test_one_case() -> None:
    place = at(only=(1, 1), known=(0, 1))
    (alone,) = choose({"only": 1.0}, place, labelled=[], count=2)
    assert alone == Choice("only", 0.0, None, None, ("only",))
    assert choose({"only": 1.0}, place, labelled=["known"], count=2) == [Choice("only", 1.0, 1.0, "known", ("only",))]


@given(st.integers(1, 12), st.integers(0, 3), st.integers(1, 12), st.integers(0, 10_000))
def test_every_turn_is_that_of_an_exhaustive_search(cases: int, labelled: int, count: int, seed: int) -> None:
    unsure, place, known = scattered(seed, cases, labelled)
    chosen = choose(unsure, place, labelled=known, count=count)
    expected = brute(unsure, place, known, count)
    assert [(c.case, set(c.stands_for)) for c in chosen] == [(case, stands) for case, _, _, stands in expected]
    for choice, (_, gain, far, _) in zip(chosen, expected, strict=True):
        assert choice.gain == pytest.approx(gain, rel=1e-4, abs=1e-6)
        assert choice.distance == (None if far is None else pytest.approx(far, rel=1e-5))


@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 10_000))
def test_all_are_chosen_but_copies(cases: int, labelled: int, seed: int) -> None:
    unsure, place, known = scattered(seed, cases, labelled)
    place = {name: np.rint(point) for name, point in place.items()}  # many lie on one another
    taken = [choice.case for choice in choose(unsure, place, labelled=known, count=cases)]
    spots = [tuple(place[name]) for name in taken]
    old = {tuple(place[name]) for name in known}
    assert len(set(spots)) == len(spots)
    assert set(spots) == {tuple(place[name]) for name in unsure} - old


@given(st.integers(2, 12), st.integers(0, 3), st.integers(0, 10_000))
def test_names_and_order_change_nothing(cases: int, labelled: int, seed: int) -> None:
    unsure, place, known = scattered(seed, cases, labelled)
    names = list(unsure)
    mixed = np.random.default_rng(seed + 1).permutation(cases)
    new = {name: names[i] for name, i in zip(names, mixed, strict=True)} | {name: name for name in known}
    again = choose(
        {new[name]: unsure[name] for name in reversed(names)},
        {new[name]: point for name, point in place.items()},
        labelled=known[::-1],
        count=4,
    )
    first = choose(unsure, place, labelled=known, count=4)
    assert [choice.case for choice in again] == [new[choice.case] for choice in first]
    assert [choice.gain for choice in again] == pytest.approx([choice.gain for choice in first], rel=1e-4, abs=1e-6)


def test_unsureness_goes_by_ranks_of_all_figures() -> None:
    np.testing.assert_allclose(unsureness([0.1, 9000.0, 0.2]), [1 / 3, 1, 2 / 3])
    # Ranks 1 3 2 and 2 3 1: the first and the last are equal.
    np.testing.assert_allclose(unsureness([1, 3, 2], [2, 9, 1]), [0.5, 1, 0.5])
    np.testing.assert_allclose(unsureness([4.0]), [1.0])


def test_blocks_weigh_the_same_whatever_their_scale() -> None:
    # The first block tells a from the others, the second, a thousand times as large, c from the others.
    one = [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]
    two = [[5.0, 5], [5, 5], [1005, 5]]
    where = places([[np.array(a), np.array(b)] for a, b in zip(one, two, strict=True)])
    a, b, c = where
    assert np.linalg.norm(a - b) == pytest.approx(np.linalg.norm(c - b))
    apart = [np.sum((where[i] - where[j]) ** 2) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert np.sqrt(np.mean(apart)) == pytest.approx(1)


def test_rounding_is_no_difference() -> None:
    same = np.array([1.0, 2.0])
    assert not places([[same], [same], [same * (1 + 1e-9)]]).any()
    assert places([[same]]).shape == (1, 1)
    # A block in which nothing differs takes no weight from the one that tells the cases apart.
    alone = places([[np.array([0.0])], [np.array([4.0])]])
    with_other = places([[np.array([0.0]), same], [np.array([4.0]), same]])
    np.testing.assert_allclose(with_other, alone)
