"""What every autoencoder keeps: shapes, adapted decoding, sampling, freezing, precision and the hash."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semialign.networks.autoencoders.base import Autoencoder, Encoded, freeze, split_moments, weights_hash

Make = Callable[[str], Autoencoder]
every = pytest.mark.parametrize("name", ["own", "taef2", "sd"])
WIDTHS = {"own": (8, 16, 24), "taef2": (8, 8, 8, 8), "sd": (8, 16, 16, 24)}
STRIDES = {"own": (2, 4, 8), "taef2": (1, 2, 4, 8), "sd": (1, 2, 4, 8)}  # own has nothing at full size
CHANNELS = {"own": 6, "taef2": 32, "sd": 4}


def _image(seed: int = 1) -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@every
def test_shapes_are_as_declared(small: Make, name: str) -> None:
    autoencoder = small(name)
    assert (autoencoder.latent_channels, autoencoder.factor) == (CHANNELS[name], 8)
    assert autoencoder.feature_widths == autoencoder.decoder_widths == WIDTHS[name]
    mean, logvar, features = autoencoder.encode(_image())
    assert mean.shape == (2, CHANNELS[name], 4, 6)
    assert [tuple(f.shape) for f in features] == [
        (2, width, 32 // stride, 48 // stride) for width, stride in zip(WIDTHS[name], STRIDES[name], strict=True)
    ]
    assert (logvar is None) == (name == "taef2")
    assert logvar is None or logvar.shape == mean.shape
    assert autoencoder.decode(mean).shape == (2, 3, 32, 48)
    moments = torch.rand(2, 2 * CHANNELS[name], 4, 6)
    assert autoencoder.quantise(moments).shape == moments.shape
    assert torch.equal(autoencoder.quantise(moments), moments) == (name != "sd")


@every
@pytest.mark.parametrize("size", [(3, 36, 48), (3, 32, 44), (1, 32, 48)])
def test_refuses_what_would_not_come_back_in_its_size(small: Make, name: str, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="8 divides"):
        small(name).encode(torch.zeros(1, *size))


@every
def test_decoder_asks_once_at_every_level(small: Make, name: str) -> None:
    autoencoder, seen = small(name), []

    def adapt(level: int, values: Tensor) -> Tensor:
        seen.append((level, tuple(values.shape)))
        return values

    latent = torch.randn(2, CHANNELS[name], 4, 6)
    plain = autoencoder.decode(latent)
    assert torch.equal(autoencoder.decode(latent, adapt), plain)
    sizes = [(2, width, 32 // stride, 48 // stride) for width, stride in zip(WIDTHS[name], STRIDES[name], strict=True)]
    assert seen == list(enumerate(sizes))[::-1]
    for chosen in range(len(sizes)):
        changed = autoencoder.decode(latent, lambda level, h, chosen=chosen: -h if level == chosen else h)
        assert not torch.allclose(changed, plain)


# The decoder's first block at every resolution, finest first, by its name within the module.
FIRST_BLOCKS = {
    "own": [f"decoder.{level}" for level in range(3)],
    "taef2": [f"decoder.{place}" for place in (18, 13, 8, 3)],
    "sd": [f"vae.decoder.up_blocks.{number}.resnets.0" for number in (3, 2, 1, 0)],
}


@every
def test_what_is_adapted_comes_straight_from_the_first_block(small: Make, name: str) -> None:
    autoencoder, left, handed = small(name), {}, {}
    for level, block in enumerate(FIRST_BLOCKS[name]):
        autoencoder.get_submodule(block).register_forward_hook(
            lambda _module, _inputs, output, level=level: left.update({level: output})
        )

    def adapt(level: int, values: Tensor) -> Tensor:
        handed[level] = values
        return values

    autoencoder.decode(torch.randn(1, CHANNELS[name], 2, 2), adapt)
    assert left.keys() == handed.keys() == set(range(len(WIDTHS[name])))
    assert all(handed[level] is left[level] for level in left)


@every
def test_frozen_passes_gradients_on_and_takes_none(small: Make, name: str) -> None:
    autoencoder = freeze(small(name))
    assert not autoencoder.training
    latent = torch.randn(1, CHANNELS[name], 2, 2, requires_grad=True)
    bias = [torch.zeros(width, requires_grad=True) for width in WIDTHS[name]]
    autoencoder.decode(latent, lambda level, h: h + bias[level][:, None, None]).square().mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in autoencoder.parameters())
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in [latent, *bias])


@every
def test_samples_have_the_mean_and_the_scaled_deviation_of_the_posterior(small: Make, name: str) -> None:
    autoencoder = small(name)
    if name == "own":
        autoencoder.calibrate([_image()], [_image()])
        assert autoencoder.scale != 1
    mean = torch.full((1, 2, 200, 200), 3.0)
    assert torch.equal(autoencoder.sample(Encoded(mean, None, [])), mean)
    variance = torch.tensor([0.25, 9.0])[:, None, None].expand_as(mean)
    drawn = autoencoder.sample(Encoded(mean, variance.log(), []))
    for channel, deviation in enumerate((0.5, 3.0)):
        expected = deviation * autoencoder.scale
        assert float(drawn[0, channel].mean()) == pytest.approx(3.0, abs=5 * expected / 200)
        assert float(drawn[0, channel].std()) == pytest.approx(expected, rel=0.02)


@every
def test_bfloat16_and_channels_last_change_the_rounding_alone(small: Make, name: str) -> None:
    autoencoder, image = freeze(small(name)), _image()
    plain = autoencoder.encode(image)
    decoded = autoencoder.decode(plain.mean)
    autoencoder.to(memory_format=torch.channels_last)
    again = autoencoder.encode(image)
    torch.testing.assert_close(again.mean, plain.mean, rtol=1e-4, atol=1e-5)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in again.features)
    with torch.autocast("cpu", torch.bfloat16):
        low = autoencoder.encode(image)
        low_decoded = autoencoder.decode(plain.mean)
    assert low.mean.dtype == torch.float32
    assert low.features[0].dtype == torch.bfloat16
    assert low.logvar is None or low.logvar.dtype == torch.float32
    for value, reference in ((low.mean, plain.mean), (low_decoded.float(), decoded)):
        assert float((value - reference).norm() / reference.norm()) < 0.05


def test_moments_are_split_in_float32_and_bounded() -> None:
    moments = torch.tensor([1.0, 2.0, -1000.0, 1000.0], dtype=torch.bfloat16).reshape(1, 4, 1, 1)
    mean, logvar = split_moments(moments)
    assert mean.dtype == logvar.dtype == torch.float32
    assert mean.flatten().tolist() == [1.0, 2.0]
    assert logvar.flatten().tolist() == [-30.0, 20.0]
    assert split_moments(moments.double())[0].dtype == torch.float64


@every
def test_hash_names_the_weights_and_nothing_else(small: Make, name: str) -> None:
    autoencoder = small(name)
    first = weights_hash(autoencoder)
    assert len(first) == 64
    assert weights_hash(freeze(small(name)).to(memory_format=torch.channels_last)) == first
    with torch.no_grad():
        weight = next(iter(autoencoder.parameters()))
        weight.view(-1)[0] += 1e-3
    assert weights_hash(autoencoder) != first
    assert weights_hash(small(name).double()) != first


def test_hash_tells_swapped_and_renamed_weights_apart() -> None:
    pair = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    swapped = torch.nn.ModuleDict({"b": pair["a"], "a": pair["b"]})
    assert weights_hash(pair) != weights_hash(swapped)
    assert weights_hash(pair) != weights_hash(torch.nn.ModuleDict({"c": pair["a"], "d": pair["b"]}))
    assert weights_hash(pair) == weights_hash(torch.nn.ModuleDict({"b": pair["b"], "a": pair["a"]}))
