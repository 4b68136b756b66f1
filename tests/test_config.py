"""Settings: every key and type checked, the nearest name suggested, and back to plain values without loss."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from semialign.common.errors import UserError
from semialign.config import TrainingSettings, from_mapping, merge, parse_assignments, to_mapping


@dataclass(frozen=True)
class _Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class _Outer:
    steps: int = 1
    rate: float | None = None
    name: str = "a"
    on: bool = False
    sizes: tuple[int, ...] = ()
    strides: tuple[tuple[int, ...], ...] = ()
    inner: _Inner = field(default_factory=_Inner)
    weights: dict[str, float] = field(default_factory=dict)
    anything: Any = None


def test_every_kind_of_value_is_read() -> None:
    read = from_mapping(
        _Outer,
        {
            "steps": 3,
            "rate": 2,
            "name": "b",
            "on": True,
            "sizes": [1, 2],
            "strides": [[1, 1], [2, 2]],
            "inner": {"rate": "1e-3"},  # YAML 1.1 reads 1e-3 as text
            "weights": {"x": 1},
            "anything": [None],
        },
        "here",
    )
    assert read == _Outer(3, 2.0, "b", True, (1, 2), ((1, 1), (2, 2)), _Inner(0.001), {"x": 1.0}, [None])
    assert isinstance(read.rate, float)
    assert isinstance(read.weights["x"], float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepz": 1}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"steps": 1.5}, "'steps' must be a whole number, not 1.5"),
        ({"steps": True}, "'steps' must be a whole number, not True"),
        ({"steps": "many"}, "'steps' must be a whole number"),
        ({"steps": None}, "'steps' must be a whole number, not None"),
        ({"rate": "fast"}, "'rate' must be a number, not 'fast'"),
        ({"rate": True}, "'rate' must be a number"),
        ({"rate": "nan"}, "'rate' must be a number"),
        ({"rate": float("inf")}, "'rate' must be a number"),
        ({"name": 3}, "'name' must be a name, not 3"),
        ({"on": 1}, "'on' must be true or false, not 1"),
        ({"on": "no"}, "'on' must be true or false"),
        ({"sizes": 3}, "'sizes' must be a list"),
        ({"sizes": [1, "x"]}, "'sizes' must be a whole number, not 'x'"),
        ({"strides": [1]}, "'strides' must be a list"),
        ({"inner": 3}, "'inner' must hold keys"),
        ({"inner": {"rat": 3}}, "'inner': unknown key 'rat'; did you mean 'rate'"),
        ({"weights": [1]}, "'weights' must hold keys"),
        ({3: 1}, "unknown key '3'"),
    ],
)
def test_mistakes_are_named(values: dict[Any, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        from_mapping(_Outer, values, "here.yaml")
    assert words in str(error.value)
    assert str(error.value).startswith("here.yaml")
    assert "\n" not in str(error.value)


def test_none_is_taken_where_it_is_allowed() -> None:
    assert from_mapping(_Outer, {"rate": None}, "here").rate is None


@given(
    st.builds(
        _Outer,
        steps=st.integers(),
        rate=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        name=st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
        on=st.booleans(),
        sizes=st.lists(st.integers(0, 99)).map(tuple),
        strides=st.lists(st.lists(st.integers(0, 9)).map(tuple)).map(tuple),
        weights=st.dictionaries(st.sampled_from("abc"), st.floats(-5, 5)),
    )
)
def test_settings_survive_yaml(settings: _Outer) -> None:
    text = yaml.safe_dump(to_mapping(settings))
    assert from_mapping(_Outer, yaml.safe_load(text), "here") == settings


def test_training_settings_survive_yaml_and_checkpoints() -> None:
    settings = TrainingSettings(plugins=("scdl",), minutes=1.5, learning_rate=1e-5)
    assert from_mapping(TrainingSettings, yaml.safe_load(yaml.safe_dump(to_mapping(settings))), "x") == settings


def test_every_training_setting_is_documented() -> None:
    from semialign.data.plan import field_comments

    assert set(field_comments(TrainingSettings)) == {f.name for f in dataclasses.fields(TrainingSettings)}


def test_assignments() -> None:
    given = ["a=1", "b.c=x", "b.d=[1, 2]", "e=", "f= true ", "g=a=b", "h=1e-3"]
    assert parse_assignments(given) == {
        "a": 1,
        "b": {"c": "x", "d": [1, 2]},
        "e": None,
        "f": True,
        "g": "a=b",
        "h": "1e-3",
    }
    assert parse_assignments(["a=1", "a=2"]) == {"a": 2}
    assert parse_assignments([]) == {}


@pytest.mark.parametrize("text", ["a", "=1", " =1", "a=[1", "a..b=1", ".a=1", "a.=1"])
def test_broken_assignments(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_assignments([text])
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("texts", [["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_a_key_is_a_value_or_holds_keys(texts: list[str]) -> None:
    with pytest.raises(UserError, match="both"):
        parse_assignments(texts)


def test_later_mappings_lie_over_earlier_ones() -> None:
    first, second = {"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 3}, "e": 4}
    assert merge(first, second) == {"a": 1, "b": {"c": 1, "d": 3}, "e": 4}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merge({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert merge() == {}
    assert first == {"a": 1, "b": {"c": 1, "d": 2}}, "the inputs stay as they were"
