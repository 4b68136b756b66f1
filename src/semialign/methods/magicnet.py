"""MagicNet (Chen et al., CVPR 2023): cubes exchanged between scans, cubes seen alone, and where a cube lies."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.cubes import cube_counts, exchanged, from_cubes, padded, random_order, to_cubes
from semialign.common.ema import ema_decay, frozen_copy, update_ema
from semialign.common.errors import UserError, require_known
from semialign.common.ranks import sum_of_ranks
from semialign.common.schedules import ramp_of
from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.losses.dice import soft_dice
from semialign.losses.segmentation import cross_entropy
from semialign.methods.base import Method
from semialign.methods.mean_teacher import noisy
from semialign.networks.place_head import place_head


@dataclass(frozen=True)
class MagicNetSettings:
    """Settings of ``magicnet``."""

    weight: float = 0.1
    """Of the pseudo-label loss, at the end of its ramp-up."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up (default: 0.4 of the run)."""
    cubes: int = 3
    """Cubes along each axis; along an axis that it does not divide, the largest smaller number that does."""
    location_weight: float = 0.1
    """Of telling where a cube lies."""
    blend: bool = True
    """Whether pseudo-labels of frequent classes lean on what the student sees of each cube alone."""
    blend_start: int = 100
    """Steps before pseudo-labels are blended."""
    window: int = 20
    """Steps over which the classes of pseudo-labels are counted."""
    noise: float = 0.1
    """Standard deviation of the noise the teacher's image gets, clamped at twice that."""
    ema_decay: float | None = None
    """Of the teacher's weights (default: 1 - 25/steps, from 0.9 to 0.999); lower at first: ``min(1 - 1/(t+2), it)``."""
    predict_with: str = "student"
    """``teacher`` or ``student``."""


class MagicNet(Method):
    """Labels seen whole, recovered from exchanged cubes and from cubes alone; pseudo-labels on exchanged cubes."""

    Settings = MagicNetSettings
    settings: MagicNetSettings
    counts: Tensor
    frequency: Tensor

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        own = self.settings
        require_known(own.predict_with, ("teacher", "student"), "predict_with")
        for name, least in (("cubes", 2), ("window", 1), ("blend_start", 0)):
            if getattr(own, name) < least:
                raise UserError(f"{name} {getattr(own, name)}: must be at least {least}")
        self.network = self.student()
        self.teacher = frozen_copy(self.network)
        self.location = place_head(self.network, own.cubes)
        self.register_buffer("counts", torch.zeros(self.network.num_classes))
        self.register_buffer("frequency", torch.zeros(self.network.num_classes))
        self._seen: Tensor | None = None

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the losses on labels, of the cubes' places, and on pseudo-labels."""
        image, labelled, label = torch.cat([batch.image_l, batch.image_u]), len(batch.image_l), batch.label_l
        counts = cube_counts(image.shape[2:], self.settings.cubes)
        within, location = self.within(image, counts)
        recovered = self.across(image, counts)
        whole = image if len(self.plugins) else batch.image_l  # of unlabelled patches, the method asks for cubes alone
        output: Output = self.network(whole)
        parts = [self.overlap(logits[:labelled], label) for logits in (output.logits, recovered, within)]
        losses = {
            "supervised": (self.cross_entropy(output.logits[:labelled], label) + sum(parts)) / 4,
            "location": self.settings.location_weight * location,
        }
        log: dict[str, float | Tensor] = {}
        if len(batch.image_u):
            log["ramp"] = ramp = ramp_of(self.settings.rampup_steps, progress)
            pseudo, log["blended"] = self.pseudo_labels(batch.image_u, within[labelled:].detach(), progress)
            losses["pseudo"] = self.settings.weight * ramp * self.overlap(recovered[labelled:], pseudo)
        unlabelled = torch.full((len(whole) - labelled, *label.shape[1:]), -1, device=image.device)
        view = View("student", self.network, whole, output, torch.cat([label, unlabelled]))
        return StepOutput(losses, [view], log)

    def across(self, image: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Return logits (B, C, *S) recovered from features of images whose cubes were exchanged."""
        order = random_order(len(image), math.prod(counts), image.device)
        features = self.network.decode(self.network.encode(exchanged(image, counts, order)))
        logits: Tensor = self.network.head(exchanged(features, counts, order.argsort(0)))
        return logits

    def within(self, image: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return logits (B, C, *S) of cubes each seen alone, and the cross-entropy of telling their places."""
        cubes = to_cubes(image, counts)
        side = tuple(slice(n) for n in cubes.shape[3:])
        pyramid = self.network.encode(padded(cubes.flatten(0, 1), self.network.strides[-1]))
        features = self.network.decode(pyramid)[(slice(None), slice(None), *side)]
        logits: Tensor = self.network.head(from_cubes(features.unflatten(0, cubes.shape[:2]), counts))
        pool = F.adaptive_avg_pool2d if len(counts) == 2 else F.adaptive_avg_pool3d
        told = self.location(pool(pyramid[-1], 2).flatten(1))  # 2 an axis: the published bottleneck as it is
        places = torch.arange(cubes.shape[1], device=image.device).repeat(len(image))
        return logits, F.cross_entropy(told.float(), places)

    @torch.no_grad()
    def pseudo_labels(self, image: Tensor, cubewise: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
        """Return hard labels (U, *S) from the teacher and ``cubewise`` logits of ``image``, and the latter's weight."""
        logits = self.teacher(noisy(image, self.settings.noise)).logits.float()
        share = torch.zeros_like(logits[:, :1])
        if self.settings.blend and progress.step >= self.settings.blend_start:
            share = self.frequency[logits.argmax(1)][:, None]
        pseudo = ((1 - share) * logits + share * cubewise.float()).argmax(1)
        self._seen = sum_of_ranks(torch.bincount(pseudo.flatten(), minlength=logits.shape[1]).float())
        return pseudo, share.mean()

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy of ``logits`` (L, C, *S) at ``label`` (L, *S)."""
        return cross_entropy(logits, label)

    def overlap(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the Dice loss of ``logits`` (B, C, *S) at ``label`` (B, *S)."""
        return soft_dice(logits.float().softmax(1), label, squared=True, smooth=1e-10)

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the student; count the classes of pseudo-labels."""
        update_ema(self.teacher, self.network, ema_decay(self.settings.ema_decay, progress.step, progress.max_steps))
        if self._seen is not None:
            self.counts.add_(self._seen)
            self._seen = None
        if (progress.step + 1) % self.settings.window == 0:
            self.frequency.copy_(self.counts / self.counts.max().clamp(min=1))
            self.counts.zero_()

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the student's (or teacher's) logits."""
        network = self.teacher if self.settings.predict_with == "teacher" else self.network
        return network(image).logits.float().softmax(1)
