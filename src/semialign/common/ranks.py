"""What the processes of a training share."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_of_ranks(values: Tensor) -> Tensor:
    """Return ``values`` summed over all processes, in place; of one process as they are."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def mean_of_ranks(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all processes, in place; of one process as they are."""
    if dist.is_available() and dist.is_initialized():
        sum_of_ranks(values).div_(dist.get_world_size())
    return values


def wait_for_ranks() -> None:
    """Return when every process has come here; at once where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


@torch.no_grad()
def share_batch_statistics(module: nn.Module) -> None:
    """Set the running means and variances of batch norms to their means over all processes.

    Each process sees other patches, so that these buffers drift apart; nothing else in training brings them together.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
            for statistics in (part.running_mean, part.running_var):
                assert statistics is not None
                mean_of_ranks(statistics)
