"""SemiGDA's network: two latents of one image, decoded by one frozen decoder (arXiv 2604.23274)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.networks.autoencoders.base import Autoencoder, Encoded
from semialign.networks.latent_mapper import WIDTHS, LatentMapper
from semialign.networks.residual_encoder import PRESETS, Encoding, ResidualEncoder
from semialign.networks.skip_adapters import SkipAdapters


class Latents(NamedTuple):
    """The two latents of an image, both times the autoencoder's scale."""

    mapped: Tensor  # (B, C_z, h, w), of the mapper from the frozen latent
    encoded: Tensor  # (B, C_z, h, w), of the learnable encoder
    encoding: Encoding


class GenerativeSegmenter(nn.Module):
    """Mapper, learnable encoder and adapters around an autoencoder that is frozen by whoever trains it.

    ``size``: ``paper`` or ``small``. An autoencoder that is not ``stored`` is kept out of the state, and named there by
    its hash alone. Without an adapter its latent is decoded as it is.
    """

    def __init__(
        self, autoencoder: Autoencoder, *, size: str, stored: bool, image_adapter: bool, mask_adapter: bool
    ) -> None:
        super().__init__()
        # In a list it is no submodule, and so not saved.
        self._kept = [autoencoder]
        if stored:
            self.stored = autoencoder
        channels, widths = autoencoder.latent_channels, autoencoder.decoder_widths
        self.mapper = LatentMapper(channels, widths=WIDTHS[size])
        self.encoder = ResidualEncoder(channels, **PRESETS[size])
        if autoencoder.factor != self.encoder.factor:
            raise UserError(f"the autoencoder's factor must be {self.encoder.factor}, not {autoencoder.factor}")
        self.image_adapter = SkipAdapters(autoencoder.feature_widths, widths) if image_adapter else None
        # An encoder's finest features are left out where the decoder begins at a coarser resolution.
        skips = self.encoder.feature_widths[-len(widths) :]
        self.mask_adapter = SkipAdapters(skips, widths) if mask_adapter else None

        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack it

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder, stored or not."""
        return self._kept[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move an autoencoder that is no submodule along with the others."""
        if not hasattr(self, "stored"):
            self._kept[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode(self, picture: Tensor) -> Encoded:
        """Return what the frozen encoder makes of pictures (B, 3, H, W) in [-1, 1]: of images or of label codes."""
        return self.autoencoder.encode(picture)

    def latents(self, frozen: Tensor, picture: Tensor) -> Latents:
        """Return both latents, from the ``frozen`` latent (B, C_z, h, w) and the picture itself."""
        autoencoder, encoding = self.autoencoder, self.encoder(picture)
        moments = autoencoder.quantise(encoding.moments)
        return Latents(self.mapper(frozen), autoencoder.scale * moments.chunk(2, dim=1)[0], encoding)

    def decode(self, latents: Latents, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the pictures (B, 3, H, W) of both latents; ``features`` of the frozen encoder go to its adapter."""
        image = None if self.image_adapter is None else self.image_adapter(features)
        autoencoder = self.autoencoder
        skips = latents.encoding.features[-len(autoencoder.decoder_widths) :]
        mask = None if self.mask_adapter is None else self.mask_adapter(skips)
        return autoencoder.decode(latents.mapped, image), autoencoder.decode(latents.encoded, mask)
