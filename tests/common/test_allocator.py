"""Freed memory is kept for the next step, unless the environment says how memory is to be handled."""

import os
import platform
import subprocess
import sys

import pytest

from semialign.common.allocator import keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

PAGES = """
import resource, sys, torch
from semialign.common.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def page_faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def allocate():
    for _ in range(10):
        torch.ones(2**26, dtype=torch.uint8)
allocate()
before = page_faults()
allocate()
print(page_faults() - before)
"""


def _printed(script: str, *how: str) -> list[int]:
    """The numbers that ``script`` prints in a process whose environment says nothing of memory."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "LD_PRELOAD"}
    command = [sys.executable, "-c", script, *how]
    return [int(n) for n in subprocess.run(command, check=True, capture_output=True, env=own).stdout.split()]


@glibc
def test_a_freed_block_needs_no_new_pages() -> None:
    assert _printed(PAGES, "keep")[0] * 20 < _printed(PAGES)[0]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"])
def test_the_environments_own_word_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


HELD = """
import os, torch
from pathlib import Path
from semialign.common.allocator import give_back_freed_memory, keep_freed_memory
def held(): return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = held()
assert keep_freed_memory()
torch.ones(2**26, dtype=torch.uint8)
kept = held()
give_back_freed_memory()
print(kept - before, held() - before)
"""


@glibc
def test_what_was_kept_is_given_back() -> None:
    kept, left = _printed(HELD)
    assert kept > 60 * 2**20
    assert left * 10 < kept
