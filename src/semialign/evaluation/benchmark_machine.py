"""What a run of a benchmark ran on and took: machine, source, peak memory, seconds a case, parameters."""

import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from semialign.common.allocator import give_back_freed_memory

Say = Callable[[str, int, int], None]


class CaseClock:
    """Passes progress on and takes the time a predicted case takes, loading of the model left out."""

    def __init__(self, progress: Say | None) -> None:
        self._progress = progress
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def __call__(self, what: str, done: int, of: int) -> None:
        if what == "cases":
            self._last = (done, time.perf_counter())
            self._first = self._first or self._last
        if self._progress is not None:
            self._progress(what, done, of)

    @property
    def seconds(self) -> float | None:
        """Mean seconds a case; ``None`` where none was predicted in this call."""
        if self._first is None or self._last[0] == self._first[0]:
            return None
        return round((self._last[1] - self._first[1]) / (self._last[0] - self._first[0]), 3)


def count_parameters(run: Path, *, accelerator: str = "auto") -> int:
    """Return how many parameters the prediction of one window uses: a student that only trains counts nothing."""
    import torch

    from semialign.inference.export import used_by_prediction
    from semialign.inference.model import load_trained

    model = load_trained(run, checkpoint="last", accelerator=accelerator)
    window = torch.zeros(1, len(model.plan.normalisation), *model.plan.patch_size, device=model.device)
    used = used_by_prediction(model.method, window)
    return sum(parameter.numel() for name, parameter in model.method.named_parameters() if name in used)


def machine_name(accelerator: str) -> str:
    """Return the GPU's name, or the processor's kind, the cores free to this process and whether it has bfloat16.

    Without it a processor takes half of the steps in the same time, and figures of two such machines do not compare.
    """
    import torch

    from semialign.inference.model import has_bfloat16

    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    has = "with" if has_bfloat16(torch.device("cpu")) else "without"
    return f"{platform.machine()} processor {has} bfloat16, {cores} core{'' if cores == 1 else 's'}"


def free_memory() -> None:
    """Give back what a run held, so that the next one finds it."""
    import torch

    gc.collect()  # networks hold themselves in cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak() -> bool:
    """Set the peak memory of this process back to what it holds now; returns whether the system can (Linux).

    Where it cannot, a run's ``result.json`` holds the largest peak of all runs of this process so far. That of the GPU
    can always be set back.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        give_back_freed_memory()  # or it would count from the start
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): reset the peak resident set size
    except OSError:
        return False
    return True


@cache
def source_commit() -> str | None:
    """Return the commit of semialign's source, with ``-dirty`` where files differ; ``None`` outside its repository."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        asked = ["git", "-C", str(package), *arguments]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # A virtual environment may lie inside somebody's own repository, whose commit says nothing.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parents[1]:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
