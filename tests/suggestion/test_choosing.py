"""Known answers of the choice: on points in the plane, on ranks, on blocks of features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semialign.suggestion.choosing import ALIKE, choose, places, unsureness


def at(**points: tuple[float, float]) -> dict[str, np.ndarray]:
    return {name: np.array(point, float) for name, point in points.items()}


def test_the_farther_of_two_equally_unsure_is_taken() -> None:
    place = at(known=(0, 0), near=(1, 0), far=(0, 2))
    (first,) = choose({"near": 0.5, "far": 0.5}, place, labelled=["known"], count=1)
    assert (first.case, first.nearest, first.distance, first.score) == ("far", "known", 2.0, 1.0)


def test_the_more_unsure_of_two_equally_far_is_taken() -> None:
    place = at(known=(0, 0), calm=(1, 0), unsure=(0, 1))
    assert choose({"calm": 0.4, "unsure": 0.6}, place, labelled=["known"], count=1)[0].case == "unsure"


def test_duplicates_are_never_both_chosen() -> None:
    place = at(known=(0, 0), one=(3, 0), two=(3, 0), third=(0, 1))
    chosen = choose({"one": 1.0, "two": 0.99, "third": 0.1}, place, labelled=["known"], count=3)
    assert [choice.case for choice in chosen] == ["one", "third"]


def test_a_copy_of_a_labelled_case_is_never_chosen() -> None:
    place = at(known=(0, 0), copy=(0.5 * ALIKE, 0), other=(1, 0))
    chosen = choose({"copy": 1.0, "other": 0.1}, place, labelled=["known"], count=2)
    assert [choice.case for choice in chosen] == ["other"]


def test_what_was_chosen_counts_like_what_is_labelled() -> None:
    # After "right", its neighbour lies nearer to it than "left" lies to the labelled case.
    place = at(known=(0, 0), right=(3, 0), beside=(2.5, 0), left=(-1, 0))
    chosen = choose({"right": 1.0, "beside": 0.9, "left": 0.9}, place, labelled=["known"], count=2)
    assert [(c.case, c.nearest, c.distance) for c in chosen] == [("right", "known", 3.0), ("left", "known", 1.0)]
    last = choose({"right": 1.0, "beside": 0.9, "left": 0.9}, place, labelled=["known"], count=3)[2]
    assert (last.case, last.nearest, last.distance) == ("beside", "right", 0.5)


def test_with_nothing_labelled_the_most_unsure_comes_first() -> None:
    place = at(a=(0, 0), b=(5, 0), c=(9, 9))
    first, second = choose({"a": 0.3, "b": 1.0, "c": 0.6}, place, labelled=[], count=2)
    assert (first.case, first.distance, first.nearest) == ("b", None, None)
    assert (second.case, second.nearest) == ("c", "b")
    assert choose({}, {}, labelled=[], count=3) == []


@given(st.integers(1, 12), st.integers(0, 3), st.integers(1, 12), st.integers(0, 10_000))
def test_no_two_are_alike_and_each_is_the_best_of_its_turn(cases: int, labelled: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # A coarse grid, so that many cases are copies of others.
    place = {f"c{i}": rng.integers(0, 3, 2).astype(float) for i in range(cases)}
    known = {f"k{i}": rng.integers(0, 3, 2).astype(float) for i in range(labelled)}
    unsure = {name: float(rng.uniform(0.05, 1)) for name in place}
    chosen = choose(unsure, place | known, labelled=list(known), count=count)
    taken = list(known)
    for choice in chosen:

        def score(name: str, before: tuple[str, ...] = tuple(taken)) -> float:
            apart = [float(np.hypot(*(place[name] - (place | known)[other]))) for other in before]
            return -1.0 if min(apart, default=1.0) <= ALIKE else unsure[name] * min(apart, default=1.0)

        assert choice.score == pytest.approx(max(score(name) for name in place if name not in taken))
        assert choice.score == pytest.approx(score(choice.case))
        taken.append(choice.case)
    assert len(chosen) <= count
    if len(chosen) < count:  # all that is left is a copy
        left = [name for name in place if name not in taken]
        assert all(any(np.array_equal(place[n], (place | known)[t]) for t in taken) for n in left)


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
