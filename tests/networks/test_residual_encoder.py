"""The learnable encoder: shapes, size, norms, gradients."""

import pytest
import torch
from torch import nn

from semialign.common.errors import UserError
from semialign.networks.residual_encoder import NORMS, PRESETS, BasicBlock, ResidualEncoder

WIDTHS, BLOCKS = (4, 6, 8, 10), (1, 2, 1)


def _encoder(norm: str = "instance", seed: int = 0, *, stem_stride: int = 1) -> ResidualEncoder:
    torch.manual_seed(seed)
    return ResidualEncoder(3, widths=WIDTHS, blocks=BLOCKS, norm=norm, stem_stride=stem_stride)


@pytest.mark.parametrize("norm", NORMS)
def test_shapes(norm: str) -> None:
    encoder = _encoder(norm)
    moments, features = encoder(torch.randn(2, 3, 16, 24))
    assert moments.shape == (2, 6, 2, 3)
    assert encoder.factor == 8
    assert encoder.feature_widths == WIDTHS
    assert [f.shape for f in features] == [(2, w, 16 // 2**i, 24 // 2**i) for i, w in enumerate(WIDTHS)]


def test_a_stem_that_halves_spares_the_first_stage() -> None:
    encoder = _encoder(stem_stride=2)
    moments, features = encoder(torch.randn(2, 3, 16, 24))
    assert encoder.factor == 8
    assert moments.shape == (2, 6, 2, 3)
    assert [tuple(f.shape[2:]) for f in features] == [(8, 12), (8, 12), (4, 6), (2, 3)]


def test_features_are_what_the_next_stage_takes() -> None:
    encoder = _encoder().eval()
    moments, features = encoder(torch.randn(1, 3, 16, 16))
    for stage, before, after in zip(encoder.stages, features[:-1], features[1:], strict=True):
        assert torch.equal(stage(before), after)
    assert torch.equal(encoder.head(features[-1]), moments)
    assert all((f >= 0).all() for f in features)
    assert (moments < 0).any()


def _stage(width_in: int, width: int, count: int) -> int:
    first = 9 * width_in * width + 2 * width + 9 * width * width + 2 * width + width_in * width + 2 * width
    return first + (count - 1) * (2 * 9 * width * width + 4 * width)


def test_paper_size_by_hand() -> None:
    with torch.device("meta"):
        encoder = ResidualEncoder(4, **PRESETS["paper"])
    stem = 3 * 128 * 9 + 2 * 128
    stages = _stage(128, 256, 3) + _stage(256, 512, 4) + _stage(512, 512, 6)
    head = 9 * 512 * 512 + 2 * 512 + 9 * 512 * 8 + 8
    assert sum(p.numel() for p in encoder.parameters()) == stem + stages + head == 52_103_304
    assert encoder.feature_widths == (128, 256, 512, 512)
    assert [len(stage) for stage in encoder.stages] == [3, 4, 6]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in encoder.modules()) == 1 + 2 * 13 + 3 + 1


def test_small_is_small_and_looks_at_no_other_picture() -> None:
    with torch.device("meta"):
        encoder = ResidualEncoder(4, **PRESETS["small"])
    assert sum(p.numel() for p in encoder.parameters()) < 1_000_000
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())


def test_instance_norm_makes_a_batch_its_pictures_and_batch_norm_does_not() -> None:
    images = torch.randn(3, 3, 16, 16)
    for norm, same in (("instance", True), ("batch", False)):
        encoder = _encoder(norm)
        together, alone = encoder(images).moments[:1], encoder(images[:1]).moments
        assert torch.allclose(together, alone, atol=1e-5) is same


def test_block_without_its_convolutions_is_its_rectified_input() -> None:
    block = BasicBlock(8, 8, stride=1, norm=NORMS["instance"])
    nn.init.zeros_(block.residual[1].weight)
    values = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(values), values.clamp(min=0))


@pytest.mark.parametrize("norm", NORMS)
def test_every_parameter_learns(norm: str) -> None:
    encoder = _encoder(norm)
    encoder(torch.randn(2, 3, 16, 16)).moments.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_and_channels_last_are_close_to_float32(norm: str) -> None:
    encoder, images = _encoder(norm), torch.randn(2, 3, 16, 16)
    expected = encoder(images).moments
    fast = encoder.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(fast(images).moments, expected, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        moments, features = fast(images)
    assert moments.dtype == torch.bfloat16
    assert torch.allclose(moments.float(), expected, atol=0.15)
    assert all(f.isfinite().all() for f in features)
    moments.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fast.parameters())


def test_wrong_settings_are_told() -> None:
    with pytest.raises(UserError, match="did you mean 'batch'"):
        ResidualEncoder(3, widths=WIDTHS, blocks=BLOCKS, norm="btach")
    with pytest.raises(ValueError, match="stem_stride must be 1 or 2, not 4"):
        _encoder(stem_stride=4)
    with pytest.raises(ValueError, match="zip"):
        ResidualEncoder(3, widths=WIDTHS, blocks=(1, 1), norm="instance")
