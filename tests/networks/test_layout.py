"""Channels last in memory: the same network, faster; no number other than by rounding."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semialign.networks.layout import lay_out
from semialign.networks.unet import UNet
from semialign.networks.vnet import VNet

CPU = torch.device("cpu")


def _networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    torch.manual_seed(0)
    flat: Any = {"strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)), "kernels": ((3, 3, 1), (3, 3, 3), (3, 3, 3))}
    plane: Any = {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3}
    widths = (8, 16, 32)
    return {
        "U-Net 2D": (UNet(3, 2, widths=widths, **plane), (2, 3, 32, 40)),
        "U-Net 3D": (UNet(1, 3, widths=widths, **flat), (2, 1, 16, 24, 6)),
        "V-Net 2D": (VNet(1, 3, dims=2, widths=(4, 8, 8, 8, 8)), (2, 1, 32, 48)),
        "V-Net 3D": (VNet(1, 3, widths=(4, 8, 8, 8, 8), norm="instance"), (2, 1, 48, 32, 48)),
    }


def _results(network: nn.Module, image: Tensor, *, low: bool) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits = network(image).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]


def _error(found: list[Tensor], expected: list[Tensor]) -> float:
    errors = [(a - b).norm() / b.norm().clamp(min=1e-3) for a, b in zip(found, expected, strict=True)]
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("name", list(_networks()))
def test_a_network_laid_out_computes_the_same(name: str) -> None:
    network, size = _networks()[name]
    laid, copies = copy.deepcopy(network), [copy.deepcopy(network) for _ in range(2)]
    lay_out(laid, CPU)
    lay_out(copies[0], CPU)
    image = torch.randn(size)
    exact = _results(copy.deepcopy(network).double(), image.double(), low=False)
    assert _error(_results(laid.double(), image.double(), low=False), exact) < 1e-9
    expected = _results(network, image, low=False)
    # In bfloat16 it errs as much as the other layout does.
    assert _error(_results(copies[0], image, low=True), expected) < 1.3 * _error(
        _results(copies[1], image, low=True), expected
    )


def test_weights_and_copies_keep_their_layout() -> None:
    network, size = _networks()["U-Net 2D"]
    lay_out(network, CPU)
    teacher = copy.deepcopy(network)
    teacher.load_state_dict({name: value.contiguous() for name, value in network.state_dict().items()})
    for one in (network, teacher):
        features = one(torch.randn(size)).features
        assert features.is_contiguous(memory_format=torch.channels_last)
        assert one.encoder[1][0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_another_device_is_left_alone() -> None:
    network, size = _networks()["U-Net 3D"]
    lay_out(network, torch.device("cuda"))
    assert not network.channels_last
    assert network(torch.randn(size)).features.is_contiguous()


def test_parts_that_are_no_network_are_laid_out_too() -> None:
    convolution = nn.Conv2d(4, 8, 3)
    lay_out(nn.Sequential(convolution, nn.Linear(2, 2)), CPU)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
