"""What a plug-in is: a decorator of a network plus a loss. It works on any host, the host unaware."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from semialign.common.types import Progress, View
from semialign.networks.contract import Network


class Plugin(nn.Module, ABC):
    """A decorator of the network plus a loss over the views a host's step returns.

    ``wrap`` returns a module that owns what the plug-in learns, one set a network, so that EMA copies average it too.
    A plug-in draws its own random numbers from a forked generator: the host's numbers do not change.
    """

    def __init__(self, settings: Any = None) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def wrap(self, network: Network) -> Network:
        """Return ``network`` with the plug-in's parts in it."""

    @abstractmethod
    def losses(self, view: View, progress: Progress) -> dict[str, Tensor]:
        """Return the plug-in's weighted loss terms for one student network in one step."""
