"""One run of a benchmark: train, predict the test cases, score them, and leave a record of it in the run's folder."""

import gc
import os
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json, write_text
from semialign.config import merge
from semialign.evaluation.benchmark_data import Opened, digest, prepared_folder
from semialign.evaluation.benchmark_file import BenchData, BenchEntry, slug

Say = Callable[[str, int, int], None]
RECORD = "bench-run.json"
NEW, FINISHED, FAILED, INTERRUPTED, CHANGED = "new", "finished", "failed", "interrupted", "changed"
_INDIFFERENT = ("seed", "workers")  # the run names its seed itself; the number of workers changes no result


@dataclass(frozen=True)
class Run:
    """One cell of the matrix. ``key`` is a hash of all that decides its result."""

    data: BenchData
    entry: BenchEntry
    seed: int
    folder: Path
    prepared: Path
    key: str

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.data.name}, {self.entry.name}, seed {self.seed}"


def make_run(data: BenchData, entry: BenchEntry, seed: int, *, output: Path, identity: Any) -> Run:
    """Return the run of ``entry`` on ``data`` under ``seed``; ``identity``: what ``identify(data)`` says."""
    training = {k: v for k, v in entry.resolved["training"].items() if k not in _INDIFFERENT}
    key = digest([identity, entry.labels, entry.resolved | {"training": training}, seed])
    folder = output / "runs" / slug(data.name) / slug(entry.name) / f"seed-{seed}"
    return Run(data, entry, seed, folder, prepared_folder(data, entry, output), key)


def read_record(run: Run) -> dict[str, Any] | None:
    """Return what is on record of ``run``; ``None`` where nothing is.

    Raises :class:`UserError` where a folder stands in its place that no benchmark made.
    """
    if (run.folder / RECORD).exists():
        return dict(read_json(run.folder / RECORD))
    if run.folder.exists() and (not run.folder.is_dir() or any(run.folder.iterdir())):
        raise UserError(f"{run.folder}: was not made by a benchmark; move it or choose another --output")
    return None


def state_of(run: Run) -> str:
    """Return where ``run`` stands: new, finished, failed, interrupted, or changed since it was made."""
    record = read_record(run)
    if record is None:
        return NEW
    return str(record["state"]) if record["key"] == run.key else CHANGED


def carry_out(run: Run, opened: Opened, *, accelerator: str = "auto", progress: Say | None = None) -> dict[str, Any]:
    """Do what is left of ``run`` and return its record, which is also written to the run's folder.

    A run of other settings in the same place is deleted; an interrupted or failed one goes on. Whatever goes wrong
    is put on record (``state`` failed, ``reason``), with the traceback in ``error.txt`` unless it is a user's mistake.
    """
    if state_of(run) == CHANGED:
        shutil.rmtree(run.folder)
    own_peak = forget_peak()
    record = _described(run, opened, accelerator)
    write_json(run.folder / RECORD, record | {"state": INTERRUPTED})
    begun = time.monotonic()
    try:
        record |= _train(run, opened, accelerator, progress, own_peak)
        record["checkpoints"] = _score_all(run, opened, accelerator, progress)
        record |= {"state": FINISHED, "seconds": round(time.monotonic() - begun, 1)}
    except Exception as error:  # the other runs of the matrix go on
        record |= {"state": FAILED, "reason": _reason(error)}
        if not isinstance(error, UserError):
            write_text(run.folder / "error.txt", traceback.format_exc())
    finally:
        _free_memory()
    write_json(run.folder / RECORD, record)
    return record


def _described(run: Run, opened: Opened, accelerator: str) -> dict[str, Any]:
    split = opened.split_for(run.entry)
    parts = {part: len(ids) for part, ids in asdict(split).items() if part != "protocol"}
    named = opened.split.protocol if opened.split.protocol != str(run.data.split) else Path(opened.split.protocol).stem
    return {
        "key": run.key,
        "dataset": run.data.name,
        "entry": run.entry.name,
        "seed": run.seed,
        "labels": run.entry.labels,
        "settings": merge(run.entry.resolved, {"training": {"seed": run.seed}}),
        "protocol": named,
        "cases": parts,
        "machine": _machine(accelerator),
        "versions": {"semialign": __version__, "python": platform.python_version()},
        "commit": source_commit(),
    }


def _train(run: Run, opened: Opened, accelerator: str, progress: Say | None, own_peak: bool) -> dict[str, Any]:
    from semialign.training.train import train

    if not (run.folder / "result.json").exists():
        train(
            opened.dataset.root,
            method=run.entry.method,
            recipe=run.entry.recipe,
            split=opened.split_for(run.entry),
            prepared=run.prepared,
            output=run.folder,
            resume=(run.folder / "config.yaml").exists(),
            settings={**run.entry.settings, "seed": run.seed},
            accelerator=accelerator,
            report=False,  # `semialign report RUN` makes a run's page where it is wanted
            progress=progress,
        )
    result = read_json(run.folder / "result.json")
    kept = {key: result.get(key) for key in ("steps", "training_seconds", "best_validation_dice", "versions")}
    # Runs share a process: where its peak cannot be set back, theirs holds that of all runs before and is no figure.
    return kept | {"peak_memory_bytes": result.get("peak_memory_bytes") if own_peak else None}


def _score_all(run: Run, opened: Opened, accelerator: str, progress: Say | None) -> dict[str, Any]:
    scored = {"last": _score(run, opened, "last", accelerator, progress)}
    # Best is best on validation cases; without any, only the last checkpoint is reported.
    if opened.split.validation and (run.folder / "best.pt").exists():
        same = _step_of(run, "best") == _step_of(run, "last")  # and so are the weights
        scored["best"] = dict(scored["last"]) if same else _score(run, opened, "best", accelerator, progress)
    return scored


def _step_of(run: Run, which: str) -> int:
    from semialign.training.checkpoint import load_checkpoint

    return int(load_checkpoint(run.folder / f"{which}.pt")["place"]["steps_done"])


def _score(run: Run, opened: Opened, which: str, accelerator: str, progress: Say | None) -> dict[str, Any]:
    from semialign.evaluation.evaluate import evaluate
    from semialign.inference.predictor import predict

    dataset, test = opened.dataset, opened.split.test
    folder = run.folder / "predictions" / which
    images = [image for case in test for image in dataset.cases[case].images]
    done = predict([run.folder], images, folder, checkpoint=which, accelerator=accelerator, progress=progress)
    for reason in done.failed.values():
        raise UserError(reason)
    evaluation = evaluate(
        folder,
        dataset.root / "labelsTr",
        output=run.folder / "evaluation" / which,
        dataset_json=dataset.root / "dataset.json",
        cases=test,
        progress=progress,
    )
    summary = {key: of for key, of in evaluation.summary.items() if key not in ("predictions", "labels")}
    step = _step_of(run, which)
    return {"step": step, "summary": summary, "case_dice": evaluation.case_dice(), "scores": evaluation.cases}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"[:500]


def _machine(accelerator: str) -> str:
    import torch

    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()} processor, {cores} cores"


def _free_memory() -> None:
    import torch

    gc.collect()  # networks hold themselves in cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_peak() -> bool:
    """Set the peak memory of this process back to what it holds now; returns whether the system can (Linux).

    Where it cannot, a run's ``result.json`` holds the largest peak of all runs of this process so far.
    """
    try:
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
