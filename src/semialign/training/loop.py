"""The training loop: stages, schedule, clipping, checkpoints, validation and logs, on Lightning Fabric."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semialign.common.errors import UserError
from semialign.common.ranks import share_batch_statistics
from semialign.common.schedules import poly
from semialign.common.seeding import seed_step
from semialign.common.types import Batch, Progress
from semialign.config import TrainingSettings
from semialign.data.loader import TwoStream, batches
from semialign.data.prepare import Prepared
from semialign.methods.base import Method, StageSettings
from semialign.networks.layout import lay_out
from semialign.training.checkpoint import load_method, save_checkpoint
from semialign.training.class_figures import class_figure_rows
from semialign.training.logs import CsvLog, Means
from semialign.training.time_limit import TimeLimit
from semialign.training.validation import mean_dice, validate_case

_FIGURES = 20  # times that what plug-ins learned of the classes is written, over a stage


@dataclass
class Place:
    """Where a run stands: enough, with weights and optimisers, to go on from."""

    stage: str
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    steps_done: int = 0
    stage_seconds: float = 0.0
    times: dict[str, int] = field(default_factory=dict)  # how often each thing that is done now and then has been due


class Loop:
    """Trains ``method`` through its stages into ``run``; :meth:`run_all` goes on from ``state`` where one is given."""

    def __init__(
        self,
        fabric: Any,
        method: Method,
        prepared: Prepared,
        settings: TrainingSettings,
        *,
        run: Path,
        describe: dict[str, Any],
        workers: int,
        state: dict[str, Any] | None = None,
        loggers: Sequence[Any] = (),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.fabric, self.method, self.prepared, self.settings = fabric, method, prepared, settings
        self.run, self.describe, self.state, self.workers = run, describe, state, workers
        self.say = progress or (lambda what, done, of: None)
        self.place = Place(**state["place"]) if state else Place(method.stages[0])
        self.first = fabric.is_global_zero
        self.loggers = loggers
        self.stage_steps = settings.steps
        self.limit: TimeLimit | None = None
        self.means = Means(state["means"] if state else None)
        self.learning = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
        if self.first:
            until = self.place.steps_done if state else None
            self.log = CsvLog(run / "log.csv", until)
            self.validation = CsvLog(run / "validation.csv", until)
            self.proxies = CsvLog(run / "proxies.csv", until)

    def run_all(self) -> Place:
        """Run every stage that is left; returns where the run ended."""
        for stage in self.method.stages[self.method.stages.index(self.place.stage) :]:
            if stage != self.place.stage:
                self.place.stage, self.place.step, self.place.stage_seconds = stage, 0, 0.0
            self._run_stage(stage)
        return self.place

    def _run_stage(self, stage: str) -> None:
        asked, settings, place = self.method.stage_settings(stage), self.settings, self.place
        module, optimisers = self._set_up(stage, asked.parameters)
        self.limit, steps = None, max(1, round(settings.steps * asked.share))
        if settings.minutes:
            self.limit = TimeLimit(settings.minutes * 60 * asked.share, step=place.step, spent=place.stage_seconds)
            steps = self.limit.steps
        if place.step >= steps:
            return
        before = sum(self.method.stage_settings(s).share for s in self.method.stages[: self.method.stages.index(stage)])
        earlier, started = place.seconds - place.stage_seconds, time.monotonic() - place.stage_seconds
        data = self._data(stage, asked)
        self.method.begin_stage(stage, place.step, data, self.run)
        module.train()
        self.stage_steps = steps
        for batch in self._batches(data, range(place.step, 2**40 if self.limit else steps)):
            self.means.add(self._step(module, optimisers, self.fabric.to_device(batch), self._progress()))
            place.step, place.steps_done = place.step + 1, place.steps_done + 1
            place.stage_seconds = time.monotonic() - started
            place.seconds = earlier + place.stage_seconds
            self.stage_steps = steps = self._steps_of(self.limit) if self.limit else steps
            done = place.step >= steps
            if place.step % settings.log_steps == 0 or done:
                self._write_log(optimisers)
                self.say(f"{stage}", place.step, steps)
            if self._due(f"figures of {stage}", _FIGURES, 0.0, 1.0) and self.first:
                for row in class_figure_rows(self.method, self.prepared.dataset.class_names, place.steps_done):
                    self.proxies.add(row)
            validates = self._due("validation", settings.validations, before, asked.share) and asked.validates
            saves = place.step % settings.checkpoint_steps == 0 or done
            if validates or saves:
                share_batch_statistics(self.method)  # one model, whichever process asks it
            if validates:
                paused = time.monotonic()
                self._validate()
                started += time.monotonic() - paused  # validating is not training
            if saves:
                self._save("last.pt", optimisers)
            if done:
                break

    def _set_up(self, stage: str, parameters: tuple[str, ...] | None) -> tuple[Any, list[Any]]:
        for name, parameter in self.method.named_parameters():
            asked = parameters is None or name.startswith(parameters)
            parameter.requires_grad_(asked and name in self.learning)
        self.method.to(self.fabric.device)  # before the optimisers: their saved state goes where the weights lie
        lay_out(self.method, self.fabric.device)
        optimisers = self.method.optimisers(stage, self.settings)
        if self.state is not None:
            load_method(self.method, self.state, self.run / "last.pt")
            if self.state["place"]["stage"] == stage and self.place.step:
                for optimiser, saved in zip(optimisers, self.state["optimisers"], strict=True):
                    optimiser.load_state_dict(saved)
            self.state = None
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group.setdefault("initial_lr", group["lr"])
        module, *wrapped = self.fabric.setup(self.method, *optimisers)
        return module, wrapped

    def _step(self, module: Any, optimisers: list[Any], batch: Any, progress: Progress) -> dict[str, torch.Tensor]:
        settings = self.settings
        seed_step(settings.seed, "step", progress.stage, progress.step, self.fabric.global_rank)
        if self.limit and settings.lr_decay_steps is None:
            decay = poly(self.limit.share, 1.0)
        else:
            decay = poly(progress.step, settings.lr_decay_steps or progress.max_steps)
        warm = min(1.0, (progress.step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * decay * warm
            optimiser.zero_grad()
        total, terms = module(batch, progress)
        self.fabric.backward(total)
        for optimiser in optimisers if settings.clip_norm else []:
            self.fabric.clip_gradients(module, optimiser, max_norm=settings.clip_norm, error_if_nonfinite=False)
        for optimiser in optimisers:
            optimiser.step()
        self.method.after_step(progress)
        return {"loss": total.detach(), **terms}

    def _data(self, stage: str, asked: StageSettings) -> TwoStream:
        unlabelled = asked.uses_unlabelled
        plan, split, settings = self.prepared.plan, self.prepared.split, self.settings
        labelled = settings.batch_labelled or plan.batch_labelled
        other = plan.batch_unlabelled if settings.batch_unlabelled is None else settings.batch_unlabelled
        return TwoStream(
            self.prepared.store,
            plan,
            labelled=split.labelled,
            unlabelled=split.unlabelled if unlabelled else (),
            batch=(labelled, other if unlabelled else 0),
            seed=settings.seed,
            stage=stage,
            foreground=settings.foreground,
            augmentation=settings.augmentation,
            symmetries=asked.symmetries,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )

    def _progress(self) -> Progress:
        place = self.place
        return Progress(place.stage, place.step, self.stage_steps, place.steps_done - place.step)

    def _batches(self, data: TwoStream, steps: range) -> Iterator[Batch]:
        """Yield the batches of ``steps``; unlabelled patches are loaded once the method wants them."""
        labelled, unlabelled = data.batch["labelled"], data.batch["unlabelled"]
        alone = batches(data.of_batch(labelled, 0), steps, self.workers)
        while self.place.step < steps.stop and not self.method.wants_unlabelled(self._progress()):
            yield next(alone)
        del alone  # and with it its processes
        joint = data.of_batch(*self.method.joint_batch(self.place.stage, labelled, unlabelled)) if unlabelled else data
        yield from batches(joint, range(self.place.step, steps.stop), self.workers)

    def _steps_of(self, limit: TimeLimit) -> int:
        step, spent = self.place.step, self.place.stage_seconds
        limit.advance(step)
        if limit.due(step):
            # All ranks must agree on the last step, so the first one's clock counts.
            steps, spent = self.fabric.broadcast((limit.estimate(step, spent), spent))
            limit.plan(step, int(steps), spent)
        return limit.steps

    def _due(self, what: str, times: int, before: float, share: float) -> bool:
        """Whether it is time for ``what`` again, ``times`` over a training of which a share lies ``before`` this stage.

        With a limit of time the clock counts, not the steps: their number is an estimate, which may be passed twice.
        """
        place, steps = self.place, self.stage_steps
        last = place.step >= steps and before + share > 1 - 1e-6
        over = min(self.limit.share, 1.0) if self.limit else place.step / steps
        now = times if last else min(math.floor(times * (before + share * over) + 1e-6), times - 1)
        due = now > place.times.get(what, 0)
        place.times[what] = max(now, place.times.get(what, 0))
        return due

    def _validate(self) -> None:
        if not self.prepared.split.validation:
            return
        cases, plan, dataset = self.prepared.split.validation, self.prepared.plan, self.prepared.dataset
        rank, world = self.fabric.global_rank, self.fabric.world_size
        self.method.eval()
        with torch.inference_mode(), self.fabric.autocast():
            own = {
                i: validate_case(self._window, self.prepared.store, plan, cases[i], dataset.num_classes)
                for i in range(rank, len(cases), world)
            }
        self.method.train()
        table = np.full((len(cases), dataset.num_classes - 1), 0.0)
        for i, dice in own.items():
            table[i] = np.where(np.isnan(dice), -9.0, dice)
        table = self.fabric.all_reduce(torch.from_numpy(table), reduce_op="sum").cpu().numpy()
        mean, per_class = mean_dice(list(np.where(table < -1, np.nan, table)))
        if self.first:
            row = {"step": self.place.steps_done, "seconds": round(self.place.seconds, 2), "mean_dice": round(mean, 5)}
            names = dataset.class_names[1:]
            self.validation.add(row | {f"dice {n}": round(d, 5) for n, d in zip(names, per_class, strict=True)})
            self._to_loggers({"validation/mean_dice": mean})
        if mean > self.place.best:
            self.place.best = mean
            self._save("best.pt", [])

    def _window(self, windows: torch.Tensor) -> torch.Tensor:
        return self.method.predict(windows.to(self.fabric.device))

    def _write_log(self, optimisers: list[Any]) -> None:
        terms = self.means.take(self._shared)
        self._require_numbers(terms["loss"])
        if self.first:
            rate = optimisers[0].param_groups[0]["lr"]
            row = {"step": self.place.steps_done, "seconds": round(self.place.seconds, 2), "lr": f"{rate:.6g}"}
            self.log.add(row | {name: f"{value:.6g}" for name, value in terms.items()})
            self._to_loggers({f"train/{n}": v for n, v in terms.items()})

    def _shared(self, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        shared: dict[str, torch.Tensor] = self.fabric.all_reduce(terms, reduce_op="mean")
        return {name: value.cpu() for name, value in shared.items()}

    def _to_loggers(self, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, step=self.place.steps_done)

    def _require_numbers(self, *values: Any) -> None:
        if not all(torch.as_tensor(value).isfinite().all() for value in values):
            raise UserError(
                f"{self.run}: the loss is no number any more at step {self.place.step}; start a new run with a lower "
                "learning_rate (--set learning_rate=...), from this one's last checkpoint with --init if you like"
            )

    def _save(self, name: str, optimisers: list[Any]) -> None:
        self._require_numbers(*self.method.state_dict().values())  # or the run could never be gone on with
        means = self._shared(self.means.state())
        self.fabric.barrier()
        if not self.first:
            return
        state = {
            **self.describe,
            "place": dict(vars(self.place)),
            "model": self.method.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "external": self.method.external_state(),
            "means": means,
        }
        save_checkpoint(self.run / name, state)
