"""Labels only: the floor every semi-supervised method must beat, and, with every label, the ceiling."""

from dataclasses import dataclass

from torch import Tensor

from semialign.common.errors import require_known
from semialign.common.types import Batch, Progress, StepOutput, View
from semialign.losses.gradient_aware import ga_loss, kept_at, require_ga
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method, StageSettings


@dataclass(frozen=True)
class SupervisedSettings:
    """Settings of ``supervised``."""

    loss: str = "dice-ce"
    """``dice-ce`` ((CE + Dice) / 2) or ``ga`` (GACE + GADice, the gradient-aware losses of ``ga-cps``)."""
    keep: float = 10.0
    """``ga``: percentage of annotated voxels, those of largest cross-entropy, that the cross-entropy is of."""
    keep_start: float = 100.0
    """``ga``: that percentage at the first step, from which it falls by one factor a step to ``keep`` at the last."""
    gamma: float = 0.5
    """``ga``: exponent of the kept voxels' number in each class's divisor: 0 weighs classes alike, 1 voxels alike."""


class Supervised(Method):
    """Cross-entropy and Dice on the labelled patches; unlabelled images are not loaded."""

    Settings = SupervisedSettings
    settings: SupervisedSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        require_known(self.settings.loss, ("dice-ce", "ga"), "loss")
        own = self.settings
        require_ga(gamma=own.gamma, keep=own.keep, keep_start=own.keep_start)
        self.network = self.student()

    def stage_settings(self, stage: str) -> StageSettings:
        """Ask for no unlabelled patches."""
        return StageSettings(uses_unlabelled=False)

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised loss."""
        output = self.network(batch.image_l)
        view = View("network", self.network, batch.image_l, output, batch.label_l)
        return StepOutput({"supervised": self.supervised_loss(output.logits, batch.label_l, progress)}, [view], {})

    def supervised_loss(self, logits: Tensor, label: Tensor, progress: Progress) -> Tensor:
        """Return the loss of ``logits`` (L, C, *S) at ``label`` (L, *S)."""
        own = self.settings
        if own.loss == "ga":
            return ga_loss(logits, label, keep=kept_at(progress, own.keep_start, own.keep), gamma=own.gamma)
        return dice_ce(logits, label)

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the network's logits."""
        probabilities: Tensor = self.network(image).logits.float().softmax(1)
        return probabilities
