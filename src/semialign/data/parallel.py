"""Work on many cases: in this process, and in others where that pays."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from semialign.common.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
PAYS = 20.0
"""Seconds of work left from which on processes are worth starting: each imports torch first."""


def parallel(function: Callable[[T], R], tasks: Sequence[T], workers: int | None) -> Iterator[R]:
    """Yield results in order: in this process, and in others from where the rest would take longer than they to start.

    ``workers``: 1 starts none, more start at once.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    several = min(workers or cores, len(tasks))
    started, alone = time.monotonic(), 0
    for alone, task in enumerate(tasks):
        if alone == 1:
            started = time.monotonic()  # the first one imports what the others use
        seconds_left = (time.monotonic() - started) / max(alone - 1, 1) * (len(tasks) - alone)
        if several > 1 and (workers or (alone > 1 and seconds_left > PAYS)):
            break
        yield function(task)
    else:
        return
    rest = tasks[alone:]
    with ProcessPoolExecutor(several, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        try:
            yield from pool.map(function, rest, chunksize=4)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that prepares died, most likely for want of memory; try semialign prepare DATA --workers 1 "
                "(in a script, call semialign under `if __name__ == '__main__':`)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
