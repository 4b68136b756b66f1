"""Uncertainty-aware mean teacher (UA-MT, Yu et al., MICCAI 2019)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Progress
from semialign.methods.mean_teacher import MeanTeacher, MeanTeacherSettings, noisy


@dataclass(frozen=True)
class UncertaintyAwareSettings(MeanTeacherSettings):
    """Settings of ``ua-mt``: the mean teacher's, as published, and the number of passes."""

    weight: float = 0.1
    """Of the consistency, at the end of its ramp-up."""
    start: float = 0.0
    """Share of the run that trains on labels alone."""
    learnt: float | None = None
    """As the mean teacher's."""
    consistency: str = "squared-error"
    """As the mean teacher's."""
    confidence: float = 0.9
    """Of no use here: the entropy of the mean of ``passes`` tells where the teacher counts."""
    lean: bool | None = False
    """As the mean teacher's."""
    mix: float | None = 0.0
    """As the mean teacher's."""
    flips: bool | None = False
    """As the mean teacher's."""
    passes: int = 8
    """Noisy passes of the teacher whose mean softmax tells where it is sure."""


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Mean teacher whose consistency counts only voxels where the entropy of the teacher's mean softmax is low."""

    Settings = UncertaintyAwareSettings
    settings: UncertaintyAwareSettings

    @torch.no_grad()
    def targets(self, weak: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return one pass, and where the entropy of the mean of others is under ``(0.75 + 0.25 ramp) ln C``."""
        mean = torch.stack([self._teacher(weak) for _ in range(self.settings.passes)]).mean(0)
        entropy = -(mean * mean.clamp(min=1e-6).log()).sum(1, keepdim=True)
        share = 0.75 + 0.25 * sigmoid_rampup(progress.step, progress.max_steps)
        return self._teacher(weak), (entropy < share * math.log(mean.shape[1])).float()

    def _teacher(self, weak: Tensor) -> Tensor:
        probabilities: Tensor = self.teacher(noisy(weak, self.settings.noise)).logits.float().softmax(1)
        return probabilities
