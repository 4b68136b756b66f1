"""Slabs against a brute-force sliding window that holds everything."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semialign.inference.sliding_window import (
    Planes,
    mirrored,
    predict_planes,
    slab_axis,
    window_starts,
    window_weights,
)


def position_aware(windows: Tensor) -> Tensor:
    """Probabilities of three classes that depend on intensity and on the place in the window."""
    ramp = torch.linspace(-1, 1, windows.shape[-1])
    tilt = torch.linspace(-2, 1, windows.shape[2]).reshape(-1, *[1] * (windows.ndim - 3))
    return torch.softmax(torch.stack([windows[:, 0], windows[:, 0] * ramp, tilt + windows[:, -1]], 1), 1)


def joined(planes: list[Planes]) -> Tensor:
    return torch.cat([p.probabilities for p in planes], 1 + planes[0].axis)


def run(image: Tensor, predict=position_aware, **settings) -> Tensor:
    """All planes, copied as they come, checked to be in order."""
    got, expected = [], 0
    for part in predict_planes(image, predict, **settings):
        assert part.start == expected
        expected += part.probabilities.shape[1 + part.axis]
        got.append(Planes(part.axis, part.start, part.probabilities.clone()))
    return joined(got)


def brute_force(image: Tensor, patch: tuple[int, ...], overlap: float) -> Tensor:
    """Weighted mean over all windows in float64, one by one; padded by a loop-free numpy route."""
    shape = image.shape[1:]
    before = [max(0, p - n) // 2 for n, p in zip(shape, patch, strict=True)]
    pads = [(b, max(0, p - n) - b) for n, p, b in zip(shape, patch, before, strict=True)]
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), *pads]))
    size = padded.shape[1:]
    offset = np.meshgrid(*[np.arange(p) - (p - 1) / 2 for p in patch], indexing="ij")
    weight = torch.from_numpy(np.exp(-0.5 * sum((o / (p / 8)) ** 2 for o, p in zip(offset, patch, strict=True))))
    total, weights = torch.zeros(3, *size, dtype=torch.float64), torch.zeros(*size, dtype=torch.float64)
    for corner in itertools.product(*(window_starts(n, p, overlap) for n, p in zip(size, patch, strict=True))):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        total[(slice(None), *box)] += position_aware(padded[(slice(None), *box)][None])[0] * weight
        weights[box] += weight
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    return (total / weights)[(slice(None), *inner)]


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.9))
@settings(max_examples=100, deadline=None)
def test_windows_cover_everything(size: int, patch: int, overlap: float) -> None:
    starts = window_starts(size, patch, overlap)
    assert starts[0] == 0
    assert starts[-1] + patch == max(size, patch)
    gaps = np.diff(starts)
    assert (gaps > 0).all()
    assert (gaps <= max(1, np.ceil(patch * (1 - overlap)))).all()
    assert len(starts) == 1 or gaps.max() - gaps.min() <= 1
    total = torch.zeros(max(size, patch))
    for start, weight in zip(starts, window_weights(starts, size, patch), strict=True):
        total[start : start + patch] += weight
        assert (weight >= 0).all()
    torch.testing.assert_close(total, torch.ones_like(total))


@given(
    st.integers(2, 3).flatmap(
        lambda d: st.tuples(
            st.tuples(*[st.integers(1, 24 if d == 2 else 14)] * d), st.tuples(*[st.sampled_from([4, 5, 8])] * d)
        )
    ),
    st.sampled_from([0, 0.25, 0.5, 0.7]),
    st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_slabs_are_the_whole(shapes: tuple, overlap: float, batch: int) -> None:
    shape, patch = shapes
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    result = run(image, patch=patch, overlap=overlap, batch=batch)
    torch.testing.assert_close(result.double(), brute_force(image, patch, overlap), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(result.sum(0), torch.ones(shape))


def test_constant_stays_constant() -> None:
    constant = torch.tensor([0.7, 0.1, 0.2]).reshape(1, 3, 1, 1, 1)
    result = run(
        torch.zeros(1, 21, 9, 30), lambda w: constant.expand(len(w), 3, *w.shape[2:]), patch=(8, 8, 12), overlap=0.5
    )
    torch.testing.assert_close(result, constant[0].expand(3, 21, 9, 30))


def test_an_image_of_one_patch_is_one_window() -> None:
    calls = []

    def predict(windows: Tensor) -> Tensor:
        calls.append(windows.shape)
        return position_aware(windows)

    image = torch.randn(1, 8, 8, 8)
    torch.testing.assert_close(run(image, predict, patch=(8, 8, 8)), position_aware(image[None])[0], rtol=0, atol=0)
    assert calls == [(1, 1, 8, 8, 8)]


def test_the_number_of_windows_and_batches() -> None:
    calls = []

    def predict(windows: Tensor) -> Tensor:
        calls.append(len(windows))
        return position_aware(windows)

    run(torch.randn(1, 16, 16, 40), predict, patch=(8, 8, 8), overlap=0.5, batch=4)
    assert calls == [4, 4, 1] * 9  # 3 x 3 windows in each of 9 slabs


def test_memory_is_one_window_deep() -> None:
    image = torch.randn(1, 12, 10, 60)
    assert slab_axis((12, 10, 60), (8, 8, 8)) == 2
    for part in predict_planes(image, position_aware, patch=(8, 8, 8)):
        assert part.axis == 2
        assert part.probabilities.untyped_storage().nbytes() == 3 * 12 * 10 * 8 * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_probabilities_are_summed_in_float32(dtype: torch.dtype) -> None:
    image = torch.randn(2, 20, 20)
    result = run(image, lambda w: position_aware(w).to(dtype), patch=(8, 8), overlap=0.75)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), brute_force(image, (8, 8), 0.75), atol=0.01, rtol=0)


def test_mirroring_averages_all_flips() -> None:
    image = torch.randn(2, 2, 6, 7, 8)
    expected = torch.stack([position_aware(image.flip(dims)).flip(dims) for dims in [(), (2,), (4,), (2, 4)]]).mean(0)
    torch.testing.assert_close(mirrored(position_aware, (0, 2))(image), expected)
    assert mirrored(position_aware, ()) is position_aware
