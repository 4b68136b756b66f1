"""Head, middle and tail: cuts by hand, ties, classes that no labelled case holds, and the figures of a group."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semialign.common.errors import UserError
from semialign.evaluation.groups import class_groups, group_figures, members_text, read_frequencies


def test_three_groups_are_cut_at_the_two_widest_gaps_of_the_logarithm():
    # Logs to base 10: -1.5, -1.7, -3, -3.2, -3.3, -5. The gaps 1.3 and 1.7 are the widest. The widest gap of the
    # frequencies themselves lies elsewhere: between liver and spleen.
    found = class_groups(
        {
            "adrenal": 10**-5,
            "liver": 10**-1.5,
            "kidney": 10**-3,
            "aorta": 10**-3.3,
            "spleen": 10**-1.7,
            "cava": 10**-3.2,
        }
    )
    assert found == {"head": ("liver", "spleen"), "middle": ("kidney", "cava", "aorta"), "tail": ("adrenal",)}
    assert list(found) == ["head", "middle", "tail"]


def test_few_classes():
    assert class_groups({}) == {}
    assert class_groups({"a": 0.2}) == {}
    assert class_groups({"a": 0.01, "b": 0.2}) == {"head": ("b",), "tail": ("a",)}
    assert class_groups({"a": 0.01, "b": 0.2, "c": 0.1}) == {"head": ("b",), "middle": ("c",), "tail": ("a",)}


def test_classes_in_no_labelled_case_belong_to_the_tail():
    two = {"a": 0.1, "b": 0.01, "never": 0.0, "nor": 0.0}
    assert class_groups(two) == {"head": ("a",), "tail": ("b", "never", "nor")}
    assert class_groups(two | {"c": 0.02})["tail"] == ("b", "never", "nor")
    assert class_groups({"a": 0.1, "never": 0.0}) == {"head": ("a",), "tail": ("never",)}
    assert class_groups({"never": 0.0, "nor": 0.0}) == {}


def test_equally_frequent_classes_are_never_parted():
    assert class_groups({"a": 0.1, "b": 0.1, "c": 0.1}) == {}
    assert class_groups({"a": 0.1, "b": 0.01, "c": 0.1}) == {"head": ("a", "c"), "tail": ("b",)}
    # Equal but for rounding.
    assert class_groups({"a": 0.3, "b": 0.1 + 0.2}) == {}


def test_of_equal_gaps_the_one_between_rarer_classes_cuts():
    # Steps of ten, whose logarithms are not equally far apart in floating point.
    assert class_groups({"a": 0.1, "b": 0.01, "c": 0.001, "d": 0.0001}) == {
        "head": ("a", "b"),
        "middle": ("c",),
        "tail": ("d",),
    }


def test_the_order_of_the_classes_decides_nothing():
    frequencies = {"a": 0.1, "b": 0.03, "c": 0.009, "d": 0.0003, "e": 0.0}
    expected = class_groups(frequencies)
    for names in itertools.permutations(frequencies):
        assert class_groups({name: frequencies[name] for name in names}) == expected


@given(st.lists(st.floats(0, 1), max_size=20))
def test_groups_part_all_classes_by_frequency(shares):
    frequencies = {f"class {i}": share for i, share in enumerate(shares)}
    groups = class_groups(frequencies)
    assert len(groups) in (0, 2, 3)
    if groups:
        assert sorted(itertools.chain(*groups.values())) == sorted(frequencies)
    for higher, lower in itertools.pairwise(groups.values()):
        assert min(frequencies[n] for n in higher) > max(frequencies[n] for n in lower)


@pytest.mark.parametrize("share", [-0.1, math.nan, math.inf])
def test_what_is_no_frequency_is_refused(share):
    with pytest.raises(ValueError, match="frequency of b"):
        class_groups({"a": 0.1, "b": share})


def entry(dice: float | None, asd: float | None, missed: int = 0, spurious: int = 0) -> dict[str, Any]:
    counts = {"scored": 3, "absent": 1, "missed": missed, "spurious": spurious}
    return {"dice": {"mean": dice}, "asd": {"mean": asd}, **counts}


def test_a_group_is_the_mean_of_its_classes_and_counts_what_is_infinite():
    classes = {
        "liver": entry(0.9, 2.0),
        "cava": entry(0.7, None, missed=4),
        "aorta": entry(0.2, 5.0, 1, 2),
        "cyst": entry(None, None),
    }
    groups = {"head": ("liver",), "tail": ("aorta", "cava", "cyst", "elsewhere"), "other": ("elsewhere",)}
    found = group_figures(classes, groups, metrics=("dice", "asd"))
    assert list(found) == ["head", "tail"]
    tail = found["tail"]
    assert tail["classes"] == ["aorta", "cava", "cyst"]
    assert tail["dice"] == pytest.approx((0.2 + 0.7) / 2)  # the cyst is in no case
    assert tail["asd"] == 5.0
    assert tail["averaged"] == {"dice": 2, "asd": 1}
    assert (tail["missed"], tail["spurious"], tail["infinite"]) == (5, 2, 7)
    assert (tail["scored"], tail["absent"]) == (9, 3)
    assert group_figures({"cyst": entry(None, None)}, {"tail": ["cyst"]}, metrics=("dice",))["tail"]["dice"] is None


def test_frequencies_come_from_a_fingerprint_or_its_folder(tmp_path: Path):
    path = tmp_path / "fingerprint.json"
    path.write_text(json.dumps({"class_frequencies": {"air": 0.9, "liver": 0.1, "cyst": 0}}))
    assert read_frequencies(path) == read_frequencies(tmp_path) == {"liver": 0.1, "cyst": 0}


@pytest.mark.parametrize("text", ["[]", "{}", '{"class_frequencies": {}}', '{"class_frequencies": {"a": "much"}}', "{"])
def test_what_is_no_fingerprint_is_refused(tmp_path: Path, text: str):
    with pytest.raises(UserError, match=r"fingerprint\.json: no such file"):
        read_frequencies(tmp_path)
    (tmp_path / "fingerprint.json").write_text(text)
    with pytest.raises(UserError, match=r"fingerprint\.json: (holds no class frequencies; name|not valid JSON)"):
        read_frequencies(tmp_path)


def test_groups_in_words():
    assert members_text({"head": ("liver", "spleen"), "tail": ("cyst",)}) == "head: liver, spleen; tail: cyst"
