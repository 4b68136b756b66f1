"""Semi-supervised medical image segmentation in 2D and 3D, from a few labelled and many unlabelled scans.

Every command is a function of this package: ``phantom``, ``import_dataset``, ``make_split``, ``prepare``, ``train``,
``predict``, ``export``, ``evaluate``, ``suggest``, ``report``, ``bench``; ``SCDL`` serves other people's training
code. They are found on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "phantom": "semialign.data.phantom",
    "import_dataset": "semialign.data.importers",
    "load_dataset": "semialign.data.dataset",
    "make_split": "semialign.data.splits",
    "prepare": "semialign.data.prepare",
    "train": "semialign.training.train",
    "predict": "semialign.inference.predictor",
    "export": "semialign.inference.export",
    "evaluate": "semialign.evaluation.evaluate",
    "suggest": "semialign.suggestion.suggest",
    "report": "semialign.evaluation.reporting",
    "bench": "semialign.evaluation.benchmark",
    "SCDL": "semialign.plugins.scdl",
    "SCDLSettings": "semialign.plugins.scdl_settings",
    "UserError": "semialign.common.errors",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'semialign' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
