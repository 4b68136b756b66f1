"""DHC (Wang and Li, MICCAI 2023): two networks that label for each other, debiased by rarity and by difficulty."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.types import Batch, Output, Progress
from semialign.data.loader import TwoStream
from semialign.losses.class_weights import DifficultyWeights, DistributionWeights, class_counts
from semialign.losses.dice import soft_dice
from semialign.losses.segmentation import cross_entropy, dice_ce
from semialign.methods.cps import CrossPseudoSettings, CrossPseudoSupervision, annotated_prediction


@dataclass(frozen=True)
class DualDebiasedSettings(CrossPseudoSettings):
    """Settings of ``dhc``: those of ``cps``."""

    start: float = 0.3
    """Share of the run that trains on labels alone."""
    learnt: float | None = None
    """As in ``cps``; by default ``start`` alone counts, as published."""
    apart: bool = False
    """Must be false: the classes' weights come from both networks on the same patches."""
    on_labelled: bool = True
    """Whether the networks supervise each other on labelled patches too, as the paper does."""


class DualDebiased(CrossPseudoSupervision):
    """CPS whose first network weighs hard classes more (DiffDW) and whose second weighs rare ones more (DistDW)."""

    starts = ("kaiming", "kaiming")
    may_rest = False
    Settings = DualDebiasedSettings
    settings: DualDebiasedSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if self.settings.apart:
            raise UserError("dhc: apart must be false: the classes' weights come from both networks")
        self.difficulty = DifficultyWeights(self.first.num_classes)
        self.distribution = DistributionWeights(self.first.num_classes)
        self._next: tuple[Tensor, Tensor] | None = None

    def begin_stage(self, stage: str, step: int, data: TwoStream, folder: Path) -> None:
        """Start DistDW from the labels, and DiffDW anew: weights from another run knew other classes' difficulty."""
        super().begin_stage(stage, step, data, folder)
        if step == 0:
            self.difficulty.forget()
            self.distribution.seen(data.label_voxels(self.first.num_classes))

    @torch.no_grad()
    def weigh(self, outputs: Sequence[Output], batch: Batch) -> None:
        """Set this step's weights from the first network on labels and the second's pseudo-labels."""
        labelled, classes = len(batch.image_l), self.first.num_classes
        hard, state = self.difficulty.next(outputs[0].logits[:labelled].argmax(1), batch.label_l)
        pseudo = outputs[1].logits[labelled:].argmax(1)
        counts = class_counts(pseudo, classes) if len(pseudo) else None
        rare = self.distribution.next(counts, class_counts(batch.label_l, classes))
        self.weights, self._next = (hard, rare), (state, rare)

    def supervised_loss(self, logits: Tensor, label: Tensor, which: int) -> Tensor:
        """Return weighted cross-entropy and weighted Dice, over the foreground and the batch."""
        weights = self.weights[which]
        dice = soft_dice(logits.float().softmax(1), label, background=False, smooth=1.0, class_weights=weights)
        return cross_entropy(logits, label, class_weights=weights) + dice

    def watched(self, logits: Sequence[Tensor], label: Tensor, supervised: Sequence[Tensor]) -> Tensor:
        """Return the loss of ``cps``: the weighted one has no common scale."""
        return torch.stack([dice_ce(one, label) for one in logits]).mean()

    def cross_loss(self, logits: Tensor, pseudo: Tensor, which: int) -> Tensor:
        """Return the weighted cross-entropy."""
        return cross_entropy(logits, pseudo, class_weights=self.weights[which])

    def pseudo_labels(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the hard prediction, -1 where a labelled patch is not annotated."""
        return annotated_prediction(logits, label)

    def after_step(self, progress: Progress) -> None:
        """Keep what the weights of the next step are averaged with."""
        if self._next is not None:
            self.difficulty.keep(self._next[0])
            self.distribution.keep(self._next[1])
            self._next = None
