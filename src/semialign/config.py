"""Settings as frozen dataclasses, read from YAML and from ``key=value``, with every key checked."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from semialign.common.errors import UserError, closest

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingSettings:
    """What the loop needs, whatever the method. A recipe or ``--set`` changes any of them."""

    method: str = "mean-teacher"
    """Which method trains; ``semialign methods`` lists them."""
    plugins: tuple[str, ...] = ()
    """Plug-ins that sit on the method."""
    seed: int = 0
    """Everything random follows from it."""
    steps: int = 2000
    """Optimiser steps; ``minutes`` takes precedence where it is given."""
    minutes: float | None = None
    """Training time, validation left out; how many steps fit is estimated anew every 20 steps."""
    optimiser: str = "adamw"
    """``adamw`` or ``sgd`` (momentum, Nesterov), the published recipes' own."""
    learning_rate: float = 0.002
    """At step 0; it decays by ``(1 - t/T)^0.9``."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.01
    """On all weights; AdamW's is decoupled, SGD's is not (1e-4 there)."""
    lr_decay_steps: int | None = None
    """Steps after which the learning rate is 0 (default: ``steps``, or when ``minutes`` are over)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    clip_norm: float | None = 12.0
    """Largest norm of the gradient."""
    batch_labelled: int | None = None
    """Labelled patches a step (default: the plan's)."""
    batch_unlabelled: int | None = None
    """Unlabelled patches a step (default: the plan's)."""
    foreground: float = 0.5
    """Share of labelled patches placed on a voxel of a random foreground class."""
    augmentation: str = "default"
    """``default``, ``light`` (flips and small changes), ``none``, or ``strong`` (intensities alone)."""
    precision: str = "auto"
    """``auto`` (bfloat16 where the device has it), ``bf16`` or ``float32``."""
    validations: int = 5
    """How often validation cases are predicted over the whole of training, all stages together; 0 never."""
    checkpoint_steps: int = 200
    """Steps between checkpoints that ``--resume`` goes on from."""
    log_steps: int = 10
    """Steps between rows of the log; a row holds means."""
    workers: int | None = None
    """Loader processes (default: from the number of cores); changes no result."""


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return dataclass ``kind`` from plain values, checking every key and type.

    ``where`` names the source in errors. Raises :class:`UserError` for an unknown key (nearest name suggested) or a
    value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{closest(str(key), known)}")
    return kind(**{key: _convert(hints[key], value, f"{where}: '{key}'") for key, value in values.items()})


def to_mapping(settings: Any) -> dict[str, Any]:
    """Return a dataclass as plain values that YAML and JSON can hold; tuples become lists."""
    return {key: _plain(value) for key, value in dataclasses.asdict(settings).items()}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``{"a": {"b": 1}}`` for ``["a.b=1"]``; values are read as YAML.

    Raises :class:`UserError` where one is not of the form ``key=value``.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(f"--set {assignment}: write key=value, such as --set learning_rate=0.005")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {assignment}: the value is not valid YAML") from error
        place = result
        *parents, last = parts
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {assignment}: '{parent}' is set both to a value and to keys")
        if isinstance(place.get(last), dict) and not isinstance(value, dict):
            raise UserError(f"--set {assignment}: '{last}' is set both to a value and to keys")
        place[last] = value
    return result


def merge(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings laid over one another, later ones on top."""
    result: dict[str, Any] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            old = result.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must hold keys, not {value!r}")
        return from_mapping(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list, not {value!r}")
        inner = get_args(hint)[0]
        return tuple(_convert(inner, v, where) for v in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must hold keys, not {value!r}")
        return {str(key): _convert(get_args(hint)[1], v, where) for key, v in value.items()}
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # of text too: YAML 1.1 reads 1e-3 so
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{where} must be a number, not {value!r}")
        return number
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise UserError(f"{where} must be {_named(hint)}, not {value!r}")


def _named(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a name", bool: "true or false"}.get(hint, str(hint))
