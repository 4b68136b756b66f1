"""The one exponential moving average of a network's weights and buffers."""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """Return a deep copy of ``module`` that takes no gradient: a teacher at step 0."""
    return copy.deepcopy(module).requires_grad_(False)


def ema_decay(asked: float | None, step: int, max_steps: int) -> float:
    """Return the decay after ``step`` (from 0): ``min(1 - 1/(step + 2), asked)``.

    Where none is asked for, ``1 - 25/max_steps``, from 0.9 to 0.999: the published 0.99 remembers some hundredth of the
    published runs; a short run needs a shorter memory, or its teacher is an average of beginners.
    """
    decay = min(max(1 - 25 / max_steps, 0.9), 0.999) if asked is None else asked
    return min(1 - 1 / (step + 2), decay)


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
