"""The latent mapper: shapes, size, who gets gradient, and that its attention is attention."""

import pytest
import torch

from semialign.networks import latent_mapper
from semialign.networks.latent_mapper import WIDTHS, LatentMapper, MapperBlock, SelfAttention

TINY = (4, 6, 8)


def _mapper(channels: int = 3, seed: int = 0) -> LatentMapper:
    torch.manual_seed(seed)
    return LatentMapper(channels, widths=TINY)


@pytest.mark.parametrize("channels", [3, 4, 32])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 7)])
def test_a_latent_keeps_its_shape(channels: int, size: tuple[int, int]) -> None:
    assert _mapper(channels)(torch.randn(2, channels, *size)).shape == (2, channels, *size)


def test_blocks_back_mirror_the_blocks_in() -> None:
    with torch.device("meta"):
        mapper = LatentMapper(4)
    shapes = [(b.residual[2].in_channels, b.residual[2].out_channels) for b in [*mapper.inwards, *mapper.outwards]]
    assert shapes[:4] == [(32, 32), (32, 64), (64, 128), (128, 128)]
    # Each with the mirrored block's input: 128 + 128, 128 + 64, 64 + 32, 32 + 32.
    assert shapes[4:] == [(256, 128), (192, 64), (96, 32), (64, 32)]


def test_blocks_back_take_the_mirrored_blocks_input() -> None:
    mapper = _mapper()
    taken: list[torch.Tensor] = []
    for block in [*mapper.inwards, *mapper.outwards]:
        block.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    mapper(torch.randn(1, 3, 4, 4))
    count = len(TINY)
    for i in range(count):
        mirrored, back = taken[i], taken[2 * count - 1 - i]
        assert torch.equal(back[:, -mirrored.shape[1] :], mirrored)


def test_paper_size_by_hand() -> None:
    with torch.device("meta"):
        mapper = LatentMapper(4, widths=WIDTHS["paper"])
    total = 4 * 32 * 9 + 32  # stem
    for width_in, width in [(32, 32), (32, 64), (64, 128), (128, 128), (256, 128), (192, 64), (96, 32), (64, 32)]:
        norms_and_prelus = 2 * width_in + 1 + 2 * width + 1
        convolutions = 9 * width_in * width + width + 9 * width * width + width
        shortcut = 0 if width_in == width else width_in * width + width
        attention = 2 * width + 3 * width * width + 3 * width + width * width + width
        total += norms_and_prelus + convolutions + shortcut + attention
    total += 2 * 32 + 32 * 4 * 9 + 4  # norm and head
    assert sum(p.numel() for p in mapper.parameters()) == total == 1_556_916


def test_small_is_smaller() -> None:
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in LatentMapper(4, widths=WIDTHS[name]).parameters()) for name in ("small", "paper")
        ]
    assert sizes[0] < sizes[1] / 3


def test_norms_have_sixteen_groups_in_the_paper() -> None:
    with torch.device("meta"):
        modules = list(LatentMapper(4).modules())
    assert {m.num_groups for m in modules if isinstance(m, torch.nn.GroupNorm)} == {16}


@pytest.mark.parametrize("few", [0, 1024], ids=["in blocks", "all pairs at once"])
def test_attention_agrees_with_the_definition(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_mapper, "_FEW", few)
    torch.manual_seed(1)
    attention, values = SelfAttention(6), torch.randn(2, 6, 3, 4)
    query, key, value = attention.take(attention.norm(values)).flatten(2).chunk(3, 1)  # (B, C, N)
    weights = (query.transpose(1, 2) @ key / 6**0.5).softmax(-1)  # (B, N, N): how much each place takes of each
    mixed = (value @ weights.transpose(1, 2)).reshape(values.shape)
    assert torch.allclose(attention(values), values + attention.give(mixed), atol=1e-5)


def test_attention_reaches_every_position_at_once() -> None:
    torch.manual_seed(2)
    values = torch.randn(1, 4, 9, 9, requires_grad=True)
    SelfAttention(4)(values)[0, :, 0, 0].sum().backward()
    assert values.grad is not None
    assert values.grad[0].abs().sum(0).min() > 0


def test_block_without_its_convolutions_passes_its_input_on() -> None:
    block = MapperBlock(6, 6)
    for module in (block.residual[5], block.attention.give):
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    values = torch.randn(2, 6, 4, 4)
    assert torch.equal(block(values), values)


def test_every_parameter_learns_and_so_does_the_input() -> None:
    mapper = _mapper()
    latent = torch.randn(2, 3, 4, 4, requires_grad=True)
    mapper(latent).square().sum().backward()
    assert latent.grad is not None
    for name, parameter in mapper.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_images_of_a_batch_do_not_touch_one_another() -> None:
    mapper, latent = _mapper(), torch.randn(3, 3, 4, 4)
    assert torch.allclose(mapper(latent)[1:2], mapper(latent[1:2]), atol=1e-5)


def test_bfloat16_and_channels_last_are_close_to_float32() -> None:
    mapper, latent = _mapper(), torch.randn(2, 3, 6, 6)
    expected = mapper(latent)
    fast = mapper.to(memory_format=torch.channels_last)
    leaf = latent.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.allclose(fast(leaf), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mapped = fast(leaf)
    assert mapped.dtype == torch.bfloat16
    assert torch.allclose(mapped.float(), expected, atol=0.1)
    mapped.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fast.parameters())


def test_learns_a_simple_map() -> None:
    mapper = _mapper()
    latent = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    target = latent.roll(1, 1) * 0.5
    optimiser = torch.optim.AdamW(mapper.parameters(), 2e-3)
    first = last = 0.0
    for step in range(60):
        loss = (mapper(latent) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < first / 4
