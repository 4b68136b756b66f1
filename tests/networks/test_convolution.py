"""The convolution that steps round a fault of PyTorch's on processors."""

import pytest
import torch
from torch import nn

from semialign.networks.convolution import Conv3d


def _leave_rubbish() -> None:
    """Leave memory of many sizes behind that holds no numbers, for others to pick up unwritten."""
    for dtype in (torch.float32, torch.bfloat16):
        held = [torch.full((n,), torch.nan, dtype=dtype) for n in (1000, 5000, 20000, 60000, 200000) for _ in range(3)]
        del held


def _faults(convolution: nn.Module, size: tuple[int, int, int]) -> int:
    count = 0
    for _ in range(20):
        convolution.zero_grad()
        _leave_rubbish()
        with torch.autocast("cpu", torch.bfloat16):
            out = convolution(torch.randn(2, 16, *size))
        _leave_rubbish()
        out.float().square().sum().backward()
        assert convolution.weight.grad is not None
        count += not convolution.weight.grad.isfinite().all()
    return count


@pytest.mark.parametrize("size", [(2, 2, 2), (2, 8, 8), (2, 3, 3), (4, 4, 2), (1, 2, 2)])
def test_gradients_are_numbers_whatever_lay_in_memory(size: tuple[int, int, int]) -> None:
    assert _faults(Conv3d(16, 16, 3, padding=1), size) == 0


def test_two_planes_are_computed_in_float32_and_nothing_else() -> None:
    convolution = Conv3d(4, 4, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(torch.randn(1, 4, 2, 4, 4)).dtype == torch.float32
        assert convolution(torch.randn(1, 4, 4, 4, 2)).dtype == torch.bfloat16
    plain = nn.Conv3d(4, 4, 3, padding=1)
    plain.load_state_dict(convolution.state_dict())
    values = torch.randn(1, 4, 2, 4, 4)
    torch.testing.assert_close(convolution(values), plain(values))
