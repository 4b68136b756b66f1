"""The ranges of settings that methods share by name: outside them, a run would train to no purpose, and say nothing."""

from math import inf
from typing import Any

from semialign.common.errors import UserError

RANGES = {
    "weight": (0.0, inf),
    "start": (0.0, 1.0),
    "learnt": (0.0, inf),
    "learnt_epochs": (0.0, inf),
    "rampup_steps": (0, inf),
    "confidence": (0.0, 1.0),
    "mix": (0.0, 1.0),
    "noise": (0.0, inf),
    "ema_decay": (0.0, 1.0),
    "passes": (1, inf),
    "location_weight": (0.0, inf),
}


def require_in_range(settings: Any) -> None:
    """Raise :class:`UserError` for a setting out of its range; one that is ``None``, or no number, has none."""
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name, None)
        if isinstance(value, int | float) and not low <= value <= high:
            wanted = f"at least {low:g}" if high == inf else f"from {low:g} to {high:g}"
            raise UserError(f"{name} {value:g}: must be {wanted}")
