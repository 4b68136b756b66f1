"""Ramp-ups and learning rates. ``rampup_steps``, ``lr_decay_steps`` and ``max_steps`` are separate settings."""

import math

from semialign.common.types import Progress


def sigmoid_rampup(step: float, rampup_steps: float) -> float:
    """Return ``exp(-5 (1 - min(t, T)/T)^2)``, from 0.0067 to 1; 1 where ``rampup_steps`` is 0 (arXiv 1610.02242)."""
    if rampup_steps <= 0:
        return 1.0
    left = 1.0 - min(max(step, 0.0), rampup_steps) / rampup_steps
    return math.exp(-5.0 * left * left)


def poly(step: float, decay_steps: float, power: float = 0.9) -> float:
    """Return ``(1 - t/T)^power``, from 1 to 0; stays 0 after ``decay_steps``."""
    return max(0.0, 1.0 - step / decay_steps) ** power


def ramp_of(rampup_steps: int | None, progress: Progress, start: float = 0.0, *, not_before: int = 0) -> float:
    """Return the ramp-up at ``progress``: 0 before the share ``start`` of the run, then the sigmoid.

    It takes ``rampup_steps`` (default: 0.4 of the steps after the start) and begins not before that step.
    """
    first = max(round(start * progress.max_steps), not_before)
    if progress.step < first:
        return 0.0
    length = 0.4 * (progress.max_steps - first) if rampup_steps is None else rampup_steps
    return sigmoid_rampup(progress.step - first, length)
