"""What a run took: parameters that predict, seconds a case."""

import torch
from torch import nn

from semialign.evaluation.benchmark_machine import CaseClock, used_parameters


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.scale = nn.Parameter(torch.ones(()))
        self.proxies = nn.Parameter(torch.ones(7, 5))

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        assert self.student.weight.shape == self.teacher.weight.shape  # looked at, not used
        return self.teacher(self.teacher(image)[:, :1]) * self.scale


def test_only_parameters_that_predict_count_and_once() -> None:
    model = Two()
    with torch.inference_mode():
        used = used_parameters(lambda: model.predict(torch.zeros(1, 1, 9, 9)))
    assert used == 4 * 9 + 4 + 1
    assert used_parameters(lambda: torch.stack([model.proxies, model.proxies])) == 35


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
