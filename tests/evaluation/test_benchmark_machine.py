"""What a run took: parameters that predict, seconds a case."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from semialign.evaluation.benchmark_machine import CaseClock, count_parameters
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
