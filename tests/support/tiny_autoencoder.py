"""A tiny frozen autoencoder of random weights, as the networks around it see one: three levels, factor 4."""

import torch
from torch import Tensor, nn

from semialign.networks.autoencoders.base import Adapt, Autoencoder, Encoded, freeze, split_moments


class TinyAutoencoder(Autoencoder):
    """One convolution a resolution; the sizes are odd ones, so that no two can be mixed up unseen."""

    latent_channels, factor, scale = 3, 4, 0.5
    feature_widths = (5, 6, 7)
    decoder_widths = (8, 9, 10)

    def __init__(self) -> None:
        super().__init__()
        widths, back = self.feature_widths, self.decoder_widths
        self.inwards = nn.ModuleList(nn.Conv2d(i, w, 3, padding=1) for i, w in zip((3, *widths), widths, strict=False))
        self.moments = nn.Conv2d(widths[-1], 2 * self.latent_channels, 1)
        inputs = (*back[1:], self.latent_channels)
        self.first = nn.ModuleList(nn.Conv2d(i, w, 3, padding=1) for i, w in zip(inputs, back, strict=True))
        self.second = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in back)
        self.picture = nn.Conv2d(back[0], 3, 1)

    def encode(self, image: Tensor) -> Encoded:
        features: list[Tensor] = []
        for block in self.inwards:
            image = block(nn.functional.avg_pool2d(image, 2) if features else image).tanh()
            features.append(image)
        mean, logvar = split_moments(self.moments(image))
        return Encoded(mean * self.scale, logvar, features)

    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        x = latent / self.scale
        for level in reversed(range(len(self.decoder_widths))):
            x = self.first[level](x).tanh()
            x = self.second[level](x if adapt is None else adapt(level, x)).tanh()
            x = nn.functional.interpolate(x, scale_factor=2) if level else x
        picture: Tensor = self.picture(x)
        return picture


def tiny_autoencoder(seed: int = 0) -> TinyAutoencoder:
    """Return the one of ``seed``."""
    torch.manual_seed(seed)
    return freeze(TinyAutoencoder())
