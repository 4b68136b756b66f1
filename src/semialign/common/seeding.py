"""Random numbers as a function of seed, purpose, step and rank alone.

Nothing depends on how many numbers were drawn before. So resuming, restarting and another number of loader workers
change nothing, and no generator's state has to be saved.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed from any mix of numbers and names; equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator that depends on ``parts`` alone."""
    return np.random.default_rng(derive_seed(*parts))


def torch_rng(*parts: int | str) -> torch.Generator:
    """Return a CPU torch generator that depends on ``parts`` alone."""
    import torch  # here, since splitting a data set needs numpy's generator alone

    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_step(*parts: int | str) -> None:
    """Seed torch's global generators (CPU and devices) for one step: dropout, noise and proxies draw from them."""
    import torch

    torch.manual_seed(derive_seed(*parts))
