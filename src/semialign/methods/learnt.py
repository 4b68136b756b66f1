"""Labels first: whether a network has learnt them, and methods that use unlabelled patches only then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semialign.common.ranks import mean_of_ranks
from semialign.common.schedules import ramp_of
from semialign.common.types import Progress
from semialign.data.loader import TwoStream
from semialign.methods.base import Method


class Learnt(nn.Module):
    """Watches a supervised loss until its running mean reaches ``limit``; with none, all is learnt from the start.

    The mean is over some fiftieth of the run and, in training by several processes, over all of them. Once the labels
    have been seen ``epochs`` times they count as learnt, whatever the loss: what they could teach, they have taught.
    """

    mean: Tensor
    step: Tensor

    def __init__(self, limit: float | None, epochs: float | None = None) -> None:
        super().__init__()
        self.limit, self.epochs = limit, epochs
        self.epochs_a_step = 0.0
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.forget()

    def forget(self) -> None:
        """Start anew: weights that come from another run are watched like any."""
        self._since: int | None = None
        self.step.fill_(0 if self.limit is None else -1)

    def since(self) -> int | None:
        """Return the first step after the limit was reached; ``None`` before."""
        if self._since is None:  # asked of the device only until it is known
            step = int(self.step)
            self._since = step if step >= 0 else None
        return self._since

    @torch.no_grad()
    def see(self, loss: Callable[[], Tensor], progress: Progress) -> None:
        """Take in the loss on labels, a scalar, of the step at ``progress``; it is asked for while it matters."""
        if self.limit is None or self.since() is not None:
            return
        shared = mean_of_ranks(loss().detach().float().clone())
        self.mean.lerp_(shared, max(1 / (progress.step + 1), min(50 / progress.max_steps, 0.1)))
        seen = (progress.step + 1) * self.epochs_a_step
        if float(self.mean) <= self.limit or (self.epochs is not None and seen >= self.epochs):
            self.step.fill_(progress.step + 1)

    def closing_note(self) -> str | None:
        """Tell at the end of a run that the limit was never reached, and unlabelled patches never used."""
        if self.since() is not None:
            return None
        return (
            f"the unlabelled cases were not used: the labels were not learnt in this time (supervised loss "
            f"{float(self.mean):.2f}, learnt={self.limit:g}) nor seen often enough; train longer, or set learnt=null"
        )


class LabelsFirst(Method):
    """A method that trains on labels alone until they are learnt; its settings have ``start`` and ``rampup_steps``."""

    learnt: Learnt
    share_of_labels = 1.0  # of a step's labelled patches, that one network learns while labels alone train

    def begin_stage(self, stage: str, step: int, data: TwoStream, folder: Path) -> None:
        """Watch a new run's loss from its first step on, also where its weights are another run's."""
        if self.learnt.limit is not None:
            self.learnt.epochs_a_step = data.label_epochs() * self.share_of_labels
        if step == 0:
            self.learnt.forget()

    def ramp(self, progress: Progress) -> float:
        """Return the ramp-up of what unlabelled patches teach: 0 before the start and until the labels are learnt."""
        own: Any = self.settings
        learnt = self.learnt.since()
        return 0.0 if learnt is None else ramp_of(own.rampup_steps, progress, own.start, not_before=learnt)

    def wants_unlabelled(self, progress: Progress) -> bool:
        """Whether unlabelled patches count yet."""
        return self.ramp(progress) > 0

    def closing_note(self) -> str | None:
        """Tell where the unlabelled patches were never used."""
        return self.learnt.closing_note()
