"""The loop: stages, schedule, clipping, time limit, validation and what it says when the loss is lost."""

import csv
import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.schedules import poly
from semialign.common.types import Batch, Progress, StepOutput
from semialign.config import TrainingSettings
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method, StageSettings
from semialign.training import loop as loop_module
from semialign.training.checkpoint import load_checkpoint
from semialign.training.loop import Loop


class _Plain(Method):
    """One network on labels, which notes what the loop does with it."""

    def __init__(self, make_network: Any, settings: Any = None, plugins: Any = ()) -> None:
        super().__init__(make_network, settings, plugins)
        self.network = self.student()
        self.seen: list[Progress] = []
        self.after: list[Progress] = []
        self.norms: list[float] = []
        self.drawn: list[float] = []
        self.predicted_in_training: set[bool] = set()

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised loss, and the step's number to log."""
        self.seen.append(progress)
        self.drawn.append(float(torch.rand(())))
        loss = dice_ce(self.network(batch.image_l).logits, batch.label_l)
        return StepOutput({"supervised": loss}, [], {"number": float(progress.step)})

    def after_step(self, progress: Progress) -> None:
        """Note the gradient that the optimiser used."""
        self.after.append(progress)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax."""
        self.predicted_in_training.add(self.training)
        probabilities: Tensor = self.network(image).logits.softmax(1)
        return probabilities


class _Staged(_Plain):
    """The encoder first, a quarter of the steps; then everything that wants to learn."""

    stages = ("encoder", "all")

    def __init__(self, make_network: Any, settings: Any = None, plugins: Any = ()) -> None:
        super().__init__(make_network, settings, plugins)
        self.never = nn.Parameter(torch.ones(3), requires_grad=False)
        self.learned: dict[str, set[str]] = {}

    def stage_settings(self, stage: str) -> StageSettings:
        """Return the shares and what learns."""
        if stage == "encoder":
            return StageSettings(share=0.25, uses_unlabelled=False, parameters=("network.encoder", "never"))
        return StageSettings(share=0.75)

    def after_step(self, progress: Progress) -> None:
        """Note what learns."""
        super().after_step(progress)
        self.learned[progress.stage] = {name for name, p in self.named_parameters() if p.requires_grad}


Run = Callable[..., tuple[Loop, Any]]


@pytest.fixture
def run_loop(tiny_2d: Any, tmp_path: Path) -> Run:
    """Run a loop on the pictures: method class, settings; returns loop and method."""

    def run(
        kind: type[Method] = _Plain, *, folder: str = "run", state: Any = None, bf16: bool = False, **settings: Any
    ) -> tuple[Loop, Any]:
        from lightning_fabric import Fabric

        from semialign.common.seeding import seed_step
        from semialign.networks.build import network_of_plan

        # As small as it gets: what is tested here happens around the steps.
        small = {"patch_size": (16, 16), "batch_labelled": 1, "batch_unlabelled": 1}
        network = {"widths": (4, 4), "strides": ((1, 1), (2, 2)), "kernels": ((3, 3), (3, 3))}
        prepared = dataclasses.replace(
            tiny_2d.prepared, plan=dataclasses.replace(tiny_2d.prepared.plan, **small, **network)
        )
        values = {"steps": 12, "log_steps": 1, "validations": 0, "optimiser": "sgd", "learning_rate": 0.01} | settings
        fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if bf16 else "32-true")
        fabric.launch()
        seed_step(0, "start")
        method = kind(lambda: network_of_plan(prepared.plan, 2))
        made = Loop(
            fabric,
            method,
            prepared,
            TrainingSettings(**values),
            run=tmp_path / folder,
            describe={"method": "plain"},
            workers=0,
            state=state,
        )
        made.run_all()
        return made, method

    return run


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_step_once_in_order(run_loop: Run) -> None:
    loop, method = run_loop(steps=7)
    expected = [Progress("train", step, 7) for step in range(7)]
    assert method.seen == expected
    assert method.after == expected
    assert loop.place.steps_done == 7
    assert load_checkpoint(loop.run / "last.pt")["place"]["step"] == 7


def test_every_step_draws_its_own_numbers_whatever_was_drawn_before(run_loop: Run) -> None:
    _, method = run_loop(steps=6, validations=0)
    torch.rand(5)
    _, again = run_loop(folder="again", steps=6, validations=6)
    _, other = run_loop(folder="other", steps=6, seed=1)
    assert len(set(method.drawn)) == 6
    assert again.drawn == method.drawn
    assert not set(other.drawn) & set(method.drawn)


def test_learning_rate_follows_the_schedule(run_loop: Run) -> None:
    loop, _ = run_loop(steps=10, learning_rate=0.02)
    rates = [float(row["lr"]) for row in _rows(loop.run / "log.csv")]
    assert rates == pytest.approx([0.02 * (1 - t / 10) ** 0.9 for t in range(10)], rel=1e-4)


def test_warm_up_and_decay_are_settings_of_their_own(run_loop: Run) -> None:
    loop, _ = run_loop(steps=10, learning_rate=0.02, warmup_steps=4, lr_decay_steps=8)
    rates = [float(row["lr"]) for row in _rows(loop.run / "log.csv")]
    expected = [0.02 * min(1, (t + 1) / 4) * poly(t, 8) for t in range(10)]
    assert rates == pytest.approx(expected, rel=1e-4)
    assert rates[8:] == [0, 0]


def test_gradients_are_clipped_where_asked(run_loop: Run) -> None:
    _, free = run_loop(folder="free", clip_norm=None, steps=3)
    _, clipped = run_loop(folder="clipped", clip_norm=0.05, steps=3)
    assert min(free.norms) > 0.05
    assert clipped.norms == pytest.approx([0.05] * 3, rel=1e-3)


class _Watched(_Plain):
    """Notes the type of every convolution's output."""

    def __init__(self, make_network: Any, settings: Any = None, plugins: Any = ()) -> None:
        super().__init__(make_network, settings, plugins)
        self.types: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(lambda m, i, o: self.types[self.training].add(o.dtype))


