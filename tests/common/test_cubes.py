"""Cubes: cutting, exchanging and putting together, by loops over places, with their gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from semialign.common.cubes import cube_counts, exchanged, from_cubes, padded, random_order, to_cubes
from semialign.common.errors import UserError

SIZES = [((6, 4), (3, 2)), ((4, 6), (1, 3)), ((4, 6, 9), (2, 1, 3)), ((6, 6, 6), (3, 3, 3))]


def _corners(size: tuple[int, ...], counts: tuple[int, ...]) -> list[tuple[slice, ...]]:
    sides = [n // count for n, count in zip(size, counts, strict=True)]
    places = itertools.product(*(range(count) for count in counts))
    return [tuple(slice(p * s, (p + 1) * s) for p, s in zip(place, sides, strict=True)) for place in places]


def _values(size: tuple[int, ...], samples: int = 4) -> Tensor:
    return torch.randn(samples, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("size", "counts"), SIZES, ids=str)
def test_cubes_lie_where_they_lay(size: Any, counts: Any) -> None:
    values = _values(size)
    cubes = to_cubes(values, counts)
    for number, where in enumerate(_corners(size, counts)):
        assert torch.equal(cubes[:, number], values[(slice(None), slice(None), *where)])
    assert torch.equal(from_cubes(cubes, counts), values)


@pytest.mark.parametrize(("size", "counts"), SIZES, ids=str)
def test_recovering_undoes_exchanging_gradients_included(size: Any, counts: Any) -> None:
    torch.manual_seed(3)
    values = _values(size).requires_grad_()
    order = random_order(4, len(_corners(size, counts)), torch.device("cpu"))
    assert all(sorted(order[:, n].tolist()) == [0, 1, 2, 3] for n in range(order.shape[1]))
    assert len({tuple(order[:, n].tolist()) for n in range(order.shape[1])}) > 1
    mixed = exchanged(values, counts, order)
    for number, where in enumerate(_corners(size, counts)):
        for sample in range(4):
            part = (slice(None), *where)
            assert torch.equal(mixed[sample][part], values[order[sample, number]][part])
    recovered = exchanged(mixed, counts, order.argsort(0))
    assert torch.equal(recovered, values)
    weights = _values(size) + 1
    (recovered * weights).sum().backward()
    assert torch.equal(values.grad, weights)


def test_counts_are_the_largest_that_fit() -> None:
    assert cube_counts((96, 96, 96), 3) == (3, 3, 3)
    assert cube_counts((40, 48, 7), 3) == (2, 3, 1)
    assert cube_counts((40, 256), 5) == (5, 4)
    with pytest.raises(UserError, match=r"patch_size \[35, 49\] cannot be cut into at most 3 cubes") as error:
        cube_counts((35, 49), 3)
    assert "\n" not in str(error.value)


def test_padding_repeats_the_far_edges() -> None:
    values = _values((5, 8))
    wide = padded(values, (4, 4))
    assert wide.shape[2:] == (8, 8)
    assert torch.equal(wide[:, :, :5], values)
    assert torch.equal(wide[:, :, 5:], values[:, :, 4:].expand(-1, -1, 3, -1))
    assert padded(values, (5, 4)) is values
    assert padded(values, (5, 8)).shape[2:] == (5, 16), "one voxel at the deepest level is too few for a norm"
