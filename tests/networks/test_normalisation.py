"""The instance norm and the group norm against PyTorch's, in both layouts."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from semialign.networks import normalisation
from semialign.networks.layout import with_channels_last
from semialign.networks.normalisation import GroupNorm, InstanceNorm

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


# --- The group norm ---------------------------------------------------------------------------------------------------

GROUPED = [((3, 16, 6, 5), 2), ((2, 12, 3, 7), 3), ((2, 8, 4, 3, 5), 4), ((2, 6, 5, 4), 6), ((2, 8, 1, 6), 1)]
WIDE = [((2, 32, 5, 4), 2), ((2, 32, 5, 4), 1)]  # groups that PyTorch's own takes fast


@pytest.fixture(params=["_OfSmall", "_OfLarge"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The function that serves the test's maps, whatever their size."""
    name: str = request.param
    monkeypatch.setattr(normalisation, "_SMALL", 10**9 if name == "_OfSmall" else 0)
    return name


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "groups"), GROUPED + WIDE)
def test_a_group_norms_values_and_gradients_are_pytorchs(
    size: tuple[int, ...], groups: int, dtype: torch.dtype, last: bool
) -> None:
    torch.manual_seed(0)
    reference, ours = nn.GroupNorm(groups, size[1]), GroupNorm(groups, size[1])
    nn.init.normal_(reference.weight)
    nn.init.normal_(reference.bias)
    ours.load_state_dict(reference.state_dict())
    values, weighed = (torch.randn(size) * 3 + 5).to(dtype), torch.randn(size)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    expected = _run(reference, values.float(), weighed)
    for mine, theirs in zip(_run(ours, with_channels_last(values) if last else values, weighed), expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("size", "groups"), GROUPED)
def test_a_group_norms_numerical_gradients(size: tuple[int, ...], groups: int, way: str) -> None:
    torch.manual_seed(0)
    norm = GroupNorm(groups, size[1]).double()
    nn.init.normal_(norm.weight)
    values = with_channels_last(torch.randn(size, dtype=torch.float64)).requires_grad_()
    assert norm(values).grad_fn.name() == f"{way}Backward", "PyTorch's would pass too"
    assert torch.autograd.gradcheck(lambda *given: norm(given[0]), (values, norm.weight, norm.bias))


@pytest.mark.usefixtures("way")
def test_a_group_norm_keeps_layout_and_type() -> None:
    norm, values = GroupNorm(2, 4), torch.randn(2, 4, 6, 6)
    assert norm(values).is_contiguous()
    found = norm(with_channels_last(values.bfloat16()).requires_grad_())
    assert found.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(found.sum(), [found.grad_fn.next_functions[0][0].variable])
    assert found.dtype == gradient.dtype == torch.bfloat16
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("way")
def test_a_frozen_group_norm_passes_the_gradient_on() -> None:
    norm, values = GroupNorm(2, 4).requires_grad_(False), torch.randn(2, 4, 6, 6)
    last = with_channels_last(values).requires_grad_()
    (mine,) = torch.autograd.grad(norm(last).square().sum(), [last])
    (theirs,) = torch.autograd.grad(norm(values.requires_grad_()).square().sum(), [values])
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_small_maps_group_far_from_zero_keeps_its_figures() -> None:
    torch.manual_seed(0)
    values = with_channels_last(torch.randn(2, 8, 6, 6) + 1000)
    exact = nn.GroupNorm(1, 8).double()(values.double())
    torch.testing.assert_close(GroupNorm(1, 8)(values).double(), exact, atol=2e-3, rtol=0)
