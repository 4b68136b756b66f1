"""Splits: drawn, written, read back, and refused where they do not fit."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_data import write_split as write_file

from semialign.common.errors import UserError
from semialign.data.dataset import Case, Dataset
from semialign.data.splits import (
    PARTS,
    Split,
    check_split,
    default_split,
    load_groups,
    load_split,
    make_split,
    write_split,
)


def dataset(with_label: list[str], without: list[str] = ()) -> Dataset:  # type: ignore[assignment]
    """A data set of names alone."""
    cases = {c: Case(c, (Path(f"{c}_0000.nii.gz"),), Path(f"{c}.nii.gz")) for c in with_label}
    cases |= {c: Case(c, (Path(f"{c}_0000.nii.gz"),), None) for c in without}
    return Dataset(Path("data"), "data", ("CT",), {"background": 0, "a": 1}, None, dict(sorted(cases.items())))


PATIENTS = [f"p{patient:02d}_frame{frame}" for patient in range(20) for frame in (1, 2)]


@given(
    st.integers(1, 12), st.integers(0, 8), st.integers(0, 8), st.integers(0, 5), st.integers(0, 10**9), st.booleans()
)
def test_a_drawn_split_keeps_its_numbers(
    labelled: int, validation: int, test: int, without: int, seed: int, grouped: bool
) -> None:
    # Every fifth patient lacks the label of a frame.
    bare = [c for c in PATIENTS if c.endswith("frame2") and int(c[1:3]) % 5 == 0][:without]
    data = dataset([c for c in PATIENTS if c not in bare], bare)
    # With pairs, one labelled case may find no group small enough.
    asked = {"labelled": labelled + grouped, "validation": 2 * validation, "test": 2 * test}
    if sum(asked.values()) > len(data.with_label) - 4 * grouped:
        return
    split = make_split(data, **asked, seed=seed, group_by=r"^(p\d+)" if grouped else None)
    found = {part: list(getattr(split, part)) for part in PARTS}
    assert sorted(itertools.chain(*found.values())) == PATIENTS
    for part, count in asked.items():
        assert not set(found[part]) & set(bare)
        assert count - grouped <= len(found[part]) <= count
    check_split(split, data, Path("split"))
    if grouped:
        side = {c: "training" if part in ("labelled", "unlabelled") else part for part in PARTS for c in found[part]}
        assert all(side[f"p{i:02d}_frame1"] == side[f"p{i:02d}_frame2"] for i in range(20))


def test_a_split_follows_from_its_seed() -> None:
    data = dataset(PATIENTS)
    draws = [make_split(data, labelled=4, validation=4, test=4, seed=seed) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({d.labelled for d in draws}) == 3
    assert "--seed 2" in draws[3].protocol


def test_more_labelled_cases_keep_the_test_and_validation_cases() -> None:
    few, many = (make_split(dataset(PATIENTS), labelled=n, validation=5, test=9) for n in (2, 8))
    assert (few.test, few.validation) == (many.test, many.validation)
    assert set(few.labelled) < set(many.labelled)


def test_near_copies_stay_on_one_side() -> None:
    together = [["p00_frame1", "p07_frame2", "p13_frame1"], ["p13_frame1", "p02_frame1"], ["gone", "p01_frame1"]]
    for seed in range(20):
        split = make_split(dataset(PATIENTS), labelled=6, validation=10, test=10, seed=seed, together=together)
        sides = [set(split.training), set(split.validation), set(split.test)]
        copies = {"p00_frame1", "p07_frame2", "p13_frame1", "p02_frame1"}
        assert any(copies <= side for side in sides)
        assert len(split.test) > 6


def test_groups_of_another_data_set_are_refused_and_lone_ones_not_counted() -> None:
    with pytest.raises(UserError, match="--group-file: none of its cases"):
        make_split(dataset(PATIENTS), labelled=2, together=[["x", "y"]])
    split = make_split(dataset(PATIENTS), labelled=2, together=[["p00_frame1", "p07_frame2"], ["gone", "p01_frame1"]])
    assert split.protocol.endswith(", 1 groups kept together")


def test_what_else_a_file_of_a_split_tells_is_left_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "s.json", labelled=["p00_frame1"], seeds=[1, 2], sources=["elsewhere"])
    assert load_split(path, dataset(PATIENTS)).labelled == ("p00_frame1",)


def test_all_labels_are_the_ceiling() -> None:
    split = Split(("a",), ("b", "c"), ("v",), ("t",), "rule")
    assert split.training == ("a", "b", "c")
    assert split.all_labelled() == Split(("a", "b", "c"), (), ("v",), ("t",), "rule, all labels")
    check_split(split.all_labelled(), dataset(["a", "b", "c", "v", "t"]), Path("s"))
    with pytest.raises(UserError, match="case c is listed as labelled but has no file in labelsTr"):
        check_split(split.all_labelled(), dataset(["a", "b", "v", "t"], ["c"]), Path("s"))


def test_without_a_split_every_label_trains() -> None:
    split = default_split(dataset(["a", "c"], ["b", "d"]))
    assert (split.labelled, split.unlabelled, split.validation, split.test) == (("a", "c"), ("b", "d"), (), ())
    assert split.protocol


def test_a_written_split_is_read_back(tmp_path: Path) -> None:
    data = dataset(PATIENTS, ["x", "y"])
    split = make_split(data, labelled=3, validation=2, test=1, seed=4, group_by=r"(.*)")
    write_split(tmp_path / "s.json", split)
    assert load_split(tmp_path / "s.json", data) == split


FAULTS = {
    "unknown": ({"labelled": ["p00_frame1", "p00_frame3"]}, "p00_frame3.*lacks.*did you mean 'p00_frame"),
    "shared": ({"labelled": ["p00_frame1"], "test": ["p00_frame1"]}, "p00_frame1 stands in both labelled and test"),
    "twice": ({"labelled": ["p00_frame1", "p00_frame1"]}, "p00_frame1 stands in both"),
    "none labelled": ({"labelled": [], "unlabelled": ["p00_frame1"]}, "no labelled case"),
    "labelled without label": ({"labelled": ["p00_frame1", "bare"]}, "bare is listed as labelled but has no file"),
    "validation without label": ({"labelled": ["p00_frame1"], "validation": ["bare"]}, "bare is listed as validation"),
    "no list": ({"labelled": "p00_frame1"}, '"labelled" must be a list'),
    "numbers": ({"labelled": [1, 2]}, '"labelled" must be a list of case ids'),
    "null": ({"labelled": ["p00_frame1"], "unlabelled": None}, '"unlabelled" must be a list'),
    "American": ({"labelled": ["p00_frame1"], "unlabeled": ["bare"]}, '"unlabeled" names .* did you mean .unlabelled.'),
    "short": ({"labelled": ["p00_frame1"], "val": ["p01_frame1"]}, '"val" names cases .* did you mean .validation.'),
    "another form": ({"train": ["p00_frame1"]}, 'under "labelled"'),
    "a list": (["p00_frame1"], 'under "labelled"'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_split_is_named(tmp_path: Path, fault: str) -> None:
    value, words = FAULTS[fault]
    path = tmp_path / "split.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=words) as error:
        load_split(path, dataset(PATIENTS, ["bare"]))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_unlabelled_and_test_cases_need_no_label(tmp_path: Path) -> None:
    path = write_file(tmp_path / "s.json", labelled=["p00_frame1"], unlabelled=["bare"], test=["p01_frame1"])
    assert load_split(path, dataset(PATIENTS, ["bare"])).unlabelled == ("bare",)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"labelled": 0}, "--labelled must be at least 1"),
        ({"labelled": 1, "test": -1}, "--test must be at least 0"),
        ({"labelled": 1, "validation": -9}, "--validation"),
        ({"labelled": 41}, "40 cases have a label, but 41"),
        ({"labelled": 20, "test": 21}, "ask for fewer"),
        ({"labelled": 1, "group_by": "case"}, "--group-by case: does not match case p00_frame1"),
        ({"labelled": 1, "group_by": "p0"}, "--group-by p0: does not match case p10_frame1"),
        ({"labelled": 1, "group_by": "(x)?p"}, "does not match"),
        ({"labelled": 1, "group_by": "(p"}, "not a regular expression"),
        ({"labelled": 1, "group_by": r"p\d+"}, "no group is small enough for 1 labelled"),
    ],
)
def test_what_cannot_be_drawn_is_said(asked: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as error:
        make_split(dataset(PATIENTS), **asked)  # type: ignore[arg-type]
    assert words in str(error.value)


def test_a_file_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "near-copies.json"
    path.write_text(json.dumps({"groups": [["a", "b"]], "threshold": 0.9}))
    assert load_groups(path) == [["a", "b"]]
    for value in ({"groups": ["a"]}, {"groups": [[1]]}, ["a"], {}):
        path.write_text(json.dumps(value))
        with pytest.raises(UserError, match=r"near-copies.json.*groups"):
            load_groups(path)
