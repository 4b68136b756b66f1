"""What the C library does with memory that tensors no longer need."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for the next step; returns whether it does.

    glibc gives every large block back to the system when it is freed, and a training step then waits for tens of
    thousands of pages that it had a moment ago. The peak rises by up to a fifth: blocks are cut from what is kept.
    Nothing changes where the environment already says how (``MALLOC_...`` or another allocator), or where the C library
    is not glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "LD_PRELOAD" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library called None
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


def give_back_freed_memory() -> None:
    """Give the system all that this process kept; nothing happens where the C library is not glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
