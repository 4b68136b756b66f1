"""What the processes of a training share."""

import torch.distributed as dist
from torch import Tensor


def sum_of_ranks(values: Tensor) -> Tensor:
    """Return ``values`` summed over all processes, in place; of one process as they are."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def wait_for_ranks() -> None:
    """Return when every process has come here; at once where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
