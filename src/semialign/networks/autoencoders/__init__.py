"""Frozen autoencoders of images, by name: what SemiGDA segments in the latent space of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semialign.common.errors import UserError, require_known

if TYPE_CHECKING:
    from semialign.networks.autoencoders.base import Autoencoder

AUTOENCODERS: dict[str, str] = {
    "own": "a small one of ours, trained first on the data set's own images and masks",
    "taef2": "a small one trained on natural images (madebyollin/taesd), from a local file",
    "sd": "Stable Diffusion's, from a local folder or a hub id; needs the extra semigda",
}


def load_autoencoder(name: str, *, weights: Path | str | None = None) -> Autoencoder:
    """Return the autoencoder ``name``, channels-last, frozen; ``own`` without weights is new and free to learn.

    ``weights``: for ``own`` a file that :func:`semialign.networks.autoencoders.own.save_own` wrote; for ``taef2`` its
    safetensors file; for ``sd`` a folder or hub id (its default one where none is given). Raises :class:`UserError`
    for an unknown name and for weights that are missing, damaged or of another network.
    """
    import torch

    from semialign.networks.autoencoders.base import freeze

    require_known(name, AUTOENCODERS, "autoencoder")
    autoencoder = _load(name, weights)
    autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack it
    return autoencoder if name == "own" and weights is None else freeze(autoencoder)


def _load(name: str, weights: Path | str | None) -> Autoencoder:
    if name == "own":
        from semialign.networks.autoencoders.own import OwnAutoencoder, load_own

        return OwnAutoencoder() if weights is None else load_own(Path(weights))
    if name == "taef2":
        from semialign.networks.autoencoders.taef2 import TaeF2

        if weights is None:
            raise UserError("the autoencoder taef2 needs its weights: give the path of taef2.safetensors")
        return TaeF2.from_file(Path(weights))
    from semialign.networks.autoencoders.stable_diffusion import load_stable_diffusion

    return load_stable_diffusion(weights)
