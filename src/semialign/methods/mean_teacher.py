"""Mean teacher (Tarvainen and Valpola, NeurIPS 2017) for segmentation, as UA-MT and SSL4MIS use it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.ema import frozen_copy, update_ema
from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.data.transforms import strong
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method


@dataclass(frozen=True)
class MeanTeacherSettings:
    """Settings of ``mean-teacher``."""

    weight: float = 0.1
    """Of the consistency, at the end of its ramp-up."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up (default: 0.4 of the run)."""
    ema_decay: float = 0.99
    """Of the teacher's weights; it starts lower, as ``min(1 - 1/(t+1), ema_decay)``."""
    strong: bool = True
    """Whether the student sees its unlabelled patches under strong intensity augmentation."""
    noise: float = 0.1
    """Standard deviation of the noise the teacher's image gets, clamped at twice that."""
    predict_with: str = "teacher"
    """``teacher`` or ``student``."""


class MeanTeacher(Method):
    """``0.5 (CE + Dice)`` on labels, and squared error of the softmax to the teacher's on unlabelled patches."""

    Settings = MeanTeacherSettings
    settings: MeanTeacherSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.network = self.student()
        self.teacher = frozen_copy(self.network)

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised and the consistency loss."""
        labelled = len(batch.image_l)
        weak = batch.image_u
        image = torch.cat([batch.image_l, strong(weak) if self.settings.strong else weak])
        output: Output = self.network(image)
        supervised = dice_ce(output.logits[:labelled], batch.label_l)
        unlabelled = torch.full((len(weak), *image.shape[2:]), -1, device=image.device)
        view = View("student", self.network, image, output, torch.cat([batch.label_l, unlabelled]))
        losses, log = {"supervised": supervised}, {}
        if len(weak):
            ramp = ramp_of(self.settings.rampup_steps, progress)
            losses["consistency"] = (
                self.settings.weight * ramp * self.consistency(output.logits[labelled:], weak, progress)
            )
            log["ramp"] = ramp
        return StepOutput(losses, [view], log)

    def consistency(self, logits: Tensor, weak: Tensor, progress: Progress) -> Tensor:
        """Return the mean squared error of the student's softmax to the teacher's, over voxels and classes."""
        with torch.no_grad():
            target = self.teacher(noisy(weak, self.settings.noise)).logits.float().softmax(1)
        return (logits.float().softmax(1) - target).square().mean()

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        decay = min(1 - 1 / (progress.step + 2), self.settings.ema_decay)
        update_ema(self.teacher, self.network, decay)

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the teacher's (or student's) logits."""
        network = self.teacher if self.settings.predict_with == "teacher" else self.network
        return network(image).logits.float().softmax(1)


def noisy(image: Tensor, deviation: float) -> Tensor:
    """Return ``image + clamp(deviation N(0, 1), +-2 deviation)``."""
    return image + (deviation * torch.randn_like(image)).clamp(-2 * deviation, 2 * deviation)


def ramp_of(rampup_steps: int | None, progress: Progress) -> float:
    """Return the ramp-up at ``progress``, over 0.4 of the run where ``rampup_steps`` is not given."""
    return sigmoid_rampup(progress.step, 0.4 * progress.max_steps if rampup_steps is None else rampup_steps)
