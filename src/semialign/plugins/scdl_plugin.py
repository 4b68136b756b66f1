"""SCDL as a plug-in: it decorates any network that keeps the contract, and adds its losses to any host's step."""

from torch import Tensor

from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Progress, View
from semialign.networks.contract import Network
from semialign.plugins.base import Plugin
from semialign.plugins.scdl_network import SCDLNetwork, proxies_of
from semialign.plugins.scdl_settings import SCDLSettings


class SCDLPlugin(Plugin):
    """Class proxies in every network of the host, with CDBA and SAC as further losses."""

    Settings = SCDLSettings
    settings: SCDLSettings

    def __init__(self, settings: SCDLSettings | None = None) -> None:
        super().__init__(settings or SCDLSettings())
        self._wrapped = 0

    def wrap(self, network: Network) -> Network:
        """Return ``network`` with proxies of its own in it."""
        self._wrapped += 1  # each network draws other numbers
        return SCDLNetwork(network, self.settings, self._wrapped)

    def losses(self, view: View, progress: Progress) -> dict[str, Tensor]:
        """Return the ramped, weighted P2E, E2P and SAC of the view's tokens."""
        network, s = proxies_of(view.network), self.settings
        instances = None
        if s.sac and s.anchor == "image":
            instances = network.single_class_tokens(view.image, view.label)
        found = network.scdl.losses(network.tokens_of(view.output), view.label, instances)
        return {f"scdl {name}": self.ramp(progress) * value for name, value in found.items()}

    def ramp(self, progress: Progress) -> float:
        """Return what the losses are multiplied with: over the run, since a host's next stage goes on with the proxies.

        By default it rises in 0.4 of the first stage, and stays.
        """
        if self.settings.rampup_steps is None:
            return 1.0 if progress.earlier else sigmoid_rampup(progress.step, 0.4 * progress.max_steps)
        return sigmoid_rampup(progress.earlier + progress.step, self.settings.rampup_steps)
