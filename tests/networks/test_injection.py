"""Putting a coarse prior into feature maps."""

import pytest
import torch
import torch.nn.functional as F

from semialign.networks.injection import Injection, resize


@pytest.mark.parametrize(
    ("grid", "size"), [((6, 6, 6), (24, 24, 24)), ((5, 7, 3), (10, 9, 12)), ((4, 6), (32, 15)), ((1, 4), (3, 4))]
)
def test_resize_is_linear_interpolation(grid: tuple[int, ...], size: tuple[int, ...]) -> None:
    values = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0))
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    expected = F.interpolate(values, size, mode=mode, align_corners=False)
    torch.testing.assert_close(resize(values, size), expected, rtol=1e-5, atol=1e-5)


def test_starts_at_zero_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    injection = Injection(12, [4, 8])
    assert torch.equal(before, torch.get_rng_state())
    maps = injection(torch.randn(2, 6, 12), (2, 3), [(8, 12), (4, 6)])
    assert [m.shape for m in maps] == [(2, 4, 8, 12), (2, 8, 4, 6)]
    assert all(m.eq(0).all() for m in maps)


def test_projecting_first_is_resizing_first() -> None:
    injection = Injection(5, [3])
    torch.nn.init.normal_(injection.projection.weight)
    tokens = torch.randn(1, 12, 5)
    grid = tokens.mT.reshape(1, 5, 3, 4)
    late = F.conv2d(
        F.interpolate(grid, (9, 8), mode="bilinear", align_corners=False), injection.projection.weight[:, :, None, None]
    )
    torch.testing.assert_close(injection(tokens, (3, 4), [(9, 8)])[0], late, rtol=1e-5, atol=1e-5)
