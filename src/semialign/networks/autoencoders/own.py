"""A small KL autoencoder of ours, to be trained on a data set's own images and masks within a minute or two."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.ranks import sum_of_ranks
from semialign.common.tensor_files import write_tensors
from semialign.networks.autoencoders.base import Adapt, Autoencoder, Encoded, split_moments
from semialign.networks.autoencoders.weights import load_strictly
from semialign.networks.normalisation import GroupNorm

_VERSION = 4
_GROUP = 8  # channels a norm takes together
_COLOURS = 3  # the first channels everywhere, which carry the thumbnail
_FINER = 4  # pixels of the picture in one of the finest resolution
_START_LOGVAR = -8.0  # little noise, so that the decoder sees the image's latent from its first step on


class OwnAutoencoder(Autoencoder):
    """Maps (B, 3, H, W) to a Gaussian over (B, C_z, H/8, W/8) and back.

    ``widths``: channels at half the picture's size, at a quarter and so on, multiples of 8. Of residual blocks
    (GroupNorm, SiLU, 3x3 convolution, twice), one a resolution in encoder and decoder, and none at full size, where one
    costs most: every step of SemiGDA decodes twice. The last convolution gives each pixel's two by two finer ones.

    Every change of channels or size has a shortcut that averages or repeats pixels and fills up with zeros or cuts
    channels, and what lies beside the shortcuts starts at nothing where a branch ends. So it starts as a thumbnail that
    is blown up again, and training goes into the details: a plain stack takes hundreds of steps to find the colours.
    """

    latent_scale: Tensor
    latent_shift: Tensor

    def __init__(self, *, latent_channels: int = 8, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.latent_channels, self.factor = latent_channels, 2 ** len(widths)
        self.feature_widths = self.decoder_widths = tuple(widths)
        # Buffers, since they are measured after training and belong to the weights.
        self.register_buffer("latent_scale", torch.ones(()))
        self.register_buffer("latent_shift", torch.zeros(latent_channels, 1, 1))
        self.stem = _Change(3, widths[0], stride=2)
        self.encoder = nn.ModuleList(_Block(width) for width in widths)
        self.down = nn.ModuleList(_Change(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.moments = _head(widths[-1], 2 * latent_channels)
        self.start = _Change(latent_channels, widths[-1])
        self.decoder = nn.ModuleList(_Block(width) for width in widths)
        self.up = nn.ModuleList(_Change(coarse, fine) for fine, coarse in pairwise(widths))
        self.image = _head(widths[0], _FINER * _COLOURS)

    @property
    def scale(self) -> float:  # type: ignore[override]
        """What latents are multiplied by, less their shift; 1 before :meth:`calibrate`."""
        return float(self.latent_scale)

    @torch.no_grad()
    def calibrate(self, images: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        """Set shift and scale by batches (B, 3, H, W) of images and of label codes, of all processes together.

        Latents of codes have a mean of 0 in every channel, and those of neither kind a standard deviation above 1 about
        their channels' means. By the images alone it would be codes, which are black and white and mostly background,
        that lie far out.
        """
        (_, of_images), (mean, of_codes) = self._moments(images), self._moments(codes)
        self.latent_shift.copy_(mean[:, None, None])
        self.latent_scale.fill_(1 / max(of_images, of_codes, 1e-6))

    def _moments(self, batches: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return the unscaled latents' means (C_z), and their standard deviation about these."""
        sums = torch.zeros(3, self.latent_channels, dtype=torch.float64, device=self.latent_scale.device)
        for batch in batches:
            values = self.posterior(batch)[0].double().transpose(0, 1).flatten(1)  # (C_z, numbers)
            sums += torch.stack(
                [values.new_full((len(values),), values.shape[1]), values.sum(1), values.square().sum(1)]
            )
        count, first, second = sum_of_ranks(sums)
        mean = first / count
        return mean, float((second / count - mean.square()).mean().clamp_min(0).sqrt())

    def _scaled(self, latent: Tensor) -> Tensor:
        return (latent - self.latent_shift) * self.latent_scale

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, H, W) to unscaled mean and logarithm of the variance, (B, C_z, H/8, W/8) each."""
        return self._posterior(self._features(image)[-1])

    def encode(self, image: Tensor) -> Encoded:
        """Image (B, 3, H, W) to scaled mean, logvar and features; ValueError for other sizes."""
        features = self._features(image)
        mean, logvar = self._posterior(features[-1])
        return Encoded(self._scaled(mean), logvar, features)

    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        """Scaled latent (B, C_z, h, w) to an image (B, 3, 8h, 8w); ``adapt`` as in :meth:`Autoencoder.decode`."""
        values = self.start(latent / self.latent_scale + self.latent_shift)
        for level in reversed(range(len(self.decoder_widths))):
            values = self.decoder[level](values)
            if adapt is not None:
                values = adapt(level, values)
            if level > 0:
                # Convolved before it grows: the same sums as after it would cost four times as much.
                values = F.interpolate(self.up[level - 1](values), scale_factor=2.0, mode="nearest")
        colours = self.image(values) + _refit(values, _COLOURS).repeat_interleave(_FINER, 1)
        return F.pixel_shuffle(colours, 2)

    def _features(self, image: Tensor) -> list[Tensor]:
        self._require_image(image)
        features = [self.encoder[0](self.stem(image))]
        for down, block in zip(self.down, list(self.encoder)[1:], strict=True):
            features.append(block(down(features[-1])))
        return features

    def _posterior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        channels = self.latent_channels
        start = F.pad(_refit(values, channels), (0, 0, 0, 0, 0, channels), value=_START_LOGVAR)
        return split_moments(start + self.moments(values))


class _Branch(nn.Module):
    """Convolutions with a learnt gain for every channel, at first 0 for ``silent`` channels and 1 for others.

    The gain keeps steps of Adam in bounds: one moves each weight by the rate, and a sum of a thousand inputs by a
    thousand times as much.
    """

    def __init__(self, body: nn.Sequential, channels: int, *, silent: int) -> None:
        super().__init__()
        self.body = body
        self.gain = nn.Parameter((torch.arange(channels) >= silent).float()[:, None, None])

    def forward(self, values: Tensor) -> Tensor:
        branch: Tensor = self.body(values)
        return self.gain.to(branch.dtype) * branch  # else a float32 gain would lift all that follows out of autocast


class _Change(nn.Module):
    """A convolution to another number of channels, and by ``stride`` to a smaller size, beside its shortcut."""

    def __init__(self, width_in: int, width_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.width_out = stride, width_out
        body = nn.Sequential(nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1))
        self.branch = _Branch(body, width_out, silent=_COLOURS)

    def forward(self, values: Tensor) -> Tensor:
        shortcut = values if self.stride == 1 else F.avg_pool2d(values, self.stride)
        branch: Tensor = self.branch(values)
        # The branch first: a sum takes the memory layout of its first term, and an image need not be channels-last.
        return branch + _refit(shortcut, self.width_out).to(branch.dtype)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        body = nn.Sequential(*_normed(width, width), *_normed(width, width))
        self.branch = _Branch(body, width, silent=width)

    def forward(self, values: Tensor) -> Tensor:
        return values + self.branch(values)


def _refit(values: Tensor, channels: int) -> Tensor:
    """The first ``channels`` of ``values`` (B, C, H, W), zeros where it has fewer."""
    return F.pad(values, (0, 0, 0, 0, 0, channels - values.shape[1]))


def _normed(width: int, channels: int) -> list[nn.Module]:
    return [GroupNorm(width // _GROUP, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]


def _head(width: int, channels: int) -> _Branch:
    return _Branch(nn.Sequential(*_normed(width, channels)), channels, silent=channels)


def autoencoder_losses(
    autoencoder: OwnAutoencoder, image: Tensor, *, edges: float = 0.5, divergence: float = 1e-4
) -> dict[str, Tensor]:
    """Return the weighted terms of the training loss on ``image`` (B, 3, H, W) in [-1, 1]; their sum is minimised.

    ``reconstruction``: mean absolute error of the decoded sample of the posterior. ``edges``: that of the differences
    between neighbouring pixels, along rows and columns, so that borders come out sharp. ``divergence``: the
    Kullback-Leibler divergence from the standard normal, mean over the latent's numbers.
    """
    mean, logvar = autoencoder.posterior(image)
    latent = mean + torch.exp(logvar / 2) * torch.randn_like(mean)
    error = autoencoder.decode(autoencoder._scaled(latent)).float() - image
    neighbours = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    apart = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
    return {
        "reconstruction": error.abs().mean(),
        "edges": edges * neighbours,
        "divergence": divergence * apart,
    }


def save_own(path: Path, autoencoder: OwnAutoencoder) -> None:
    """Write weights and shape to ``path``, whole or not at all."""
    shape = {"latent_channels": autoencoder.latent_channels, "widths": list(autoencoder.feature_widths)}
    weights = {name: values.cpu() for name, values in autoencoder.state_dict().items()}
    write_tensors(path, {"autoencoder": "own", "version": _VERSION, **shape, "weights": weights})


def load_own(path: Path) -> OwnAutoencoder:
    """Read what :func:`save_own` wrote; :class:`UserError` where it is missing, damaged or something else."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; give one that the stage 'autoencoder' wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: not a readable file of weights; train the autoencoder again") from error
    if not isinstance(state, dict) or state.get("autoencoder") != "own" or state.get("version") != _VERSION:
        raise UserError(f"{path}: not an autoencoder of this semialign; train the autoencoder again")
    autoencoder = OwnAutoencoder(latent_channels=state["latent_channels"], widths=state["widths"])
    load_strictly(autoencoder, state["weights"], path)
    return autoencoder
