"""Gradient-aware cross pseudo supervision (GA-CPS, ECCV 2024): CPS with losses that rare classes count in."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.types import Batch, Progress, StepOutput
from semialign.losses.gradient_aware import ga_ce, ga_loss, kept_at, require_ga
from semialign.losses.segmentation import dice_ce
from semialign.methods.cps import CrossPseudoSettings, CrossPseudoSupervision, annotated_prediction


@dataclass(frozen=True)
class GradientAwareCrossPseudoSettings(CrossPseudoSettings):
    """Settings of ``ga-cps``: those of ``cps``, and those of the gradient-aware losses."""

    learnt: float | None = 0.25
    """As in ``cps``; higher, as losses that the worst voxels lead leave ``(CE + Dice) / 2`` higher."""
    on_labelled: bool = True
    """Whether the networks supervise each other on labelled patches too, as the paper does."""
    keep_labelled: float = 10.0
    """Percentage of annotated voxels, those of largest cross-entropy, that the supervised cross-entropy is of."""
    keep_start: float = 100.0
    """That percentage at the first step, from which it falls by one factor a step to the other at the last."""
    keep_pseudo: float = 100.0
    """Percentage of voxels that the cross-entropy to pseudo-labels is of."""
    gamma: float = 0.5
    """Exponent of the kept voxels' number in each class's divisor: 0 weighs classes alike, 1 voxels alike."""


class GradientAwareCrossPseudoSupervision(CrossPseudoSupervision):
    """CPS with ``GACE + GADice`` on labels and GACE to the other network's hard predictions."""

    Settings = GradientAwareCrossPseudoSettings
    settings: GradientAwareCrossPseudoSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        own = self.settings
        keep = {name: getattr(own, name) for name in ("keep_labelled", "keep_start", "keep_pseudo")}
        require_ga(gamma=own.gamma, **keep)
        self._keep = own.keep_start

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return what ``cps`` does, with the supervised losses of this step's share of voxels."""
        self._keep = kept_at(progress, self.settings.keep_start, self.settings.keep_labelled)
        return super().losses(batch, progress)

    def supervised_loss(self, logits: Tensor, label: Tensor, which: int) -> Tensor:
        """Return ``GACE(keep) + GADice``."""
        return ga_loss(logits, label, keep=self._keep, gamma=self.settings.gamma)

    def watched(self, logits: Sequence[Tensor], label: Tensor, supervised: Sequence[Tensor]) -> Tensor:
        """Return the loss of ``cps``: the gradient-aware one is of the hardest voxels, and has no common scale."""
        return torch.stack([dice_ce(one, label) for one in logits]).mean()

    def cross_loss(self, logits: Tensor, pseudo: Tensor, which: int) -> Tensor:
        """Return ``GACE(keep_pseudo)``."""
        return ga_ce(logits, pseudo, keep=self.settings.keep_pseudo, gamma=self.settings.gamma)

    def pseudo_labels(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the hard prediction, -1 where a labelled patch is not annotated."""
        return annotated_prediction(logits, label)
