"""The one exponential moving average of a network's weights and buffers."""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """Return a deep copy of ``module`` that takes no gradient: a teacher at step 0."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Set ``teacher <- decay teacher + (1 - decay) student`` in place, parameters and floating buffers.

    Integer buffers (batch counters) are copied. ``decay`` 0 copies the student, 1 leaves the teacher.
    Raises ``ValueError`` where the two modules differ in structure, rather than averaging by position.
    """
    ours, theirs = teacher.state_dict(), student.state_dict()
    if {n: v.shape for n, v in ours.items()} != {n: v.shape for n, v in theirs.items()}:
        raise ValueError("teacher and student differ in structure")
    floating = [name for name, value in ours.items() if value.is_floating_point()]
    if floating:
        torch._foreach_lerp_([ours[n] for n in floating], [theirs[n].to(ours[n].dtype) for n in floating], 1.0 - decay)
    for name, value in ours.items():
        if not value.is_floating_point():
            value.copy_(theirs[name])
