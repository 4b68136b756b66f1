"""Our small autoencoder: its losses by hand, that it learns, its scale, and its file."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.losses.latent import labelled_alignment
from semialign.networks.autoencoders.base import Adapt, weights_hash
from semialign.networks.autoencoders.own import OwnAutoencoder, autoencoder_losses, load_own, save_own

WIDTHS = (8, 16, 16)


def _own(seed: int = 0) -> OwnAutoencoder:
    torch.manual_seed(seed)
    return OwnAutoencoder(latent_channels=8, widths=WIDTHS)


class _Fixed(OwnAutoencoder):
    """Answers a fixed posterior and a fixed grey; keeps the latent it was to decode."""

    def __init__(self, mean: float, variance: float, grey: float) -> None:
        super().__init__(latent_channels=4, widths=WIDTHS)
        self.fixed, self.grey = (mean, math.log(variance)), grey
        self.latent = torch.empty(0)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(image), 4, image.shape[2] // 8, image.shape[3] // 8)
        return torch.full(shape, self.fixed[0]), torch.full(shape, self.fixed[1])

    def decode(self, latent: Tensor, adapt: Adapt | None = None) -> Tensor:
        self.latent = latent
        return torch.full((len(latent), 3, latent.shape[2] * 8, latent.shape[3] * 8), self.grey)


def test_losses_by_hand() -> None:
    autoencoder = _Fixed(1.0, 4.0, 0.25)
    autoencoder.latent_scale.fill_(3.0)
    image = torch.full((2, 3, 64, 64), 1.0)
    image[..., 16:] = -1.0
    losses = autoencoder_losses(autoencoder, image, edges=3.0, divergence=0.5)
    assert list(losses) == ["reconstruction", "edges", "divergence"]
    assert float(losses["reconstruction"]) == pytest.approx((16 * 0.75 + 48 * 1.25) / 64)
    # One of 63 gaps along the rows is 2, none along the columns.
    assert float(losses["edges"]) == pytest.approx(3.0 * (2 / 63 + 0) / 2)
    assert float(losses["divergence"]) == pytest.approx(0.5 * (1 + 4 - 1 - math.log(4.0)) / 2)
    # What is decoded is drawn from the posterior, at the scale.
    assert float(autoencoder.latent.mean()) == pytest.approx(3.0 * 1.0, abs=3.0 * 0.5)
    assert float(autoencoder.latent.std()) == pytest.approx(3.0 * 2.0, rel=0.2)


def test_divergence_vanishes_for_the_standard_normal() -> None:
    losses = autoencoder_losses(_Fixed(0.0, 1.0, 0.0), torch.zeros(1, 3, 16, 16), divergence=1.0)
    assert float(losses["divergence"]) == 0


def test_starts_as_a_thumbnail() -> None:
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        mean, logvar, _ = (autoencoder := _own()).encode(image)
        decoded = autoencoder.decode(mean)
    assert logvar is not None
    torch.testing.assert_close(logvar, torch.full_like(logvar, -8.0))
    torch.testing.assert_close(mean[:, :3], F.avg_pool2d(image, 8))
    torch.testing.assert_close(decoded, F.avg_pool2d(image, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))


def _pictures(count: int, generator: torch.Generator) -> Tensor:
    """Discs of one random colour on another."""
    at = torch.arange(32.0)
    centre = torch.rand(count, 2, generator=generator) * 16 + 8
    radius = torch.rand(count, generator=generator) * 6 + 4
    far = (at[:, None] - centre[:, 0, None, None]) ** 2 + (at - centre[:, 1, None, None]) ** 2
    disc = (far < radius[:, None, None] ** 2)[:, None].float()
    colours = torch.rand(2, count, 3, 1, 1, generator=generator) * 2 - 1
    return disc * colours[0] + (1 - disc) * colours[1]


def test_learns() -> None:
    autoencoder, pictures = _own(), _pictures(8, torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(autoencoder.parameters(), lr=5e-3)

    def error() -> float:
        with torch.no_grad():
            return float((autoencoder.decode(autoencoder.encode(pictures).mean) - pictures).abs().mean())

    before = error()
    for _ in range(80):
        loss = torch.stack(list(autoencoder_losses(autoencoder, pictures).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert error() < 0.7 * before


def test_every_weight_gets_a_gradient() -> None:
    autoencoder = _own()
    for name, values in autoencoder.named_parameters():
        if name.endswith("gain"):  # behind a silent branch nothing would get any
            nn.init.constant_(values, 0.5)
    torch.stack(list(autoencoder_losses(autoencoder, torch.rand(2, 3, 16, 16)).values())).sum().backward()
    assert [n for n, p in autoencoder.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


def _varied() -> OwnAutoencoder:
    """One whose latents are more than a thumbnail, each channel about a mean of its own."""
    autoencoder = _own()
    nn.init.uniform_(autoencoder.moments.gain, 0.5, 1.0)
    nn.init.uniform_(autoencoder.moments.body[-1].bias, -3.0, 3.0)
    return autoencoder


@pytest.mark.parametrize("columns", [0, 16])
def test_scale_sets_the_deviation_of_images_or_codes_and_leaves_the_picture(columns: int) -> None:
    autoencoder, image = _varied(), torch.tensor([-0.8, -0.3, 0.3, 0.8])[:, None, None, None].repeat(1, 3, 32, 32)
    code = torch.full_like(image, -1.0)
    code[..., :columns] = 1.0
    with torch.no_grad():
        unscaled, decoded = autoencoder.encode(image), autoencoder.decode(autoencoder.encode(image).mean)
        autoencoder.calibrate(image.split([1, 3]), [code])
        deviations = [
            float(autoencoder.encode(x).mean.transpose(0, 1).flatten(1).var(1, correction=0).mean().sqrt())
            for x in (image, code)
        ]
        scaled = autoencoder.encode(image)
        anchor = autoencoder.encode(code).mean
    centre, nothing = anchor.mean((0, 2, 3)), torch.zeros_like(anchor)
    assert max(deviations) == pytest.approx(1.0, rel=1e-4)
    assert (deviations[1] > deviations[0]) == (columns > 0)
    torch.testing.assert_close(centre, torch.zeros_like(centre), rtol=0, atol=1e-5)
    cost = labelled_alignment(nothing, nothing, anchor=anchor).item()
    assert cost == pytest.approx(2 * deviations[1] ** 2, rel=1e-4), "of two terms that know nothing: 2, or less"
    torch.testing.assert_close(scaled.logvar, unscaled.logvar)
    torch.testing.assert_close(autoencoder.decode(scaled.mean), decoded, rtol=1e-4, atol=1e-5)


def test_file_brings_everything_back(tmp_path: Path) -> None:
    autoencoder, path = _own(), tmp_path / "own.pt"
    autoencoder.calibrate([torch.rand(1, 3, 16, 16)], [torch.rand(1, 3, 16, 16)])
    save_own(path, autoencoder)
    again = load_own(path)
    assert again.feature_widths == WIDTHS
    assert again.scale == autoencoder.scale
    assert weights_hash(again) == weights_hash(autoencoder)
    assert [p.name for p in tmp_path.iterdir()] == ["own.pt"]


def test_file_that_is_none_says_so_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    with pytest.raises(UserError, match=r"own\.pt: no such weights file") as missing:
        load_own(path)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"own\.pt: not a readable file") as damaged:
        load_own(path)
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match=r"own\.pt: not an autoencoder") as other:
        load_own(path)
    save_own(path, _own())
    state = torch.load(path, weights_only=True)
    del state["weights"]["stem.branch.gain"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"it lacks 'stem\.branch\.gain'") as lacking:
        load_own(path)
    assert all("\n" not in str(e.value) for e in (missing, damaged, other, lacking))
