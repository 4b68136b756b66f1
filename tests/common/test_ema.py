"""The moving average: to the digit, buffers too, and never by position."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from semialign.common.ema import frozen_copy, update_ema


class _Odd(nn.Module):
    """Parameters, a float buffer, an integer buffer, a boolean one, and an empty one."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), value))
        self.register_buffer("mean", torch.full((2,), 10 * value))
        self.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("seen", torch.tensor([value > 1.5]))
        self.register_buffer("empty", torch.zeros(0))


def test_average_is_exact_to_the_digit() -> None:
    teacher, student = _Odd(1.0), _Odd(2.0)
    update_ema(teacher, student, 0.75)  # every number here is exact in float32
    assert teacher.weight.tolist() == [1.25] * 3
    assert teacher.mean.tolist() == [12.5] * 2
    assert student.weight.tolist() == [2.0] * 3


def test_average_follows_the_recursion_in_exact_arithmetic() -> None:
    rng = np.random.default_rng(0)
    teacher, student = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
    exact = [Fraction(v) for v in teacher.weight[0].tolist()]
    for _ in range(50):
        with torch.no_grad():
            student.weight.copy_(torch.from_numpy(rng.normal(size=(1, 4)).astype(np.float32)))
        update_ema(teacher, student, 0.99)
        # The decay is 1.0 - 0.99 as a double; only float32's rounding may differ.
        exact = [
            e * Fraction(0.99) + Fraction(1.0 - 0.99) * Fraction(s)
            for e, s in zip(exact, student.weight[0].tolist(), strict=True)
        ]
    assert teacher.weight[0].tolist() == pytest.approx([float(e) for e in exact], rel=1e-5)


def test_integer_and_boolean_buffers_are_copied() -> None:
    teacher, student = _Odd(1.0), _Odd(2.0)
    update_ema(teacher, student, 0.9)
    assert int(teacher.count) == 2
    assert bool(teacher.seen)
    assert teacher.count.dtype == torch.int64


def test_batch_norm_statistics_move_too() -> None:
    student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    teacher = frozen_copy(student)
    student(torch.full((2, 1, 5, 5), 3.0))
    update_ema(teacher, student, 0.5)
    expected = 0.5 * torch.zeros(2) + 0.5 * student[1].running_mean
    assert torch.equal(teacher[1].running_mean, expected)
    assert int(teacher[1].num_batches_tracked) == 1


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_ends_of_the_decay_are_bit_exact(decay: float) -> None:
    torch.manual_seed(0)
    teacher, student = nn.Linear(50, 50), nn.Linear(50, 50)
    expected = copy.deepcopy(student if decay == 0 else teacher)
    update_ema(teacher, student, decay)
    for name, value in expected.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)


def test_other_names_raise() -> None:
    with pytest.raises(ValueError, match="structure"):
        update_ema(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)


def test_other_shapes_raise_rather_than_broadcast() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(1, 2)
    before = teacher.weight.clone()
    with pytest.raises(ValueError, match="structure"):
        update_ema(teacher, student, 0.5)
    assert torch.equal(teacher.weight, before)


def test_a_student_of_half_precision_does_not_change_the_teachers_type() -> None:
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2).bfloat16()
    update_ema(teacher, student, 0.0)
    assert teacher.weight.dtype == torch.float32
    assert torch.equal(teacher.weight, student.weight.float())


def test_module_without_weights() -> None:
    update_ema(nn.ReLU(), nn.ReLU(), 0.9)


def test_frozen_copy_takes_no_gradient_and_shares_nothing() -> None:
    student = nn.Linear(2, 2)
    teacher = frozen_copy(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        student.weight.add_(1)
    assert not torch.equal(teacher.weight, student.weight)


def test_update_leaves_no_trace_in_autograd() -> None:
    student = nn.Linear(2, 2)
    teacher = frozen_copy(student)
    update_ema(teacher, student, 0.5)
    assert all(p.grad_fn is None and not p.requires_grad for p in teacher.parameters())
