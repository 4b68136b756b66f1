"""GA-MagicNet (ECCV 2024): MagicNet with the gradient-aware losses."""

from dataclasses import dataclass

from torch import Tensor

from semialign.common.types import Batch, Progress, StepOutput
from semialign.losses.gradient_aware import ga_ce, ga_dice, kept_at, require_ga
from semialign.methods.magicnet import MagicNet, MagicNetSettings


@dataclass(frozen=True)
class GradientAwareMagicNetSettings(MagicNetSettings):
    """Settings of ``ga-magicnet``: those of ``magicnet``, and those of the gradient-aware losses."""

    keep_labelled: float = 10.0
    """Percentage of annotated voxels, those of largest cross-entropy, that the supervised cross-entropy is of."""
    keep_start: float = 100.0
    """That percentage at the first step, from which it falls by one factor a step to the other at the last."""
    gamma: float = 0.5
    """Exponent of the kept voxels' number in each class's divisor: 0 weighs classes alike, 1 voxels alike."""


class GradientAwareMagicNet(MagicNet):
    """MagicNet with GACE and GADice in place of cross-entropy and Dice."""

    Settings = GradientAwareMagicNetSettings
    settings: GradientAwareMagicNetSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        own = self.settings
        require_ga(gamma=own.gamma, keep_labelled=own.keep_labelled, keep_start=own.keep_start)
        self._keep = own.keep_start

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return what ``magicnet`` does, with a cross-entropy of this step's share of voxels."""
        self._keep = kept_at(progress, self.settings.keep_start, self.settings.keep_labelled)
        return super().losses(batch, progress)

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return ``GACE(keep)``."""
        return ga_ce(logits, label, keep=self._keep, gamma=self.settings.gamma)

    def overlap(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return GADice."""
        return ga_dice(logits, label)