@pytest.mark.parametrize("bf16", [False, True])
def test_precision_reaches_the_convolutions_in_training_and_validation(run_loop: Run, bf16: bool) -> None:
    loop, method = run_loop(_Watched, bf16=bf16, steps=2, validations=1)
    expected = torch.bfloat16 if bf16 else torch.float32
    assert method.types == {True: {expected}, False: {expected}}
    state = load_checkpoint(loop.run / "last.pt")
    assert {value.dtype for value in state["model"].values()} == {torch.float32}


def test_log_holds_means_of_all_steps(run_loop: Run) -> None:
    fine, _ = run_loop(folder="fine", steps=12, log_steps=1)
    coarse, _ = run_loop(folder="coarse", steps=12, log_steps=5)
    losses = [float(row["loss"]) for row in _rows(fine.run / "log.csv")]
    rows = _rows(coarse.run / "log.csv")
    assert [int(row["step"]) for row in rows] == [5, 10, 12]
    assert [float(row["number"]) for row in rows] == [2, 7, 10.5]
    means = [sum(part) / len(part) for part in (losses[:5], losses[5:10], losses[10:])]
    assert [float(row["loss"]) for row in rows] == pytest.approx(means, rel=1e-4)
    assert [float(row["supervised"]) for row in rows] == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize(("steps", "times"), [(12, 3), (12, 12), (10, 3), (3, 5), (7, 1)])
def test_validates_as_often_as_asked_and_always_at_the_end(run_loop: Run, steps: int, times: int) -> None:
    loop, method = run_loop(steps=steps, validations=times)
    rows = _rows(loop.run / "validation.csv")
    seen = [int(row["step"]) for row in rows]
    assert len(seen) == min(steps, times)
    assert seen[-1] == steps
    assert max(b - a for a, b in zip([0, *seen], seen, strict=False)) <= math.ceil(steps / len(seen))
    assert list(rows[0]) == ["step", "seconds", "mean_dice", "dice spot"]
    assert method.predicted_in_training == {False}
    assert method.training


def test_never_validates_where_not_asked(run_loop: Run) -> None:
    loop, method = run_loop(validations=0)
    assert not (loop.run / "validation.csv").exists()
    assert not (loop.run / "best.pt").exists()
    assert not method.predicted_in_training


def test_best_is_the_best(run_loop: Run) -> None:
    loop, method = run_loop(steps=30, validations=10, learning_rate=0.1, checkpoint_steps=10)
    scores = {int(row["step"]): float(row["mean_dice"]) for row in _rows(loop.run / "validation.csv")}
    best = load_checkpoint(loop.run / "best.pt")
    highest = max(scores.values())
    first = min(step for step, score in scores.items() if score == highest)
    assert best["place"]["steps_done"] == first
    assert best["place"]["best"] == pytest.approx(highest, abs=1e-5)
    last = load_checkpoint(loop.run / "last.pt")
    assert all(torch.equal(v, last["model"][n]) for n, v in method.state_dict().items())


