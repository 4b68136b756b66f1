"""The instance norm against PyTorch's, in both layouts."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from semialign.networks.layout import with_channels_last
from semialign.networks.normalisation import InstanceNorm

SIZES = [(3, 4, 6, 5), (2, 16, 8, 6, 4), (1, 3, 2, 2, 2), (2, 1, 7, 3), (3, 5, 1, 6, 4)]


def _run(norm: nn.Module, values: Tensor, weighed: Tensor) -> Sequence[Tensor]:
    values = values.clone().requires_grad_()  # keeps the layout
    out = norm(values)
    assert isinstance(norm.weight, Tensor)
    assert isinstance(norm.bias, Tensor)
    return out, *torch.autograd.grad((out.float() * weighed).sum(), [values, norm.weight, norm.bias])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_pytorchs(size: tuple[int, ...], dtype: torch.dtype, last: bool) -> None:
    torch.manual_seed(0)
    reference = (nn.InstanceNorm2d if len(size) == 4 else nn.InstanceNorm3d)(size[1], affine=True)
    nn.init.normal_(reference.weight)
    nn.init.normal_(reference.bias)
    ours = InstanceNorm(size[1])
    ours.load_state_dict(reference.state_dict())
    values, weighed = (torch.randn(size) * 3 + 1).to(dtype), torch.randn(size)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    expected = _run(reference, values.float(), weighed)
    for mine, theirs in zip(_run(ours, with_channels_last(values) if last else values, weighed), expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=tolerance, atol=tolerance)


def test_numerical_gradients() -> None:
    norm = InstanceNorm(3).double()
    values = with_channels_last(torch.randn(2, 3, 4, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: norm(given[0]), (values, norm.weight, norm.bias))


def test_the_layout_is_kept() -> None:
    norm, values = InstanceNorm(4), torch.randn(2, 4, 6, 6)
    assert norm(values).is_contiguous()
    assert norm(with_channels_last(values)).is_contiguous(memory_format=torch.channels_last)


def test_samples_are_normalised_alone() -> None:
    values = with_channels_last(torch.randn(3, 4, 6, 6, 2))
    norm = InstanceNorm(4)
    assert torch.equal(norm(values)[1:2], norm(values[1:2]))
