"""When labels count as learnt."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semialign.common.types import Progress
from semialign.methods.learnt import Learnt


def _first_step(learnt: Learnt, losses: list[float], steps: int) -> int | None:
    for step, loss in enumerate(losses):
        learnt.see(lambda loss=loss: torch.tensor(loss), Progress("train", step, steps))
    return learnt.since()


def test_the_running_mean_decides_not_one_step() -> None:
    # From step 10 on a tenth a step: after n of them 1.0 has come down to 0.9^n, below 0.5 at n = 7.
    assert _first_step(Learnt(0.5), [1.0] * 10 + [0.0] * 6, 100) is None
    assert _first_step(Learnt(0.5), [1.0] * 10 + [0.0] * 7, 100) == 17
    # A long run takes a fiftieth: (49/50)^n < 0.5 at n = 35.
    assert _first_step(Learnt(0.5), [1.0] * 2500 + [0.0] * 34, 2500) is None
    assert _first_step(Learnt(0.5), [1.0] * 2500 + [0.0] * 35, 2500) == 2535


def test_the_first_steps_are_a_plain_mean() -> None:
    learnt = Learnt(0.0)
    _first_step(learnt, [1.0, 3.0, 8.0], 100)
    assert torch.isclose(learnt.mean, torch.tensor(4.0))


def test_what_is_learnt_stays_learnt_until_a_new_run() -> None:
    learnt = Learnt(0.5)
    assert _first_step(learnt, [0.4], 100) == 1
    learnt.see(lambda: torch.tensor(9.0), Progress("train", 1, 100))
    assert learnt.since() == 1
    resumed = Learnt(0.5)
    resumed.load_state_dict(learnt.state_dict())
    assert resumed.since() == 1
    resumed.forget()
    assert resumed.since() is None


def test_without_a_limit_all_is_learnt() -> None:
    assert Learnt(None).since() == 0


def test_labels_seen_often_enough_are_learnt_whatever_the_loss() -> None:
    learnt = Learnt(0.1, epochs=5.0)
    learnt.epochs_a_step = 0.5
    assert _first_step(learnt, [9.0] * 9, 100) is None
    assert _first_step(learnt, [9.0] * 10, 100) == 10
    never = Learnt(0.1, epochs=None)
    never.epochs_a_step = 0.5
    assert _first_step(never, [9.0] * 20, 100) is None


@pytest.mark.parametrize(("method", "step"), [("mean-teacher", 6), ("cps", 12)])
def test_a_run_counts_the_epochs_that_each_network_saw(
    method: str,
    step: int,
    small_train: Callable[..., Path],
    any_case: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from semialign.data.loader import TwoStream
    from semialign.training.checkpoint import load_checkpoint

    monkeypatch.setattr(TwoStream, "label_epochs", lambda self: 1 / 6)
    limits = {"start": 0.0, "learnt": 0.0, "learnt_epochs": 1.0}
    run = small_train(any_case._replace(method=method), tmp_path / "run", steps=14, **limits)
    # Of CPS each network learns in every second step.
    assert int(load_checkpoint(run / "last.pt")["model"]["learnt.step"]) == step


def test_a_run_too_short_says_that_it_used_no_unlabelled_case(
    small_train: Callable[..., Path], any_case: Any, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="the unlabelled cases were not used: .* set learnt=null"):
        small_train(any_case, tmp_path / "short", steps=3, learnt=0.01)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the unlabelled cases were not used")
        small_train(any_case, tmp_path / "learnt", steps=3, learnt=100.0)


@pytest.mark.parametrize("method", ["mean-teacher", "cps"])
def test_unlabelled_patches_are_loaded_from_the_start_on_and_change_nothing(
    method: str,
    small_train: Callable[..., Path],
    any_case: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from semialign.data.loader import TwoStream
    from semialign.methods.base import Method, method_class
    from semialign.training.checkpoint import load_checkpoint

    case, get, loaded = any_case._replace(method=method), TwoStream.__getitem__, []

    def noted(self: TwoStream, step: int) -> Any:
        batch = get(self, step)
        loaded.append((step, len(batch.image_u) > 0))
        return batch

    monkeypatch.setattr(TwoStream, "__getitem__", noted)
    full = {"lean": False} if method == "mean-teacher" else {}  # lean steps are another number of labelled patches
    late = small_train(case, tmp_path / "late", steps=6, start=0.5, workers=0, **full)
    assert loaded == [(step, step >= 3) for step in range(6)]
    monkeypatch.setattr(method_class(method), "wants_unlabelled", Method.wants_unlabelled)
    loaded.clear()
    always = small_train(case, tmp_path / "always", steps=6, start=0.5, workers=0, **full)
    assert loaded == [(step, True) for step in range(6)]
    weights = [load_checkpoint(run / "last.pt")["model"] for run in (late, always)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_lean_step_has_as_many_patches_with_unlabelled_ones_as_without(
    small_train: Callable[..., Path], any_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semialign.data.loader import TwoStream

    get, loaded = TwoStream.__getitem__, []

    def noted(self: TwoStream, step: int) -> Any:
        batch = get(self, step)
        loaded.append((len(batch.image_l), len(batch.image_u)))
        return batch

    monkeypatch.setattr(TwoStream, "__getitem__", noted)
    settings = {"batch_labelled": 3, "batch_unlabelled": 4, "start": 0.5, "learnt": None, "workers": 0}
    small_train(any_case, tmp_path / "lean", steps=4, lean=True, **settings)
    assert loaded == [(3, 0), (3, 0), (2, 1), (2, 1)]
    loaded.clear()
    small_train(any_case, tmp_path / "full", steps=4, lean=False, **settings)
    assert loaded == [(3, 0), (3, 0), (3, 4), (3, 4)]
