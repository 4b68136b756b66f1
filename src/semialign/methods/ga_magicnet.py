"""GA-MagicNet (ECCV 2024): MagicNet with the gradient-aware losses."""

from dataclasses import dataclass

from torch import Tensor

from semialign.losses.gradient_aware import ga_ce, ga_dice, require_ga
from semialign.methods.magicnet import MagicNet, MagicNetSettings


@dataclass(frozen=True)
class GradientAwareMagicNetSettings(MagicNetSettings):
    """Settings of ``ga-magicnet``: those of ``magicnet``, and those of the gradient-aware losses."""

    keep_labelled: float = 10.0
    """Percentage of annotated voxels, those of largest cross-entropy, that the supervised cross-entropy is of."""
    gamma: float = 0.5
    """Exponent of the kept voxels' number in each class's divisor: 0 weighs classes alike, 1 voxels alike."""


class GradientAwareMagicNet(MagicNet):
    """MagicNet with GACE and GADice in place of cross-entropy and Dice."""

    Settings = GradientAwareMagicNetSettings
    settings: GradientAwareMagicNetSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        require_ga(gamma=self.settings.gamma, keep_labelled=self.settings.keep_labelled)

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return ``GACE(keep_labelled)``."""
        return ga_ce(logits, label, keep=self.settings.keep_labelled, gamma=self.settings.gamma)

    def overlap(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return GADice."""
        return ga_dice(logits, label)