def test_of_equals_the_first_is_kept(run_loop: Run) -> None:
    loop, _ = run_loop(steps=4, validations=4, learning_rate=1e-20)
    assert len({row["mean_dice"] for row in _rows(loop.run / "validation.csv")}) == 1
    assert load_checkpoint(loop.run / "best.pt")["place"]["steps_done"] == 1


def test_stages_share_the_steps_and_freeze_what_they_should(run_loop: Run) -> None:
    loop, method = run_loop(_Staged, steps=12)
    assert method.seen == [Progress("encoder", s, 3) for s in range(3)] + [Progress("all", s, 9, 3) for s in range(9)]
    assert loop.place.steps_done == 12
    every = {name for name, _ in method.network.named_parameters(prefix="network")}
    assert method.learned["encoder"] == {name for name in every if name.startswith("network.encoder")}
    assert method.learned["all"] == every, "the second stage is not told by the first what learns"
    assert [int(row["step"]) for row in _rows(loop.run / "log.csv")] == list(range(1, 13))
    assert method.never.tolist() == [1, 1, 1]


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_resumes_within_and_between_stages(run_loop: Run, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    whole, expected = run_loop(_Staged, folder="whole", checkpoint_steps=1)

    class Stopped(BaseException):
        pass

    save = Loop._save

    def saved(self: Loop, name: str, optimisers: list[Any], *rest: Any) -> None:
        save(self, name, optimisers, *rest)
        if self.place.steps_done == stop:
            raise Stopped

    monkeypatch.setattr(Loop, "_save", saved)
    with pytest.raises(Stopped):
        run_loop(_Staged, folder="stopped", checkpoint_steps=1)
    monkeypatch.undo()
    state = load_checkpoint(whole.run.parent / "stopped" / "last.pt")
    loop, method = run_loop(_Staged, folder="stopped", checkpoint_steps=1, state=state)
    assert loop.place.steps_done == 12
    assert len(method.seen) == 12 - stop
    assert method.learned["all"] == expected.learned["all"]
    for name, value in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], value), name
    logs = [[{**row, "seconds": ""} for row in _rows(r.run / "log.csv")] for r in (whole, loop)]
    assert logs[0] == logs[1]


# --- A limit of time --------------------------------------------------------------------------------------------------


