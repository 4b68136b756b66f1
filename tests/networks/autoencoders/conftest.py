"""Small autoencoders of every kind, with random weights."""

from collections.abc import Callable

import pytest
import torch

from semialign.networks.autoencoders.base import Autoencoder
from semialign.networks.autoencoders.own import OwnAutoencoder
from semialign.networks.autoencoders.stable_diffusion import StableDiffusion
from semialign.networks.autoencoders.taef2 import TaeF2


def _own() -> Autoencoder:
    autoencoder = OwnAutoencoder(latent_channels=6, widths=(8, 16, 24))
    for name, values in autoencoder.named_parameters():
        if name.endswith("gain"):  # its branches are silent at first
            torch.nn.init.uniform_(values, 0.5, 1.0)
    return autoencoder


KINDS: dict[str, Callable[[], Autoencoder]] = {
    "own": _own,
    "taef2": lambda: TaeF2(width=8),
    "sd": lambda: StableDiffusion.untrained(widths=(8, 16, 16, 24), layers=1, groups=4),
}


@pytest.fixture
def small() -> Callable[[str], Autoencoder]:
    """Make a small autoencoder by name."""

    def make(name: str) -> Autoencoder:
        torch.manual_seed(0)
        return KINDS[name]()

    return make
