"""Passes that leave a network as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval(module: nn.Module) -> Iterator[None]:
    """Run ``module`` as in prediction: no dropout, and running statistics as they are."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