class _Clock:
    """A clock that only the method moves, so that nothing here depends on the machine."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """Put a clock into the loop that stands still by itself."""
    made = _Clock()
    monkeypatch.setattr(loop_module, "time", made)
    return made


def _timed(clock: _Clock, seconds: Callable[[int], float], base: type[_Plain] = _Plain) -> type[_Plain]:
    class Timed(base):  # type: ignore[valid-type,misc]
        def after_step(self, progress: Progress) -> None:
            super().after_step(progress)
            clock.now += seconds(len(self.after))

        def predict(self, image: Tensor) -> Tensor:
            clock.now += 7
            probabilities: Tensor = super().predict(image)
            return probabilities

    return Timed


@pytest.mark.parametrize(
    ("name", "seconds", "least", "most"),
    [
        ("even", lambda n: 0.5, 29, 31),
        ("slow", lambda n: 5.0, 29, 36),  # fewer steps fit than one would like to time
        ("slow start", lambda n: 6.0 if n == 1 else 0.3, 29, 31),
        ("slowing down", lambda n: 0.2 if n < 30 else 0.8, 29, 33),
        ("speeding up", lambda n: 0.8 if n < 20 else 0.2, 27, 31),
    ],
)
def test_ends_near_the_limit(
    run_loop: Run, clock: _Clock, name: str, seconds: Callable[[int], float], least: float, most: float
) -> None:
    loop, method = run_loop(_timed(clock, seconds), minutes=0.5, validations=2)
    took = sum(seconds(n + 1) for n in range(len(method.after)))
    assert least <= took <= most
    assert loop.place.seconds == pytest.approx(took)
    assert method.after[-1].max_steps == len(method.after), "the last step knows that it is the last"
    rates = [float(row["lr"]) for row in _rows(loop.run / "log.csv")]
    assert rates[-1] < 0.25 * rates[0], "the learning rate has come down by then"
    assert load_checkpoint(loop.run / "last.pt")["place"]["steps_done"] == len(method.after)
    assert _rows(loop.run / "validation.csv")[-1]["step"] == str(len(method.after))


def test_the_learning_rate_follows_the_clock_where_steps_become_slower(run_loop: Run, clock: _Clock) -> None:
    # 10 s of fast steps; of all steps that is more than a half, of the time a third.
    loop, _ = run_loop(_timed(clock, lambda n: 0.1 if n <= 100 else 0.25), minutes=0.5, log_steps=1)
    rows = [(float(row["seconds"]), float(row["lr"])) for row in _rows(loop.run / "log.csv")]
    known = [(now, rate) for (now, _), (_, rate) in pairwise(rows) if 2 < now < 10 or now > 16]
    assert len(known) > 100
    for now, rate in known:  # the new pace is known some steps after it has come
        assert (rate / rows[0][1]) ** (1 / 0.9) == pytest.approx(1 - now / 30, abs=0.02)


@pytest.mark.parametrize(
    "seconds",
    [
        lambda n: 0.3 + 0.25 * math.sin(n / 6),  # the estimate of the steps goes up and down
        lambda n: 0.1 if n <= 500 else 0.4,
        lambda n: 0.4 if n <= 200 else 0.1,
    ],
)
def test_validations_lie_evenly_in_time_however_long_steps_take(
    run_loop: Run, clock: _Clock, seconds: Callable[[int], float]
) -> None:
    loop, _ = run_loop(_timed(clock, seconds), minutes=3, validations=5)
    times = [float(row["seconds"]) for row in _rows(loop.run / "validation.csv")]
    assert times == pytest.approx([36, 72, 108, 144, 180], abs=6)


def test_every_stage_has_its_share_of_the_time(run_loop: Run, clock: _Clock) -> None:
    _, method = run_loop(_timed(clock, lambda n: 0.25, _Staged), minutes=0.5)
    steps = [sum(p.stage == stage for p in method.after) for stage in ("encoder", "all")]
    assert steps[0] * 0.25 == pytest.approx(7.5, abs=1)
    assert steps[1] * 0.25 == pytest.approx(22.5, abs=1)


def test_a_stopped_run_has_the_time_that_is_left(
    run_loop: Run, clock: _Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stopped(BaseException):
        pass

    save = Loop._save

    def saved(self: Loop, name: str, optimisers: list[Any], *rest: Any) -> None:
        save(self, name, optimisers, *rest)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save", saved)
        with pytest.raises(Stopped):
            run_loop(_timed(clock, lambda n: 0.5), minutes=0.5, checkpoint_steps=33)
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    loop, method = run_loop(_timed(clock, lambda n: 0.5), minutes=0.5, checkpoint_steps=33, state=state)
    assert 33 + len(method.after) == pytest.approx(60, abs=2)
    assert loop.place.seconds == pytest.approx(30, abs=1)
    _, method = run_loop(_timed(clock, lambda n: 0.5), minutes=0.5, state=load_checkpoint(loop.run / "last.pt"))
    assert len(method.after) <= 1, "a finished run has no time left"


# --- A lost loss ------------------------------------------------------------------------------------------------------


class _Lost(_Plain):
    """Loses its loss at step 5."""

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return no number from the sixth step on."""
        step = super().losses(batch, progress)
        factor = math.nan if progress.step >= 5 else 1.0
        return StepOutput({name: value * factor for name, value in step.losses.items()}, [], step.log)


class _Infinite(_Plain):
    """Has a finite loss whose gradient is not, at step 5."""

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Add a root of zero: its value is 0, its slope infinite."""
        step = super().losses(batch, progress)
        if progress.step == 5:
            step.losses["root"] = (0 * self.network.classifier.weight.sum()).sqrt()
        return step


@pytest.mark.parametrize("kind", [_Lost, _Infinite])
@pytest.mark.parametrize(
    "steps", [{"log_steps": 10, "checkpoint_steps": 3}, {"log_steps": 1, "checkpoint_steps": 3}], ids=str
)
def test_a_lost_loss_is_one_line_and_spoils_no_checkpoint(
    run_loop: Run, tmp_path: Path, kind: type[Method], steps: dict[str, int]
) -> None:
    with pytest.raises(UserError) as error:
        run_loop(kind, steps=20, validations=4, **steps)
    text = str(error.value)
    assert text.startswith(str(tmp_path / "run"))
    assert "no number" in text
    assert "learning_rate" in text
    assert "\n" not in text
    for name in ("last.pt", "best.pt"):
        state = load_checkpoint(tmp_path / "run" / name)
        assert all(v.isfinite().all() for v in state["model"].values()), name
        assert state["place"]["steps_done"] <= 5
