"""Bidirectional copy-paste (BCP, Bai et al., CVPR 2023): labelled and unlabelled patches in one another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.components import largest_components
from semialign.common.ema import ema_decay, frozen_copy, update_ema
from semialign.common.errors import UserError, require_known
from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.data.transforms import random_cuboid
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method, StageSettings
from semialign.methods.mean_teacher import mixed


@dataclass(frozen=True)
class CopyPasteSettings:
    """Settings of ``bcp``."""

    pretrain: float = 0.2
    """Share of the run that trains on labelled patches mixed with one another, before the teacher's time."""
    weight: float = 0.5
    """Of the pseudo-labelled region of a mixed patch; the labelled one weighs 1."""
    cuboid: float = 2 / 3
    """Side of the mixed cuboid, as a share of the patch's."""
    dice: str = "per-sample"
    """``per-sample`` (linear, of each sample and class; left atrium) or ``batch`` (squared denominators; ACDC)."""
    ema_decay: float | None = None
    """Of the teacher's weights (default: 1 - 25/steps, from 0.9 to 0.999); lower at first: ``min(1 - 1/(t+2), it)``."""
    predict_with: str = "student"
    """``teacher`` or ``student``."""


class CopyPaste(Method):
    """``(CE + Dice) / 2`` on both regions of mixed patches, after a stage on labels alone."""

    stages = ("pretrain", "train")
    Settings = CopyPasteSettings
    settings: CopyPasteSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        own = self.settings
        require_known(own.predict_with, ("teacher", "student"), "predict_with")
        require_known(own.dice, ("per-sample", "batch"), "dice")
        for name in ("pretrain", "cuboid"):
            if not 0 < getattr(own, name) < 1:
                raise UserError(f"{name} {getattr(own, name):g}: must be between 0 and 1")
        self.network = self.student()
        self.teacher = frozen_copy(self.network)

    def stage_settings(self, stage: str) -> StageSettings:
        """Share the run between the stages; the first loads no unlabelled patches."""
        share = self.settings.pretrain
        return StageSettings(share, uses_unlabelled=False) if stage == "pretrain" else StageSettings(1 - share)

    def joint_batch(self, stage: str, labelled: int, unlabelled: int) -> tuple[int, int]:
        """Return as many patches of either kind as are mixed: more unlabelled ones would be loaded for nothing."""
        return labelled, min(unlabelled, labelled + labelled % 2)

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the loss on mixed patches: of labelled ones alone, or of both kinds in one another."""
        if progress.stage == "pretrain" or not len(batch.image_u):
            cuboid = random_cuboid(batch.image_l, self.settings.cuboid)
            image, label = mixed(batch.image_l, cuboid), mixed(batch.label_l, cuboid)
            output: Output = self.network(image)
            loss = self.region_loss(output.logits, label)
            return StepOutput({"supervised": loss}, [View("student", self.network, image, output, label)], {})
        return self.both_ways(batch)

    def both_ways(self, batch: Batch) -> StepOutput:
        """Return the losses of labelled cuboids in unlabelled patches and of unlabelled ones in labelled patches."""
        cuboid = random_cuboid(batch.image_l, self.settings.cuboid)
        pairs = (len(batch.image_l) + 1) // 2
        image_l, label_l = (torch.cat([v[:pairs], v[-pairs:]]) for v in (batch.image_l, batch.label_l))
        which = torch.arange(2 * pairs) % len(batch.image_u)  # one that serves twice is labelled once
        image_u, pseudo = batch.image_u[which], self.pseudo_labels(batch.image_u[: 2 * pairs])[which]
        # The first half shows its labelled patch inside the cuboid, the second outside it.
        first = torch.arange(2 * pairs, device=cuboid.device).view(-1, *(1,) * cuboid.ndim) < pairs
        labelled = cuboid == first
        image = torch.where(labelled[:, None], image_l, image_u)
        output: Output = self.network(image)
        label, other = torch.where(labelled, label_l, -1), torch.where(labelled, -1, pseudo)
        halves = (slice(pairs), slice(pairs, None))
        losses = {
            name: factor * sum((self.region_loss(output.logits[h], target[h]) for h in halves), torch.zeros(()))
            for name, factor, target in (("supervised", 1.0, label), ("pseudo", self.settings.weight, other))
        }
        log: dict[str, float | Tensor] = {"foreground": (pseudo > 0).float().mean()}
        return StepOutput(losses, [View("student", self.network, image, output, label)], log)

    def region_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return ``(CE + Dice) / 2`` over the region where ``target`` (B, *S) is not -1."""
        batch = self.settings.dice == "batch"
        smooth = 1e-10 if batch else 1e-5
        return dice_ce(logits, target, squared=batch, per_sample=not batch, background=True, smooth=smooth)

    @torch.no_grad()
    def pseudo_labels(self, image: Tensor) -> Tensor:
        """Return the teacher's hard prediction (U, *S), of each class its largest component."""
        logits = self.teacher(image).logits
        return largest_components(logits.argmax(1), logits.shape[1])

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the student; it is the student until the second stage."""
        decay = ema_decay(self.settings.ema_decay, progress.step, progress.max_steps)
        update_ema(self.teacher, self.network, 0.0 if progress.stage == "pretrain" else decay)

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the student's (or teacher's) logits."""
        network = self.teacher if self.settings.predict_with == "teacher" else self.network
        probabilities: Tensor = network(image).logits.float().softmax(1)
        return probabilities
