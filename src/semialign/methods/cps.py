"""Cross pseudo supervision (CPS, Chen et al., CVPR 2021) for segmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.data.transforms import strong
from semialign.losses.segmentation import cross_entropy, dice_ce
from semialign.methods.learnt import LabelsFirst, Learnt

NAMES = ("first", "second")


@dataclass(frozen=True)
class CrossPseudoSettings:
    """Settings of ``cps``."""

    weight: float = 0.1
    """Of the cross supervision, at the end of its ramp-up."""
    start: float = 0.7
    """Share of the run that trains on labels alone, where a step costs a third or less of what it costs later."""
    learnt: float | None = 0.15
    """Loss on labels ((CE + Dice) / 2, running mean) that ends the part on labels alone; null: ``start`` alone does."""
    learnt_epochs: float | None = 500.0
    """Times that each network has seen every labelled voxel, on average, which end that part too."""
    apart: bool = True
    """Whether in that part the networks take turns, one a step, which makes a step cheaper; else both learn in every
    step, as published."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up after the start (default: 0.4 of what is left of the run)."""
    on_labelled: bool = False
    """Whether the networks supervise each other on labelled patches too, as the paper does (SSL4MIS does not)."""
    strong: bool = False
    """Whether the networks see their unlabelled patches under strong intensity augmentation."""


class CrossPseudoSupervision(LabelsFirst):
    """Two networks, started differently; each learns labels and the other's hard predictions."""

    starts: ClassVar[tuple[str, str]] = ("kaiming", "xavier")
    may_rest = True
    Settings = CrossPseudoSettings
    settings: CrossPseudoSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.first = self.student(self.starts[0])
        self.second = self.student(self.starts[1])
        self.learnt = Learnt(self.settings.learnt, self.settings.learnt_epochs)
        self.share_of_labels = 0.5 if self.settings.apart else 1.0

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return both supervised losses and the cross supervision of both networks, or the loss of one's turn."""
        labelled, ramp = len(batch.image_l), self.ramp(progress)
        if self.settings.apart and not ramp:
            return self.turn(batch, progress)
        weak = batch.image_u if ramp else batch.image_u[:0]
        image = torch.cat([batch.image_l, strong(weak) if self.settings.strong else weak])
        networks = (self.first, self.second)
        outputs = [network(image) for network in networks]
        self.weigh(outputs, batch)
        on_labels = [output.logits[:labelled] for output in outputs]
        supervised = [self.supervised_loss(logits, batch.label_l, i) for i, logits in enumerate(on_labels)]
        self.learnt.see(lambda: self.watched(on_labels, batch.label_l, supervised), progress)
        losses = {f"supervised {name}": loss for name, loss in zip(NAMES, supervised, strict=True)}
        unlabelled = torch.full((len(weak), *weak.shape[2:]), -1, device=weak.device)
        label = torch.cat([batch.label_l, unlabelled])
        views = [View(NAMES[i], networks[i], image, outputs[i], label) for i in range(2)]
        log: dict[str, float | Tensor] = {}
        start = 0 if self.settings.on_labelled else labelled
        if ramp and len(image) > start:
            log["ramp"] = ramp
            one, other = (output.logits[start:] for output in outputs)
            labels = batch.label_l[start:]
            cross = self.cross_loss(one, self.pseudo_labels(other, labels), 0)
            cross = cross + self.cross_loss(other, self.pseudo_labels(one, labels), 1)
            losses["cross"] = self.settings.weight * log["ramp"] * cross
        return StepOutput(losses, views, log)

    def turn(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised loss of the network whose turn it is; the other one rests."""
        which = progress.step % 2
        network, image, label = (self.first, self.second)[which], batch.image_l, batch.label_l
        output = network(image)
        loss = self.supervised_loss(output.logits, label, which)
        self.learnt.see(lambda: self.watched([output.logits], label, [loss]), progress)
        return StepOutput({f"supervised {NAMES[which]}": loss}, [View(NAMES[which], network, image, output, label)], {})

    def weigh(self, outputs: Sequence[Output], batch: Batch) -> None:
        """Weigh classes by both networks' ``outputs`` before the losses; here all weigh the same."""

    def supervised_loss(self, logits: Tensor, label: Tensor, which: int) -> Tensor:
        """Return the loss of the logits (L, C, *S) of network ``which``, 0 or 1, at ``label`` (L, *S)."""
        return dice_ce(logits, label)

    def cross_loss(self, logits: Tensor, pseudo: Tensor, which: int) -> Tensor:
        """Return the loss of the logits (B, C, *S) of network ``which`` at the other's ``pseudo`` labels (B, *S)."""
        return cross_entropy(logits, pseudo)

    def watched(self, logits: Sequence[Tensor], label: Tensor, supervised: Sequence[Tensor]) -> Tensor:
        """Return the loss that tells whether labels are learnt, of the ``logits`` of one or both networks at them."""
        return torch.stack(list(supervised)).mean()

    def pseudo_labels(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the hard prediction (B, *S) of ``logits`` (B, C, *S); the first patches are those of ``label``."""
        return logits.argmax(1)

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the mean of both networks' logits."""
        mean: Tensor = (self.first(image).logits.float() + self.second(image).logits.float()) / 2
        return mean.softmax(1)


def annotated_prediction(logits: Tensor, label: Tensor) -> Tensor:
    """Return the hard prediction (B, *S) of ``logits``; the first patches are those of ``label`` (L, *S).

    It is -1 where one of these is not annotated, which may lie outside the image.
    """
    pseudo = logits.argmax(1)
    pseudo[: len(label)].masked_fill_(label < 0, -1)
    return pseudo
