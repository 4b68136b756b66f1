"""Several runs of a benchmark at once, each in a process with a GPU, or a share of the cores, of its own."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import write_json
from semialign.evaluation.benchmark_data import Opened
from semialign.evaluation.benchmark_file import Bench
from semialign.evaluation.benchmark_run import FAILED, INTERRUPTED, RECORD, Run, described, read_record
from semialign.evaluation.benchmark_worker import MARK

WORKER = (sys.executable, "-m", "semialign.evaluation.benchmark_worker")
PREPARING = ("check", "compare", "store")
"""What a run tells of while it prepares its data; from then on others may read them."""


@dataclass(frozen=True)
class Listener:
    """What is called as runs go on, always in the thread that asked for them."""

    started: Callable[[Run], None]
    progress: Callable[[Run, str, int, int], None]
    note: Callable[[str], None]
    finished: Callable[[Run, Mapping[str, Any]], None]


@dataclass
class _Child:
    run: Run
    slot: int
    process: "subprocess.Popen[str]"
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=3))


def gpus(accelerator: str) -> list[str]:
    """Return the names by which processes are given the GPUs that are seen here; none where the processor computes."""
    if accelerator == "cpu":
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(count)])[:count]


def number_of_jobs(asked: int | None, accelerator: str) -> int:
    """Return how many runs go side by side: as asked, else one a GPU; :class:`UserError` below one."""
    if asked is not None and asked < 1:
        raise UserError(f"--jobs {asked}: must be at least 1")
    return asked or max(1, len(gpus(accelerator)))


def run_side_by_side(
    made: Bench, runs: Sequence[Run], opened: Mapping[str, Opened], *, jobs: int, accelerator: str, listener: Listener
) -> None:
    """Carry out ``runs``, ``jobs`` at a time, and tell ``listener``; every one leaves its record as always.

    Runs that share prepared data wait until the first of them has prepared. A process that dies is put on record as
    failed. However this call ends, its processes end with it.
    """
    events: SimpleQueue[tuple[_Child, dict[str, Any] | None]] = SimpleQueue()
    waiting, active = list(runs), list[_Child]()
    devices, ready = gpus(accelerator), set[Path]()
    try:
        while waiting or active:
            busy = {child.run.prepared for child in active} - ready
            startable = (run for run in waiting if run.entry.given is not None or run.prepared not in busy)
            run = next(startable, None) if len(active) < jobs else None
            if run is not None:
                waiting.remove(run)
                slot = min(set(range(jobs)) - {child.slot for child in active})
                active.append(_start(made, run, slot, jobs, accelerator, devices, events))
                listener.started(run)
                continue
            child, said = events.get()
            if said is None:
                active.remove(child)
                listener.finished(child.run, _outcome(child, opened[child.run.data.name], accelerator))
            elif "note" in said:
                listener.note(said["note"])
            else:
                if said["what"] not in PREPARING:
                    ready.add(child.run.prepared)
                listener.progress(child.run, said["what"], said["done"], said["of"])
    finally:
        for child in active:
            child.process.kill()
        for child in active:
            child.process.wait()


def surroundings(slot: int, jobs: int, devices: Sequence[str]) -> tuple[dict[str, str], set[int] | None]:
    """Return the environment of the process in ``slot`` of ``jobs``, and the cores it keeps to (``None``: all)."""
    if devices:
        return {**os.environ, "CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}, None
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    share = max(1, len(cores) // jobs)
    start = slot * share % len(cores)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(asked)) if asked.isdecimal() and int(asked) else share
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}, set(cores[start : start + share])


def _start(
    made: Bench, run: Run, slot: int, jobs: int, accelerator: str, devices: Sequence[str], events: Any
) -> _Child:
    environment, cores = surroundings(slot, jobs, devices)
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    asked = {
        "file": str(made.file),
        "output": str(made.output),
        "options": made.overrides,
        "dataset": run.data.name,
        "title": run.title,
        "key": run.key,
        "accelerator": accelerator,
        "side_by_side": jobs,
    }
    process = subprocess.Popen(
        WORKER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",  # whatever the locale; a library's odd bytes end no benchmark
        errors="replace",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
    )
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()  # and left open: the process ends when it closes
    child = _Child(run, slot, process)
    threading.Thread(target=_listen, args=(child, events), daemon=True).start()
    return child


def _listen(child: _Child, events: Any) -> None:
    assert child.process.stdout is not None
    for line in child.process.stdout:
        if line.startswith(MARK):
            events.put((child, json.loads(line[1:])))
        elif line.strip():
            child.last_words.append(line.strip())
    child.process.wait()
    events.put((child, None))


def _outcome(child: _Child, opened: Opened, accelerator: str) -> dict[str, Any]:
    assert child.process.stdin is not None
    child.process.stdin.close()
    run, code = child.run, child.process.returncode
    record = read_record(run)
    if record is None or record["key"] != run.key:
        record = described(run, opened, accelerator) | {"state": INTERRUPTED}
    if record["state"] != INTERRUPTED:
        return record
    last = f": {child.last_words[-1]}" if child.last_words else ""
    why = f"its process was ended (signal {-code}), perhaps for want of memory" if code < 0 else "its process died"
    record |= {"state": FAILED, "reason": f"{why}{last}"[:500]}
    write_json(run.folder / RECORD, record)
    return record
