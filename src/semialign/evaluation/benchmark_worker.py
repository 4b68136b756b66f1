"""The process of one run of a benchmark beside others: reads what to do from its input, tells progress line by line.

Started by :mod:`semialign.evaluation.benchmark_jobs`, which sees to its device, cores and threads.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

MARK = "\x1e"
"""Begins a line that is meant for the process that started this one; libraries print what they like."""

EVERY = 0.25
"""Seconds between lines on the progress of one thing."""


def main() -> int:
    """Carry out the run that a line of JSON on the input names; returns the exit code."""
    import signal
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, args=[os.dup(sys.stdin.fileno())], daemon=True).start()
    # A process forked from this one, as a loader's are, closes the input first, and would wait for its reader for ever.
    sys.stdin = open(os.devnull)  # noqa: SIM115
    warnings.showwarning = lambda message, *rest, **more: _tell({"note": str(message)})  # type: ignore[assignment]
    from semialign.evaluation.benchmark_data import open_data
    from semialign.evaluation.benchmark_file import load_bench
    from semialign.evaluation.benchmark_matrix import carry_out_here, run_of

    made = load_bench(Path(asked["file"]), output=Path(asked["output"]), **asked["options"])
    run = run_of(made, asked["dataset"], asked["title"])
    if run.key != asked["key"]:
        print(f"{made.file}: was changed while its runs ran; run the same command again")
        return 1
    carry_out_here(
        run,
        open_data(run.data, made.output),
        accelerator=asked["accelerator"],
        side_by_side=asked["side_by_side"],
        tell=lambda line: _tell({"note": line}),
        progress=_Progress(),
    )
    return 0


class _Progress:
    """Tells a few times a second: training goes through many steps in that time."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if done == of or time.monotonic() - self._told.get(what, 0.0) > EVERY:
            self._told[what] = time.monotonic()
            _tell({"what": what, "done": done, "of": of})


def _tell(value: dict[str, Any]) -> None:
    print(f"\n{MARK}{json.dumps(value)}", flush=True)


def _end_with_parent(pipe: int) -> None:
    # The parent keeps the other end open as long as it lives, however it ends.
    while os.read(pipe, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
