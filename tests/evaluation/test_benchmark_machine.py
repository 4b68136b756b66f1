"""What a run took: parameters that predict, seconds a case."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semialign.evaluation.benchmark_machine import CaseClock, count_parameters, machine_name
from semialign.inference.model import load_trained


def test_a_student_that_only_trains_counts_nothing(any_case: Any, trained: Callable[[Any], Path]) -> None:
    run = trained(any_case)
    student = load_trained(run, accelerator="cpu").method.network
    assert count_parameters(run, accelerator="cpu") == sum(p.numel() for p in student.parameters()) > 0


def test_seconds_a_case_leave_out_loading_and_cases_of_before(monkeypatch) -> None:
    now = iter([100.0, 102.0, 106.0])
    monkeypatch.setattr("semialign.evaluation.benchmark_machine.time.perf_counter", lambda: next(now))
    heard: list[tuple[str, int, int]] = []
    clock = CaseClock(lambda *said: heard.append(said))
    assert clock.seconds is None
    for what, done in (("loading", 0), ("cases", 3), ("cases", 4), ("planes of this case", 8), ("cases", 6)):
        clock(what, done, 6)
    assert clock.seconds == 2.0
    assert len(heard) == 5


@pytest.mark.parametrize(("has", "word"), [(True, "with"), (False, "without")])
def test_a_processor_says_whether_it_has_bfloat16(monkeypatch: pytest.MonkeyPatch, has: bool, word: str) -> None:
    monkeypatch.setattr("semialign.inference.model.has_bfloat16", lambda device: has)
    monkeypatch.setattr("semialign.evaluation.benchmark_machine.os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert machine_name("cpu").endswith(f" processor {word} bfloat16, 1 core")
