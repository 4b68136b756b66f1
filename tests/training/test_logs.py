"""The log: readable whenever the process dies, cut to its checkpoint on resuming, and true means."""

import csv
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from semialign.common.errors import UserError
from semialign.training.logs import CsvLog, Means


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def _write(path: Path, steps: range) -> CsvLog:
    log = CsvLog(path)
    for step in steps:
        log.add({"step": step, "loss": step / 2})
    return log


def test_a_row_a_step(tmp_path: Path) -> None:
    _write(tmp_path / "log.csv", range(10, 40, 10))
    assert _read(tmp_path / "log.csv") == [{"step": str(s), "loss": str(s / 2)} for s in (10, 20, 30)]
    assert (tmp_path / "log.csv").read_bytes() == b"step,loss\n10,5.0\n20,10.0\n30,15.0\n"


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    for step in range(1, 5):
        log.add({"step": step})
        assert len(_read(tmp_path / "log.csv")) == step


def test_columns_may_come_and_go(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    for row in ({"step": 1, "a": 1}, {"step": 2, "a": 2, "b": 5}, {"step": 3, "b": 6}, {"step": 4, "a": 4, "b": 7}):
        log.add(row)
    assert _read(tmp_path / "log.csv") == [
        {"step": "1", "a": "1", "b": ""},
        {"step": "2", "a": "2", "b": "5"},
        {"step": "3", "a": "", "b": "6"},
        {"step": "4", "a": "4", "b": "7"},
    ]


def test_order_of_the_keys_does_not_matter(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    log.add({"step": 1, "a": 2})
    log.add({"a": 4, "step": 3})
    assert _read(tmp_path / "log.csv")[1] == {"step": "3", "a": "4"}


def test_names_with_commas_and_quotes(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    name = 'dice kidney, "left"'
    for step in (1, 2):
        log.add({"step": step, name: 0.5})
    assert _read(tmp_path / "log.csv") == [{"step": "1", name: "0.5"}, {"step": "2", name: "0.5"}]


def test_a_new_log_replaces_an_old_one(tmp_path: Path) -> None:
    _write(tmp_path / "log.csv", range(5))
    _write(tmp_path / "log.csv", range(2))
    assert len(_read(tmp_path / "log.csv")) == 2
    CsvLog(tmp_path / "log.csv")
    assert not (tmp_path / "log.csv").exists()


@pytest.mark.parametrize("until", [0, 20, 25, 30, 50, 99])
def test_resumed_it_reads_as_if_never_stopped(tmp_path: Path, until: int) -> None:
    path = tmp_path / "log.csv"
    whole = _write(tmp_path / "whole.csv", range(10, 70, 10))
    _write(path, range(10, 60, 10))
    log = CsvLog(path, until)
    kept = _read(path) if path.exists() else []
    assert [int(row["step"]) for row in kept] == [s for s in range(10, 60, 10) if s <= until]
    for step in range(until // 10 * 10 + 10, 70, 10):
        log.add({"step": step, "loss": step / 2})
    if until < 60:
        assert path.read_bytes() == whole.path.read_bytes()


def test_resumed_with_a_new_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    _write(path, range(10, 40, 10))
    CsvLog(path, 20).add({"step": 30, "loss": 1, "ramp": 0.5})
    assert [row["ramp"] for row in _read(path)] == ["", "", "0.5"]


@pytest.mark.parametrize("torn", ["5", "40,", "4", "40,1.", '"40'])
def test_a_torn_last_row_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.csv"
    _write(path, range(10, 40, 10))
    with open(path, "a") as handle:
        handle.write(torn)
    log = CsvLog(path, 1000)
    assert [row["step"] for row in _read(path)] == ["10", "20", "30"]
    log.add({"step": 40, "loss": 20.0})
    assert _read(path)[-1] == {"step": "40", "loss": "20.0"}


@pytest.mark.parametrize("content", ["", "step,loss\n", "nonsense\n1\n"])
def test_an_empty_or_foreign_log_is_started_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(content)
    CsvLog(path, 10).add({"step": 20, "loss": 1})
    assert _read(path) == [{"step": "20", "loss": "1"}]


def test_a_lost_log_is_no_obstacle(tmp_path: Path) -> None:
    CsvLog(tmp_path / "log.csv", 10).add({"step": 20, "loss": 1})
    assert len(_read(tmp_path / "log.csv")) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = _write(path, range(3))
    path.unlink()
    os.symlink("/dev/full", path)
    with pytest.raises(UserError, match="the disk is full"):
        log.add({"step": 4, "loss": 1})


def test_means() -> None:
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value, requires_grad=True)})
    means.add({"sometimes": torch.tensor(5.0)})
    assert means.take() == {"loss": 3.0, "sometimes": 5.0}
    assert means.take() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_means_show_what_is_no_number(value: float) -> None:
    means = Means()
    means.add({"loss": torch.tensor(1.0)})
    means.add({"loss": torch.tensor(value)})
    assert math.isnan(means.take()["loss"])


def test_means_keep_no_graph() -> None:
    means, leaf = Means(), torch.ones((), requires_grad=True)
    means.add({"loss": leaf * 2})
    kept: list[Any] = [v for values in means.values.values() for v in values]
    assert all(v.grad_fn is None for v in kept)
