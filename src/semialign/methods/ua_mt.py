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
    """Settings of ``ua-mt``: the mean teacher's, and the number of passes."""

    passes: int = 8
    """Noisy passes of the teacher whose mean softmax tells where it is sure."""


class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Mean teacher whose consistency counts only voxels where the entropy of the teacher's mean softmax is low."""

    Settings = UncertaintyAwareSettings
    settings: UncertaintyAwareSettings

    def consistency(self, logits: Tensor, weak: Tensor, progress: Progress) -> Tensor:
        """Return ``sum(mask sq_err) / (C sum mask)``, mask where the entropy is under ``(0.75 + 0.25 ramp) ln C``."""
        passes = [self._teacher(weak) for _ in range(self.settings.passes)]
        mean = torch.stack(passes).mean(0)
        entropy = -(mean * mean.clamp(min=1e-6).log()).sum(1, keepdim=True)
        classes = logits.shape[1]
        threshold = (0.75 + 0.25 * sigmoid_rampup(progress.step, progress.max_steps)) * math.log(classes)
        sure = (entropy < threshold).float()
        error = (logits.float().softmax(1) - self._teacher(weak)).square()
        return (sure * error).sum() / (classes * sure.sum() + 1e-16)

    @torch.no_grad()
    def _teacher(self, weak: Tensor) -> Tensor:
        probabilities: Tensor = self.teacher(noisy(weak, self.settings.noise)).logits.float().softmax(1)
        return probabilities
