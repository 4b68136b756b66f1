"""Training that runs out of memory ends in one line; any other fault keeps its traceback."""

from pathlib import Path

import pytest
import torch

from semialign.common.errors import UserError
from semialign.training.memory import memory_in_one_line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory to train"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "batch_labelled=1"),
        (MemoryError(), "patch_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "--set workers=0"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "--shm-size"),
    ],
)
def test_want_of_memory_is_one_line(error: Exception, words: str) -> None:
    with pytest.raises(UserError, match=words) as found, memory_in_one_line(Path("runs/first")):
        raise error
    assert str(found.value).startswith("runs/first: ")
    assert "\n" not in str(found.value)


def test_other_faults_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_in_one_line(Path("run")):
        raise RuntimeError("shapes do not fit")
