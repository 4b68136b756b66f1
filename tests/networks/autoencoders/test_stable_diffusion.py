"""Stable Diffusion's autoencoder: the same numbers as diffusers', its real size, and where it is read from."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from semialign.common.errors import UserError
from semialign.networks.autoencoders.base import weights_hash
from semialign.networks.autoencoders.stable_diffusion import PRETRAINED, StableDiffusion, load_stable_diffusion


def _small(**more: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "block_out_channels": (8, 16, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(**{**settings, **more})


@pytest.mark.parametrize("more", [{}, {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5}])
def test_same_numbers_as_diffusers(more: dict[str, Any]) -> None:
    vae = _small(**more).eval()
    ours = StableDiffusion(vae)
    assert ours.scale == more.get("scaling_factor", 0.18215)
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(image).latent_dist
        encoded = ours.encode(image)
        torch.testing.assert_close(encoded.mean, posterior.mean * ours.scale)
        torch.testing.assert_close(encoded.logvar, posterior.logvar)
        latent = torch.randn(2, 4, 4, 6)
        torch.testing.assert_close(ours.decode(latent), vae.decode(latent / ours.scale).sample)
        moments = torch.randn(1, 8, 2, 2)
        expected = moments if more else vae.quant_conv(moments)
        assert torch.equal(ours.quantise(moments), expected)


def test_features_are_what_leaves_each_resolution() -> None:
    vae = _small().eval()
    seen: list[torch.Tensor] = []
    last = [block.resnets[-1] for block in vae.encoder.down_blocks[:3]]
    for module in (*last, vae.encoder.mid_block):
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        vae.encode(image)
        hooked, seen[:] = list(seen), []
        features = StableDiffusion(vae).encode(image).features
    assert len(features) == len(hooked) == 4
    for ours, theirs in zip(features, hooked, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_real_size() -> None:
    with torch.device("meta"):
        autoencoder = StableDiffusion.untrained()
    assert sum(p.numel() for p in autoencoder.parameters()) == 83_653_863
    assert autoencoder.feature_widths == autoencoder.decoder_widths == (128, 256, 512, 512)
    assert (autoencoder.latent_channels, autoencoder.factor, autoencoder.scale) == (4, 8, 0.18215)


@pytest.mark.parametrize("inside", ["", "vae"])
def test_local_folder(tmp_path: Path, inside: str) -> None:
    vae = _small()
    vae.save_pretrained(tmp_path / inside)
    assert weights_hash(load_stable_diffusion(tmp_path)) == weights_hash(StableDiffusion(vae))


def _damage(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>not found</html>")


def _rob(folder: Path) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["decoder.conv_in.weight"]
    save_file(weights, path, metadata={"format": "pt"})


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "damaged": (_damage, "not a readable AutoencoderKL"),
    "robbed": (_rob, r"it lacks 'decoder\.conv_in\.weight'"),
    "other": (lambda folder: _small(in_channels=1).save_pretrained(folder), "not an autoencoder of Stable Diffusion"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_folder_that_does_not_fit_says_so_in_one_line(
    tmp_path: Path, broken: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _small().save_pretrained(tmp_path)
    change, said = BROKEN[broken]
    change(tmp_path)
    capfd.readouterr()
    with pytest.raises(UserError, match=said) as error:
        load_stable_diffusion(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "".join(capfd.readouterr()) == ""


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_stable_diffusion(tmp_path / "none")
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="a file; give the folder"):
        load_stable_diffusion(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("weights", "place", "subfolder"),
    [(None, PRETRAINED, None), ("owner/model", "owner/model", None), ("owner/model/vae", "owner/model", "vae")],
)
def test_hub_is_asked_in_the_cache_then_once_on_the_network(
    monkeypatch: pytest.MonkeyPatch, weights: str | None, place: str, subfolder: str | None
) -> None:
    asked = []

    def absent(where: str, **options: Any) -> None:
        asked.append((where, options["subfolder"], options["local_files_only"]))
        raise OSError("cannot be reached\nread about it at ...")

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", absent)
    with pytest.raises(UserError, match="not to be had from the network; give the folder") as error:
        load_stable_diffusion(weights)
    assert "\n" not in str(error.value)
    assert asked == [(place, subfolder, True), (place, subfolder, False)]


def test_what_the_cache_holds_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cached(where: str, **options: Any) -> tuple[AutoencoderKL, dict[str, list[str]]]:
        asked.append(options["local_files_only"])
        return _small(), {"missing_keys": []}

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", cached)
    assert load_stable_diffusion("owner/model").latent_channels == 4
    assert asked == [True]


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"diffusers; pip install 'semialign\[semigda\]'"):
        load_stable_diffusion("owner/model")
