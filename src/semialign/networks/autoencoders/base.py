"""What SemiGDA needs of an autoencoder: latents with their posterior, features to skip with, a decoder to adapt."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Adapt = Callable[[int, Tensor], Tensor]


class Encoded(NamedTuple):
    """What an encoder returns; float32 under autocast too, features in the computing type."""

    mean: Tensor  # (B, C_z, h, w): mean of the posterior, times the autoencoder's scale
    logvar: Tensor | None  # (B, C_z, h, w) of the unscaled posterior; None where there is none
    features: list[Tensor]  # the encoder's last output at each resolution, finest first, down to the latent's


class Autoencoder(nn.Module, ABC):
    """A pair of encoder and decoder; images and outputs (B, 3, H, W) in [-1, 1], H and W multiples of ``factor``.

    Outputs are not clamped, so that a gradient passes where they overshoot. The widths are those of the features and of
    what ``adapt`` sees, level by level, finest first.
    """

    latent_channels: int
    factor: int
    scale: float  # latents are multiplied by it after encoding, divided by it before decoding
    feature_widths: tuple[int, ...]
    decoder_widths: tuple[int, ...]

    @abstractmethod
    def encode(self, image: Tensor) -> Encoded:
        """Image (B, 3, H, W) to latents (B, C_z, H / factor, W / factor) and features; ValueError for other sizes."""

    @abstractmethod
    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        """Scaled latent (B, C_z, h, w) to an image (B, 3, h factor, w factor).

        ``adapt(level, h)`` is called after the decoder's first block at every resolution, level 0 the finest, with
        ``h`` (B, decoder_widths[level], ...); what it returns goes on through the decoder.
        """

    def sample(self, encoded: Encoded) -> Tensor:
        """Draw a scaled latent (B, C_z, h, w) from the posterior; its mean where there is none."""
        if encoded.logvar is None:
            return encoded.mean
        return encoded.mean + self.scale * torch.exp(encoded.logvar / 2) * torch.randn_like(encoded.mean)

    def quantise(self, moments: Tensor) -> Tensor:
        """Moments (B, 2 C_z, h, w) through the frozen ``quant_conv``; unchanged where there is none."""
        return moments

    def _require_image(self, image: Tensor) -> None:
        # The encoders round an odd size each in its own way; what comes back would not fit what went in.
        if image.shape[1] != 3 or image.shape[2] % self.factor or image.shape[3] % self.factor:
            raise ValueError(f"images (B, 3, H, W) of sides that {self.factor} divides, not {tuple(image.shape)}")


Frozen = TypeVar("Frozen", bound=nn.Module)


def freeze(autoencoder: Frozen) -> Frozen:
    """Set evaluation mode and stop the weights' gradients; returns it. Gradients still pass through to its inputs."""
    return autoencoder.eval().requires_grad_(False)


def weights_hash(autoencoder: nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and numbers of the state, in hexadecimal.

    The same on every device and in every memory layout, so a checkpoint can name frozen weights instead of holding
    them.
    """
    digest = hashlib.sha256()
    for name, values in sorted(autoencoder.state_dict().items()):
        values = values.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (B, 2 C_z, h, w) to mean and logarithm of the variance, at least float32, the latter in [-30, 20].

    The bounds are those of the latent diffusion models: beyond them the variance or its inverse overflows.
    """
    mean, logvar = moments.to(torch.promote_types(moments.dtype, torch.float32)).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)
