"""Autoencoders by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semialign.common.errors import UserError
from semialign.networks.autoencoders import AUTOENCODERS, load_autoencoder
from semialign.networks.autoencoders.base import Autoencoder, weights_hash
from semialign.networks.autoencoders.own import OwnAutoencoder, save_own
from semialign.networks.autoencoders.stable_diffusion import StableDiffusion
from semialign.networks.autoencoders.taef2 import TaeF2


def _written(name: str, folder: Path) -> tuple[Autoencoder, Path]:
    if name == "own":
        own = OwnAutoencoder(widths=(8, 8, 8))
        save_own(folder / "own.pt", own)
        return own, folder / "own.pt"
    if name == "taef2":
        taef2 = TaeF2()
        save_file(taef2.state_dict(), folder / "taef2.safetensors")
        return taef2, folder / "taef2.safetensors"
    sd = StableDiffusion.untrained(widths=(8, 16), layers=1, groups=4)
    sd.vae.save_pretrained(folder / "vae")
    return sd, folder / "vae"


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_comes_frozen_and_channels_last(name: str, tmp_path: Path) -> None:
    made, path = _written(name, tmp_path)
    for weights in (path, str(path)):
        loaded = load_autoencoder(name, weights=weights)
        assert type(loaded) is type(made)
        assert weights_hash(loaded) == weights_hash(made)
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.parameters())
        kernels = [p for p in loaded.parameters() if p.ndim == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_own_without_weights_is_free_to_learn() -> None:
    own = load_autoencoder("own")
    assert (own.latent_channels, own.factor, own.scale) == (8, 8, 1.0)
    assert own.training
    assert all(p.requires_grad for p in own.parameters())


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match="did you mean 'taef2'"):
        load_autoencoder("taef1")
    with pytest.raises(UserError, match="taef2 needs its weights"):
        load_autoencoder("taef2")
