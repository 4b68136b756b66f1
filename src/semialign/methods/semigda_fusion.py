"""How SemiGDA's two outputs become one prediction."""

import torch
from torch import Tensor, nn

from semialign.common.errors import require_known
from semialign.common.ranks import mean_of_ranks

_WINDOW = 50  # steps of the running means


class Fusion(nn.Module):
    """Mean of two outputs, with equal shares (``mean``, paper) or by how well each fits the labels (``fit``, ours).

    ``fit``: shares that go with ``1 / loss^2``, ``loss`` being the running mean of an output's Dice loss on labelled
    pictures: as of two unbiased measurements, whose best mean has shares of one over their variances. They are equal
    at first, and the same in all processes.
    """

    loss: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        require_known(how, ("mean", "fit"), "fusion")
        self.equal = how == "mean"
        self.register_buffer("loss", torch.ones(2))

    @torch.no_grad()
    def see(self, first: Tensor, second: Tensor) -> None:
        """Take in the Dice losses of both outputs, scalars, on a step's labelled pictures."""
        if self.equal:
            return
        self.loss.lerp_(mean_of_ranks(torch.stack([first, second]).detach().float()), 1 / _WINDOW)

    def share(self) -> Tensor:
        """Return the first output's share, a scalar."""
        fit = 1 / self.loss.clamp_min(1e-3).square()
        return fit[0] / fit.sum()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) of both outputs to the one that is predicted."""
        return torch.lerp(second.float(), first.float(), self.share())
