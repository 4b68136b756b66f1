"""Diffusion of label maps: noising and sampling against known cases, and a decoder of its own on a shared encoder."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from semialign.networks.diffusion import DiffusionNetwork, clean_map, noised_map, sample, signal, smooth, waves
from semialign.networks.unet import UNet
from semialign.networks.vnet import VNet


def _unet(dims: int) -> UNet:
    return UNet(1, 3, widths=(4, 8), strides=((1,) * dims, (2,) * dims), kernels=((3,) * dims,) * 2)


def _vnet(dims: int) -> VNet:
    return VNet(1, 3, dims=dims, widths=(2, 4, 4, 4, 4))


def test_the_signal_is_the_product_of_what_is_kept() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    for time in (0, 1, 500, 999):
        expected = float(np.prod(1 - betas[: time + 1]))
        assert signal(torch.tensor(time)).item() == pytest.approx(expected, rel=1e-5)


def test_a_clean_map_is_plus_and_minus_one() -> None:
    clean = clean_map(torch.tensor([[[0, 2, -1]]]), 3)
    assert clean.shape == (1, 3, 1, 3)
    assert clean[0, :, 0].T.tolist() == [[1, -1, -1], [-1, -1, 1], [-1, -1, -1]]


def test_noising_keeps_the_stated_shares() -> None:
    clean, noise = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 3.0)
    noised = noised_map(clean, torch.tensor([0, 400]), noise)
    for one, time in zip(noised, (0, 400), strict=True):
        left = float(signal(torch.tensor(time)))
        assert one.flatten().tolist() == pytest.approx([left**0.5 + 3 * (1 - left) ** 0.5] * 4, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 4, 3, 4, 5)])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_perfect_denoiser_is_led_to_the_clean_map(shape: tuple[int, ...], steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    clean, noise = clean_map(label, shape[1]), torch.randn(shape, generator=generator)
    seen: list[tuple[int, Tensor]] = []

    def perfect(noised: Tensor, times: Tensor) -> Tensor:
        assert times.shape == (shape[0],)
        seen.append((int(times[0]), noised))
        return clean

    assert torch.equal(sample(perfect, noise, steps), clean)
    times = [time for time, _ in seen]
    assert times == sorted(set(times), reverse=True)
    assert times[0] == 999
    assert len(times) == steps
    assert steps == 1 or times[-1] == 0
    # With eta 0 no noise is drawn anew: all along, the map is the clean one with the noise that the first one implies.
    left = signal(torch.tensor(999))
    implied = (noise - left.sqrt() * clean) / (1 - left).sqrt()
    for time, noised in seen:
        expected = noised_map(clean, torch.full((shape[0],), time), implied)
        torch.testing.assert_close(noised, expected, rtol=1e-3, atol=1e-3)


def test_what_is_predicted_is_held_between_minus_and_plus_one() -> None:
    noise = torch.randn(1, 2, 4, 4)
    assert torch.equal(sample(lambda noised, time: torch.full_like(noised, 7.0), noise, 3), torch.ones_like(noise))


@pytest.mark.parametrize("shape", [(2, 2, 7, 5), (1, 2, 4, 5, 1)])
def test_smoothing_is_a_gaussian_of_three_taps(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = values.numpy().copy()
    for channel in np.ndindex(shape[:2]):
        expected[channel] = ndimage.gaussian_filter(expected[channel], 1.0, truncate=1.0, mode="nearest")
    np.testing.assert_allclose(smooth(values).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("make", [_unet, _vnet])
def test_the_encoder_is_shared_and_all_else_is_not(make: Any, dims: int) -> None:
    network = make(dims)
    diffusion = DiffusionNetwork(network)
    shared = {id(p) for p in network.encoder.parameters()}
    own = {id(p) for p in diffusion.parameters()}
    assert shared <= own
    assert not ({id(p) for p in network.parameters()} - shared) & own
    size = (32,) * dims
    image, noised = torch.randn(2, 1, *size), torch.randn(2, 3, *size)
    logits = diffusion(image, noised, torch.tensor([5, 900]))
    assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    unused = {id(p) for p in network.encoder[0].parameters()}  # its place is the stem's
    assert all((p.grad is not None) == (id(p) not in unused) for p in diffusion.parameters())


def test_image_map_and_time_each_matter() -> None:
    torch.manual_seed(0)
    diffusion = DiffusionNetwork(_unet(2)).eval()
    image, noised, time = torch.randn(1, 1, 8, 8), torch.randn(1, 3, 8, 8), torch.tensor([10])
    first = diffusion(image, noised, time)
    for other in ((image + 1, noised, time), (image, noised.flip(2), time), (image, noised, time + 500)):
        assert (diffusion(*other) - first).abs().max() > 1e-4
    assert waves(torch.tensor([0, 7])).shape == (2, 128)
