"""From normalised images back to [-1, 1], the range that pretrained autoencoders know."""

import torch
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.data.plan import Normalisation, Plan


class UnitRange(nn.Module):
    """Maps images (B, C, H, W), normalised by the plan, to (B, 3, H, W) in [-1, 1]; grey ones are repeated.

    The ends are those of the usual intensities: a CT's window, a picture's 0.5 and 99.5 percentiles over all channels
    (so that colours stay), three standard deviations of a z-score. Raises :class:`UserError` for other than one or
    three channels. Without a plan images are taken to lie in [-1, 1].
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, plan: Plan | None) -> None:
        super().__init__()
        channels = (_AS_IT_IS,) if plan is None else plan.normalisation
        if len(channels) not in (1, 3):
            raise UserError(f"semigda: takes grey or RGB images, not {len(channels)} channels; leave some out")
        ends = [_ends(how) for how in channels]
        low, high = min(e[0] for e in ends), max(e[1] for e in ends)
        # x = std v + mean, then 2 (x - low) / (high - low) - 1.
        scale = 2 / (high - low)
        factor = [scale * how.std for how in channels]
        offset = [scale * (how.mean - low) - 1 for how in channels]
        # Of the plan, which a checkpoint holds anyway.
        self.register_buffer("factor", torch.tensor(factor).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image (B, C, H, W) to (B, 3, H, W) in [-1, 1]."""
        unit = (image.float() * self.factor + self.offset).clamp(-1, 1)
        return unit if unit.shape[1] == 3 else unit.expand(-1, 3, -1, -1).contiguous()


_AS_IT_IS = Normalisation("ct", low=-1.0, high=1.0)


def _ends(how: Normalisation) -> tuple[float, float]:
    """Return the intensities that become -1 and 1."""
    if how.low is None or how.high is None:
        return how.mean - 3 * how.std, how.mean + 3 * how.std
    if how.scheme == "picture":  # the plan's window is three times the usual range, centred on it
        third = (how.high - how.low) / 3
        return how.low + third, how.high - third
    return how.low, how.high
