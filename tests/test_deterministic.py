"""Everything follows from the seed: two trainings are bit-equal on a processor, whoever loads the data."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semialign.training.checkpoint import load_checkpoint

STEPS = {"steps": 6, "validations": 2, "checkpoint_steps": 3}


def _weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = load_checkpoint(run / f"{name}.pt")["model"]
    return model


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return [{**row, "seconds": ""} for row in csv.DictReader(handle)]


def test_two_trainings_are_bit_equal(case: Any, small_train: Callable[..., Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = small_train(case, tmp_path / "first", **STEPS)
    torch.manual_seed(2)  # nothing may depend on what ran before
    second = small_train(case, tmp_path / "second", **STEPS)
    assert _equal(_weights(first), _weights(second))
    assert _equal(_weights(first, "best"), _weights(second, "best"))
    for name in ("log.csv", "validation.csv"):
        assert _rows(first / name) == _rows(second / name)
    for one, other in zip(*(load_checkpoint(r / "last.pt")["optimisers"] for r in (first, second)), strict=True):
        assert str(one) == str(other)


def test_workers_change_nothing(small_train: Callable[..., Path], any_case: Any, tmp_path: Path) -> None:
    runs = [small_train(any_case, tmp_path / str(n), workers=n, **STEPS) for n in (0, 2)]
    assert _equal(*(_weights(run) for run in runs))


def test_validating_logging_and_saving_change_nothing(
    small_train: Callable[..., Path], any_case: Any, tmp_path: Path
) -> None:
    plain = small_train(any_case, tmp_path / "plain", steps=6, validations=0, log_steps=6, checkpoint_steps=6)
    often = small_train(any_case, tmp_path / "often", steps=6, validations=6, log_steps=1, checkpoint_steps=1)
    assert _equal(_weights(plain), _weights(often))


@pytest.mark.parametrize("settings", [{"seed": 1}, {"augmentation": "none"}, {"batch_unlabelled": 1}], ids=str)
def test_other_settings_give_other_weights(
    small_train: Callable[..., Path], any_case: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    full = {**STEPS, "lean": False}  # a lean step takes as many unlabelled patches as it gives up labelled ones
    first = small_train(any_case, tmp_path / "first", **full)
    second = small_train(any_case, tmp_path / "second", **full, **settings)
    assert not _equal(_weights(first), _weights(second))


def test_unlabelled_cases_are_seen(small_train: Callable[..., Path], any_case: Any, tmp_path: Path) -> None:
    with_them = small_train(any_case, tmp_path / "with", **STEPS, weight=10.0, rampup_steps=0)
    without = small_train(any_case, tmp_path / "without", **STEPS, weight=10.0, rampup_steps=0, batch_unlabelled=0)
    assert not _equal(_weights(with_them), _weights(without))
    assert "consistency" in _rows(with_them / "log.csv")[0]
    assert "consistency" not in _rows(without / "log.csv")[0]
