"""Stable Diffusion's KL autoencoder, from a local folder or the hub, by ``diffusers`` (extra ``semigda``)."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.networks.autoencoders.base import Adapt, Autoencoder, Encoded, split_moments
from semialign.networks.autoencoders.weights import EXTRA

PRETRAINED = "stabilityai/sd-vae-ft-mse"
WIDTHS = (128, 256, 512, 512)
_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(\w[\w./-]*))?")
_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}


class StableDiffusion(Autoencoder):
    """Runs the parts of a ``diffusers.AutoencoderKL`` one by one, so that features come out and skips go in.

    The feature of the coarsest resolution is that behind the middle block.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae
        config: Any = vae.config
        self.scale, self.latent_channels = config.scaling_factor, config.latent_channels
        self.feature_widths = self.decoder_widths = tuple(config.block_out_channels)
        self.factor = 2 ** (len(self.feature_widths) - 1)

    @classmethod
    def untrained(
        cls, *, widths: Sequence[int] = WIDTHS, layers: int = 2, latent_channels: int = 4, groups: int = 32
    ) -> "StableDiffusion":
        """Start one with random weights, by default of Stable Diffusion's size: for tests and for measuring."""
        return cls(
            _autoencoder_kl()(
                block_out_channels=tuple(widths),
                down_block_types=(_BLOCKS["down_block_types"],) * len(widths),
                up_block_types=(_BLOCKS["up_block_types"],) * len(widths),
                layers_per_block=layers,
                latent_channels=latent_channels,
                norm_num_groups=groups,
            )
        )

    def encode(self, image: Tensor) -> Encoded:
        """Image (B, 3, H, W) to scaled mean, logvar and features; ValueError for other sizes."""
        self._require_image(image)
        encoder = self.vae.encoder
        values, features = encoder.conv_in(image), []
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                values = resnet(values, temb=None)
            features.append(values)
            for downsampler in block.downsamplers or ():
                values = downsampler(values)
        features[-1] = encoder.mid_block(values)
        moments = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(features[-1])))
        mean, logvar = split_moments(self.quantise(moments))
        return Encoded(mean * self.scale, logvar, features)

    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        """Scaled latent (B, C_z, h, w) to an image (B, 3, 8h, 8w); ``adapt`` as in :meth:`Autoencoder.decode`."""
        decoder, values = self.vae.decoder, latent / self.scale
        if self.vae.post_quant_conv is not None:
            values = self.vae.post_quant_conv(values)
        values = decoder.mid_block(decoder.conv_in(values))
        for level, block in zip(reversed(range(len(decoder.up_blocks))), decoder.up_blocks, strict=True):
            for number, resnet in enumerate(block.resnets):
                values = resnet(values, temb=None)
                if number == 0 and adapt is not None:
                    values = adapt(level, values)
            for upsampler in block.upsamplers or ():
                values = upsampler(values)
        image: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(values)))
        return image

    def quantise(self, moments: Tensor) -> Tensor:
        """Moments (B, 2 C_z, h, w) through the frozen ``quant_conv``; unchanged where there is none."""
        convolved: Tensor = moments if self.vae.quant_conv is None else self.vae.quant_conv(moments)
        return convolved


def load_stable_diffusion(weights: Path | str | None = None) -> StableDiffusion:
    """Read a pretrained autoencoder, as float32.

    ``weights``: a folder with ``config.json`` and safetensors as ``diffusers`` writes them, or one that holds it as
    ``vae``; or a hub id, ``OWNER/NAME`` or ``OWNER/NAME/FOLDER``, looked for in the local cache, then once on the
    network (some 335 MB). Raises :class:`UserError` where it is not to be had or not of Stable Diffusion's kind.
    """
    where = str(PRETRAINED if weights is None else weights)
    folder = Path(where).expanduser()
    hub_id = _HUB_ID.fullmatch(where)
    if folder.is_dir():
        return _read_folder(folder / "vae" if (folder / "vae").is_dir() else folder)
    if folder.exists():
        raise UserError(f"{where}: a file; give the folder of a diffusers AutoencoderKL, with config.json and weights")
    if hub_id is None:
        raise UserError(f"{where}: no such folder, nor a hub id such as {PRETRAINED}")
    kind = _autoencoder_kl()
    for local in (True, False):
        try:
            found = _from_pretrained(kind, hub_id[1], where=where, subfolder=hub_id[2], local_files_only=local)
        except UserError:
            raise
        except Exception as error:  # the hub's client raises kinds of its own for each way to fail
            last = error
        else:
            return found
    raise UserError(
        f"{where}: no folder here, not in the hub's local cache, and not to be had from the network; give the folder "
        "of a downloaded diffusers AutoencoderKL, or another autoencoder"
    ) from last


def _read_folder(folder: Path) -> StableDiffusion:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; give the folder of a diffusers AutoencoderKL")
    try:
        return _from_pretrained(_autoencoder_kl(), str(folder), where=str(folder), local_files_only=True)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder}: not a readable AutoencoderKL with safetensors ({reason}); fetch it again"
        ) from error


def _from_pretrained(kind: Any, place: str, *, where: str, **options: Any) -> StableDiffusion:
    with _quiet():
        # Without low_cpu_mem_usage, which asks for one more package; safetensors alone, since a pickle can run code.
        vae, info = kind.from_pretrained(
            place, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True, **options
        )
    # What a file lacks is started at random, with a mere warning.
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise UserError(f"{where}: weights of another network (it lacks '{lacking[0]}'); fetch it again")
    other = [key for key, block in _BLOCKS.items() if set(vae.config[key]) != {block}]
    if other or (vae.config.in_channels, vae.config.out_channels) != (3, 3):
        raise UserError(f"{where}: not an autoencoder of Stable Diffusion's kind; give another, such as {PRETRAINED}")
    return StableDiffusion(vae.float())


def _autoencoder_kl() -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise UserError(f"the autoencoder sd needs the package diffusers; {EXTRA}") from error
    return AutoencoderKL


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's log, whose errors are raised too, and come out as one line of ours."""
    log = logging.getLogger("diffusers")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
