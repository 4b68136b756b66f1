"""Mean teacher (Tarvainen and Valpola, NeurIPS 2017) for segmentation; by default with CutMix and pseudo-labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.ema import ema_decay, frozen_copy, update_ema
from semialign.common.errors import require_known
from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.data.transforms import random_cuboid, strong
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import lean_batch
from semialign.methods.learnt import LabelsFirst, Learnt


@dataclass(frozen=True)
class MeanTeacherSettings:
    """Settings of ``mean-teacher``; the recipe ``mean-teacher-classic`` has the published ones."""

    weight: float = 1.0
    """Of the consistency, at the end of its ramp-up."""
    start: float = 0.5
    """Share of the run that trains on labels alone: a teacher that knows nothing teaches nothing, and costs time."""
    learnt: float | None = 0.15
    """Supervised loss (running mean) that ends the part on labels alone; null: ``start`` alone does."""
    learnt_epochs: float | None = 500.0
    """Times that every labelled voxel has been seen, on average, which end that part too, whatever the loss."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up after the start (default: 0.4 of what is left of the run)."""
    consistency: str = "pseudo-label"
    """``pseudo-label`` ((CE + Dice) / 2 to the class the teacher is sure of) or ``squared-error`` of the softmax."""
    confidence: float = 0.9
    """``pseudo-label``: the teacher's probability from which a voxel counts."""
    lean: bool | None = None
    """Whether unlabelled patches, once they count, take the place of half of the labelled ones (default: in 3D)."""
    mix: float | None = None
    """Probability that a cuboid comes from another patch, target and all: CutMix (default: 1, volumes 0)."""
    strong: bool = True
    """Whether the student sees its unlabelled patches under strong intensity augmentation."""
    flips: bool | None = None
    """Whether the teacher sees its unlabelled patches flipped along axes drawn anew every step (default: in 3D)."""
    noise: float = 0.1
    """Standard deviation of the noise the teacher's image gets, clamped at twice that."""
    ema_decay: float | None = None
    """Of the teacher's weights (default: 1 - 25/steps, from 0.9 to 0.999); lower at first: ``min(1 - 1/(t+2), it)``."""
    predict_with: str = "teacher"
    """``teacher`` or ``student``."""


class MeanTeacher(LabelsFirst):
    """``0.5 (CE + Dice)`` on labels, and agreement with the moving average's predictions on unlabelled patches."""

    Settings = MeanTeacherSettings
    settings: MeanTeacherSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        require_known(self.settings.predict_with, ("teacher", "student"), "predict_with")
        require_known(self.settings.consistency, ("pseudo-label", "squared-error"), "consistency")
        self.network = self.student()
        self.teacher = frozen_copy(self.network)
        self.learnt = Learnt(self.settings.learnt, self.settings.learnt_epochs)

    def joint_batch(self, stage: str, labelled: int, unlabelled: int) -> tuple[int, int]:
        """Return how many patches of either kind a step has once unlabelled ones count."""
        return lean_batch(labelled, unlabelled) if self.chosen(self.settings.lean) else (labelled, unlabelled)

    def chosen(self, setting: bool | None) -> bool:
        """Return ``setting``, or where it is open whether patches are volumes: polyps fared far worse with both."""
        if setting is not None:
            return setting
        return self.plan is not None and len(self.plan.patch_size) == 3

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised and the consistency loss."""
        labelled, settings = len(batch.image_l), self.settings
        ramp = self.ramp(progress)
        weak = batch.image_u if ramp else batch.image_u[:0]
        seen = strong(weak) if settings.strong else weak
        # Scans are cropped and turned alike: where a structure lies tells what it is, and mixing unteaches that.
        mix = float(weak.ndim == 4) if settings.mix is None else settings.mix
        cuboid = random_cuboid(weak) if len(weak) > 1 and mix and torch.rand(()) < mix else None
        image = torch.cat([batch.image_l, mixed(seen, cuboid)])
        output: Output = self.network(image)
        unlabelled = torch.full((len(weak), *image.shape[2:]), -1, device=image.device)
        view = View("student", self.network, image, output, torch.cat([batch.label_l, unlabelled]))
        log: dict[str, float | Tensor] = {}
        losses = {"supervised": dice_ce(output.logits[:labelled], batch.label_l)}
        self.learnt.see(lambda: losses["supervised"], progress)
        if len(weak):
            dims = self.flipped_dims()
            both = self.targets(weak.flip(dims), progress)
            target, sure = (mixed(values.flip(dims), cuboid) for values in both)
            losses["consistency"] = settings.weight * ramp * self.consistency(output.logits[labelled:], target, sure)
            log = {"ramp": ramp, "sure": sure.mean()}
        return StepOutput(losses, [view], log)

    def flipped_dims(self) -> list[int]:
        """Return the dimensions of a batch (B, C, *S) along which the teacher sees this step's patches flipped."""
        axes = self.plan.mirror_axes if self.plan is not None and self.chosen(self.settings.flips) else ()
        return [2 + axis for axis in axes if torch.rand(()) < 0.5]

    @torch.no_grad()
    def targets(self, weak: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return the teacher's probabilities (U, C, *S) of the weak images and where they count (U, 1, *S), 0 or 1."""
        target = self.teacher(noisy(weak, self.settings.noise)).logits.float().softmax(1)
        limit = self.settings.confidence if self.settings.consistency == "pseudo-label" else 0.0
        return target, (target.amax(1, keepdim=True) >= limit).float()

    def consistency(self, logits: Tensor, target: Tensor, sure: Tensor) -> Tensor:
        """Return the loss of ``logits`` to ``target`` where ``sure``; squared: ``sum(sure err) / (C sum sure)``."""
        if self.settings.consistency == "pseudo-label":
            return dice_ce(logits, torch.where(sure[:, 0] > 0, target.argmax(1), -1))
        error = (logits.float().softmax(1) - target).square()
        return (sure * error).sum() / (error.shape[1] * sure.sum() + 1e-16)

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the student."""
        update_ema(self.teacher, self.network, ema_decay(self.settings.ema_decay, progress.step, progress.max_steps))

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the teacher's (or student's) logits."""
        network = self.teacher if self.settings.predict_with == "teacher" else self.network
        return network(image).logits.float().softmax(1)


def mixed(values: Tensor, cuboid: Tensor | None) -> Tensor:
    """Return ``values`` (U, ..., *S) with each sample's ``cuboid`` (*S) replaced by the sample before it."""
    return values if cuboid is None else torch.where(cuboid, values.roll(1, 0), values)


def noisy(image: Tensor, deviation: float) -> Tensor:
    """Return ``image + clamp(deviation N(0, 1), +-2 deviation)``."""
    return image + (deviation * torch.randn_like(image)).clamp(-2 * deviation, 2 * deviation)
