"""The training loop: stages, schedule, clipping, checkpoints, validation and logs, on Lightning Fabric."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semialign.common.errors import UserError
from semialign.common.schedules import poly
from semialign.common.seeding import seed_step
from semialign.common.types import Progress
from semialign.config import TrainingSettings
from semialign.data.loader import TwoStream, batches
from semialign.data.prepare import Prepared
from semialign.methods.base import Method
from semialign.training.checkpoint import load_weights, save_checkpoint
from semialign.training.logs import CsvLog, Means
from semialign.training.validation import mean_dice, validate_case

RETIME = 20  # steps between new estimates of how many fit into the minutes


@dataclass
class Place:
    """Where a run stands: enough, with weights and optimisers, to go on from."""

    stage: str
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    steps_done: int = 0


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
        if self.first:
            until = self.place.steps_done if state else None
            self.log = CsvLog(run / "log.csv", until)
            self.validation = CsvLog(run / "validation.csv", until)

    def run_all(self) -> Place:
        """Run every stage that is left; returns where the run ended."""
        for stage in self.method.stages[self.method.stages.index(self.place.stage) :]:
            if stage != self.place.stage:
                self.place.stage, self.place.step = stage, 0
            self._run_stage(stage)
        return self.place

    def _run_stage(self, stage: str) -> None:
        asked, settings = self.method.stage_settings(stage), self.settings
        if asked.parameters is not None:
            for name, parameter in self.method.named_parameters():
                parameter.requires_grad_(name.startswith(asked.parameters))
        optimisers = self.method.optimisers(stage, settings)
        if self.state is not None:
            load_weights(self.method, self.state["model"], self.run / "last.pt")
            if self.state["place"]["stage"] == stage and self.place.step:
                for optimiser, saved in zip(optimisers, self.state["optimisers"], strict=True):
                    optimiser.load_state_dict(saved)
            self.state = None
        rates = [
            [group["initial_lr"] if "initial_lr" in group else group["lr"] for group in o.param_groups]
            for o in optimisers
        ]
        for optimiser, of_optimiser in zip(optimisers, rates, strict=True):
            for group, rate in zip(optimiser.param_groups, of_optimiser, strict=True):
                group["initial_lr"] = rate
        module, *wrapped = self.fabric.setup(self.method, *optimisers)
        budget = settings.minutes * 60 * asked.share if settings.minutes else None
        steps = max(1, round(settings.steps * asked.share))
        started, offset, means = time.monotonic(), self.place.seconds, Means()
        data = batches(
            self._data(stage, asked.uses_unlabelled), range(self.place.step, 2**40 if budget else steps), self.workers
        )
        module.train()
        for batch in data:
            step = self.place.step
            if budget is not None and step % RETIME == 0:
                steps = self._steps_left(step, time.monotonic() - started, offset, budget)
            means.add(self._step(module, wrapped, self.fabric.to_device(batch), Progress(stage, step, steps)))
            self.place.step, self.place.steps_done = step + 1, self.place.steps_done + 1
            self.place.seconds = offset + time.monotonic() - started
            done = self.place.step >= steps
            if self.place.step % settings.log_steps == 0 or done:
                self._write_log(means, wrapped)
                self.say(f"{stage}", self.place.step, steps)
            if self._due(self.place.step, steps, settings.validations) and self.prepared.split.validation:
                paused = time.monotonic()
                self._validate(module, wrapped)
                started += time.monotonic() - paused  # validating is not training
            if self.place.step % settings.checkpoint_steps == 0 or done:
                self._save("last.pt", wrapped)
            if done:
                break

    def _step(self, module: Any, optimisers: list[Any], batch: Any, progress: Progress) -> dict[str, torch.Tensor]:
        settings = self.settings
        seed_step(settings.seed, "step", progress.stage, progress.step, self.fabric.global_rank)
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

    def _data(self, stage: str, unlabelled: bool) -> TwoStream:
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
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )

    def _steps_left(self, step: int, elapsed: float, offset: float, budget: float) -> int:
        if step == 0:
            return RETIME * 50
        left = max(0.0, budget - offset - elapsed)
        # All ranks must agree on the last step, so the first one's clock counts.
        steps = step + max(1, round(left * step / max(offset + elapsed, 1e-6)))
        return int(self.fabric.broadcast(steps))

    def _due(self, step: int, steps: int, times: int) -> bool:
        return times > 0 and (step >= steps or step * times // steps > (step - 1) * times // steps)

    def _validate(self, module: Any, optimisers: list[Any]) -> None:
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

    def _write_log(self, means: Means, optimisers: list[Any]) -> None:
        terms = means.take()
        if not math.isfinite(terms["loss"]):
            raise UserError(
                f"{self.run}: the loss is no number any more at step {self.place.step}; "
                "lower learning_rate (--set learning_rate=...) and go on from the last checkpoint with --resume"
            )
        if self.first:
            rate = optimisers[0].param_groups[0]["lr"]
            row = {"step": self.place.steps_done, "seconds": round(self.place.seconds, 2), "lr": f"{rate:.6g}"}
            self.log.add(row | {name: f"{value:.6g}" for name, value in terms.items()})
            self._to_loggers({f"train/{n}": v for n, v in terms.items()})

    def _to_loggers(self, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, step=self.place.steps_done)

    def _save(self, name: str, optimisers: list[Any]) -> None:
        self.fabric.barrier()
        if not self.first:
            return
        state = {
            **self.describe,
            "place": dict(vars(self.place)),
            "model": self.method.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "external": self.method.external_state(),
        }
        save_checkpoint(self.run / name, state)
