"""Starts of a network's weights."""

from torch import nn

_WEIGHTED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def initialise(network: nn.Module, start: str) -> nn.Module:
    """Start the convolutions of ``network`` by ``kaiming`` or ``xavier`` normal numbers, biases by 0; returns it."""
    for module in network.modules():
        if isinstance(module, _WEIGHTED):
            if start == "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0.01)
            elif start == "xavier":
                nn.init.xavier_normal_(module.weight)
            else:
                raise ValueError(f"no start named {start}")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
