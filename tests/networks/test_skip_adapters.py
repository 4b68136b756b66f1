"""The skip adapters: nothing changes at the start, everything can later, and the frozen decoder stays frozen."""

import pytest
import torch
from tiny_autoencoder import TinyAutoencoder, tiny_autoencoder

from semialign.networks.skip_adapters import SkipAdapter, SkipAdapters, group_norm


def _adapters(autoencoder: TinyAutoencoder, *, awake: bool = False, seed: int = 1) -> SkipAdapters:
    torch.manual_seed(seed)
    adapters = SkipAdapters(autoencoder.feature_widths, autoencoder.decoder_widths)
    if awake:
        for block in adapters.blocks:
            torch.nn.init.normal_(block.last.weight)
    return adapters


def _image(seed: int = 2) -> torch.Tensor:
    return torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(seed))


def test_at_the_start_the_decoders_output_is_bit_equal() -> None:
    autoencoder = tiny_autoencoder()
    encoded = autoencoder.encode(_image())
    adapt = _adapters(autoencoder)(encoded.features)
    plain = autoencoder.decode(encoded.mean)
    assert torch.equal(autoencoder.decode(encoded.mean, adapt), plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(autoencoder.decode(encoded.mean, adapt), autoencoder.decode(encoded.mean))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_levels_skip_changes_the_output_once_awake(level: int) -> None:
    autoencoder = tiny_autoencoder()
    encoded = autoencoder.encode(_image())
    adapters = _adapters(autoencoder, awake=True)
    before = autoencoder.decode(encoded.mean, adapters(encoded.features))
    other = [f.flip(3) if i == level else f for i, f in enumerate(encoded.features)]
    assert not torch.allclose(autoencoder.decode(encoded.mean, adapters(other)), before, atol=1e-3)


def test_only_the_adapters_learn_and_all_of_them_once_awake() -> None:
    autoencoder = tiny_autoencoder()
    kept = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    encoded = autoencoder.encode(_image())
    adapters = _adapters(autoencoder)
    optimiser = torch.optim.SGD([p for m in (autoencoder, adapters) for p in m.parameters() if p.requires_grad], 0.1)
    for step in range(2):
        optimiser.zero_grad()
        autoencoder.decode(encoded.mean, adapters(encoded.features)).square().sum().backward()
        for name, parameter in adapters.named_parameters():
            assert parameter.grad is not None, name
            # At zero only the last convolution has anything to learn from; it then teaches the rest.
            assert parameter.grad.any() == (step > 0 or "last" in name), name
        optimiser.step()
    assert all(p.grad is None for p in autoencoder.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in autoencoder.state_dict().items())


def test_gradient_reaches_the_skips_and_the_latent() -> None:
    autoencoder = tiny_autoencoder()
    encoded = autoencoder.encode(_image())
    skips = [f.clone().requires_grad_() for f in encoded.features]
    latent = encoded.mean.clone().requires_grad_()
    autoencoder.decode(latent, _adapters(autoencoder, awake=True)(skips)).square().sum().backward()
    assert latent.grad is not None
    assert all(skip.grad is not None and skip.grad.any() for skip in skips)


def test_a_skip_of_another_size_is_resized() -> None:
    torch.manual_seed(3)
    adapter = SkipAdapter(5, 8, hidden=16)
    torch.nn.init.normal_(adapter.last.weight)
    h, flat = torch.randn(1, 8, 6, 6), torch.randn(1, 5, 1, 1)
    coarse, fine = flat.expand(-1, -1, 3, 2), flat.expand(-1, -1, 6, 6)
    assert adapter(h, coarse).shape == h.shape
    assert torch.allclose(adapter(h, coarse), adapter(h, fine), atol=1e-5)


def test_scale_of_a_skip_does_not_matter() -> None:
    torch.manual_seed(4)
    adapter = SkipAdapter(5, 8, hidden=16)
    torch.nn.init.normal_(adapter.last.weight)
    h, skip = torch.randn(1, 8, 6, 6), torch.randn(1, 5, 6, 6)
    assert torch.allclose(adapter(h, 300 * skip), adapter(h, 30 * skip), atol=1e-3)


def test_size_by_hand() -> None:
    adapters = SkipAdapters((16,), (64,))
    half = 8  # of 64 / 4
    reduced = (16 * half + 2 * half) + (64 * half + 2 * half)
    body = 9 * 16 * 16 + 2 * 16
    assert sum(p.numel() for p in adapters.parameters()) == reduced + body + 9 * 16 * 64 + 64


def test_widths_of_the_blocks_can_be_chosen() -> None:
    adapters = SkipAdapters((5, 6), (8, 200), hidden=(4, 10))
    assert [block.last.in_channels for block in adapters.blocks] == [4, 10]
    assert [block.last.in_channels for block in SkipAdapters((5, 6), (8, 200)).blocks] == [16, 50]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match="zip"):
        SkipAdapters((5, 6), (8, 9, 10))
    with pytest.raises(ValueError, match="1 skips for 2 adapters"):
        SkipAdapters((5, 6), (8, 9))([torch.zeros(1, 5, 4, 4)])


def test_bfloat16_is_finite_and_the_decoders_type_is_kept() -> None:
    autoencoder = tiny_autoencoder()
    encoded = autoencoder.encode(_image())
    adapters = _adapters(autoencoder, awake=True)
    expected = autoencoder.decode(encoded.mean, adapters(encoded.features))
    with torch.autocast("cpu", torch.bfloat16):
        picture = autoencoder.decode(encoded.mean, adapters(encoded.features))
        h = torch.randn(1, 8, 4, 4)
        assert adapters.blocks[0](h, torch.randn(1, 5, 4, 4)).dtype == h.dtype
        assert adapters.blocks[0](h.bfloat16(), torch.randn(1, 5, 4, 4)).dtype == torch.bfloat16
    assert torch.allclose(picture.float(), expected, atol=0.2)
    picture.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapters.parameters())


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (16, 2), (64, 8), (512, 64), (12, 3), (4, 1)])
def test_groups_are_of_eight_channels(width: int, groups: int) -> None:
    norm = group_norm(width)
    assert isinstance(norm, torch.nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (groups, width)
