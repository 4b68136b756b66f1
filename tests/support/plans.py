"""Plans of data sets that exist only as the figures planning asks for."""

from typing import Any

from semialign.data.plan import Plan
from semialign.data.planning import Budget, make_plan

PROCESSOR = Budget("processor", 96_000, 160 * 160, 256 * 256, (16, 32, 64, 128, 128, 128), 4, 0.5, 0.25, 2.2, 112 * 112)
GPU = Budget("gpu with 80 GiB", 128**3, 512 * 512, 512 * 512, (32, 64, 128, 256, 320, 320), 8, 1.0, 0.0)
BUDGETS = {"processor": PROCESSOR, "gpu": GPU}
NUMBERS = {"low": -100.0, "high": 200.0, "mean": 30.0, "std": 50.0}
VOLUMES = {
    "cine MRI": ((256, 216, 10), (1.5, 1.5, 10.0)),
    "left atrium": ((180, 140, 88), (0.625, 0.625, 0.625)),
    "hippocampus": ((35, 50, 36), (1.0, 1.0, 1.0)),
    "CT": ((512, 512, 140), (0.8, 0.8, 2.5)),
    "long CT": ((512, 512, 900), (0.8, 0.8, 1.0)),
    "sagittal": ((20, 512, 512), (4.4, 0.5, 0.5)),
    "one slice": ((300, 300, 1), (1.0, 1.0, 5.0)),
    "tiny": ((3, 2, 1), (1.0, 1.0, 1.0)),
}


def seen(size: tuple[float, ...], spacing: tuple[float, ...] | None = None, channels: int = 1) -> dict[str, Any]:
    """A fingerprint: volumes where a spacing is given, pictures else."""
    return {
        "picture": spacing is None,
        "median_size": list(size),
        "median_spacing": list(spacing or (1.0,) * len(size)),
        "intensities": [NUMBERS] * channels,
    }


def planned(fingerprint: dict[str, Any], budget: Budget, channels: tuple[str, ...] = ("MRI",), **more: Any) -> Plan:
    more = {"class_names": ["background", "organ"], "dimensions": None if fingerprint["picture"] else 3} | more
    return make_plan(fingerprint, channel_names=channels, budget=budget, **more)
