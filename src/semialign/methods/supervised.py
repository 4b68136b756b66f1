"""Labels only: the floor every semi-supervised method must beat, and, with every label, the ceiling."""

from torch import Tensor

from semialign.common.types import Batch, Progress, StepOutput, View
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method, StageSettings


class Supervised(Method):
    """Cross-entropy and foreground Dice on the labelled patches; unlabelled images are not loaded."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.network = self.student()

    def stage_settings(self, stage: str) -> StageSettings:
        """Ask for no unlabelled patches."""
        return StageSettings(uses_unlabelled=False)

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the supervised loss ``(CE + Dice) / 2``."""
        output = self.network(batch.image_l)
        view = View("network", self.network, batch.image_l, output, batch.label_l)
        return StepOutput({"supervised": dice_ce(output.logits, batch.label_l)}, [view], {})

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the network's logits."""
        probabilities: Tensor = self.network(image).logits.float().softmax(1)
        return probabilities
