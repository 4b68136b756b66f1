"""One run of a benchmark: train, predict the test cases, score them, and leave a record of it in the run's folder."""

import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json, write_text
from semialign.config import merge
from semialign.evaluation.benchmark_data import Opened, delete_whole, prepared_folder
from semialign.evaluation.benchmark_file import BenchData, BenchEntry, slug
from semialign.evaluation.benchmark_given import stamps
from semialign.evaluation.benchmark_identity import Identity, digest
from semialign.evaluation.benchmark_machine import (
    CaseClock,
    count_parameters,
    forget_peak,
    free_memory,
    machine_name,
    source_commit,
)

Say = Callable[[str, int, int], None]
RECORD = "bench-run.json"
NEW, FINISHED, FAILED, INTERRUPTED, CHANGED = "new", "finished", "failed", "interrupted", "changed"
RELABELLED = "test labels changed"
_OF_TRAINING = ("machine", "commit", "side_by_side", "predict_seconds", "seconds")
_INDIFFERENT = ("seed", "workers")  # the run names its seed itself; the number of workers changes no result


@dataclass(frozen=True)
class Run:
    """One cell of the matrix. ``key``: a hash of all that its predictions hang on; ``scored_on``: of their labels."""

    data: BenchData
    entry: BenchEntry
    seed: int
    folder: Path
    prepared: Path
    key: str
    scored_on: str

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.data.name}, {self.entry.name}, seed {self.seed}"


def make_run(data: BenchData, entry: BenchEntry, seed: int, *, output: Path, identity: Identity) -> Run:
    """Return the run of ``entry`` on ``data`` under ``seed``; ``identity``: what ``identify(data)`` says."""
    if entry.given is not None:
        return _given_run(data, entry, seed, output=output, identity=identity)
    training = {k: v for k, v in entry.resolved["training"].items() if k not in _INDIFFERENT}
    key = digest([identity.trained(entry.labels), entry.resolved | {"training": training}, seed])
    folder = output / "runs" / slug(data.name) / slug(entry.name) / f"seed-{seed}"
    return Run(data, entry, seed, folder, prepared_folder(data, entry, output), key, identity.scored_on)


def _given_run(data: BenchData, entry: BenchEntry, seed: int, *, output: Path, identity: Identity) -> Run:
    assert entry.given is not None
    source = entry.given.folder_of(data.name, seed)
    # A phantom's cases are known only once it is made: all files count.
    key = digest([identity.learnt_from, entry.labels, str(source), stamps(source, identity.test)])
    folder = output / "runs" / slug(data.name) / slug(entry.name)
    folder /= f"seed-{seed}" if entry.given.per_seed else "given"
    return Run(data, entry, seed, folder, folder, key, identity.scored_on)


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
    """Return where ``run`` stands: new, finished, failed, interrupted, or changed since it was made.

    Where only the labels of test cases (or the names of classes) changed, what is finished is to be scored anew.
    """
    record = read_record(run)
    if record is None:
        return NEW
    if record["key"] != run.key:
        return CHANGED
    if record["state"] == FINISHED and record["scored_on"] != run.scored_on:
        return RELABELLED
    return str(record["state"])


def carry_out(
    run: Run, opened: Opened, *, accelerator: str = "auto", side_by_side: int = 1, progress: Say | None = None
) -> dict[str, Any]:
    """Do what is left of ``run`` and return its record, which is also written to the run's folder.

    A run of other settings in the same place is deleted; an interrupted or failed one goes on. Whatever goes wrong
    is put on record (``state`` failed, ``reason``), with the traceback in ``error.txt`` unless it is a user's mistake.
    Another tool's predictions are scored alone. ``side_by_side``: how many runs share the machine, for the record.
    """
    if state_of(run) == CHANGED:
        delete_whole(run.folder)
    own_peak = forget_peak()
    record = described(run, opened, accelerator) | ({"side_by_side": side_by_side} if side_by_side > 1 else {})
    record |= _made_before(run, record)
    write_json(run.folder / RECORD, record | {"state": INTERRUPTED})
    begun = time.monotonic()
    try:
        if run.entry.given is not None:
            source = run.entry.given.folder_of(run.data.name, run.seed)
            record |= run.entry.given.costs() | {"steps": None, "source": str(source)}
            record["checkpoints"] = {"last": {"step": None, **_score(run, opened, source, "given", progress)}}
        else:
            record |= _train(run, opened, accelerator, progress, own_peak)
            record |= _predicted(run, opened, accelerator, record, progress)
        # Scored anew, it still took what it took: the time left of others is told by it.
        record |= {"state": FINISHED, "seconds": record.get("seconds") or round(time.monotonic() - begun, 1)}
    except Exception as error:  # the other runs of the matrix go on
        record |= {"state": FAILED, "reason": _reason(error)}
        if not isinstance(error, UserError):
            write_text(run.folder / "error.txt", traceback.format_exc())
    finally:
        free_memory()
    write_json(run.folder / RECORD, record)
    return record


def described(run: Run, opened: Opened, accelerator: str) -> dict[str, Any]:
    """Return what a record says of ``run`` before it has begun."""
    split = opened.split_for(run.entry)
    parts = {part: len(ids) for part, ids in asdict(split).items() if part != "protocol"}
    named = opened.split.protocol if opened.split.protocol != str(run.data.split) else Path(opened.split.protocol).stem
    return {
        "key": run.key,
        "scored_on": run.scored_on,
        "dataset": run.data.name,
        "entry": run.entry.name,
        "seed": run.seed,
        "labels": run.entry.labels,
        "settings": merge(run.entry.resolved, {"training": {"seed": run.seed}}),
        "protocol": named,
        "cases": parts,
        "machine": machine_name(accelerator) if run.entry.given is None else None,
        "given": run.entry.given is not None,
        "versions": {"semialign": __version__, "python": platform.python_version()},
        "commit": source_commit(),
    }


def _made_before(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a run that goes on says of what trained it: that is not who scores it now."""
    before = read_record(run) or {}
    if not (run.folder / "config.yaml").exists():  # nothing was trained
        return {}
    kept = {key: before[key] for key in _OF_TRAINING if key in before}
    if (run.folder / "result.json").exists():
        return kept
    # Trained by more than one: say so.
    return kept | {
        key: f"{before[key]}, then {record[key]}"
        for key in ("machine", "commit")
        if before.get(key) and record[key] and record[key] not in before[key]
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
    kept |= {"peak_gpu_bytes": result.get("peak_gpu_bytes")}
    # Runs share a process: where its peak cannot be set back, theirs holds that of all runs before and is no figure.
    return kept | {"peak_memory_bytes": result.get("peak_memory_bytes") if own_peak else None}


def _predicted(
    run: Run, opened: Opened, accelerator: str, record: Mapping[str, Any], progress: Say | None
) -> dict[str, Any]:
    clock = CaseClock(progress)

    def timed(what: str, done: int, of: int) -> None:
        clock(what, done, of)
        if what == "cases" and clock.seconds is not None:
            # On record at once: a call that goes on finds the predictions there, and could not time them.
            write_json(run.folder / RECORD, {**record, "predict_seconds": clock.seconds, "state": INTERRUPTED})

    _predict(run, opened, "last", accelerator, timed)
    seconds = clock.seconds or record.get("predict_seconds")
    scored = {"last": _scored(run, opened, "last", progress)}
    # Best is best on validation cases; without any, only the last checkpoint is reported.
    if opened.split.validation and (run.folder / "best.pt").exists():
        same = _step_of(run, "best") == _step_of(run, "last")  # and so are the weights
        if not same:
            _predict(run, opened, "best", accelerator, progress)
        scored["best"] = dict(scored["last"]) if same else _scored(run, opened, "best", progress)
    parameters = count_parameters(run.folder, accelerator=accelerator)
    return {"checkpoints": scored, "predict_seconds": seconds, "parameters": parameters}


def _step_of(run: Run, which: str) -> int:
    from semialign.training.checkpoint import load_checkpoint

    return int(load_checkpoint(run.folder / f"{which}.pt")["place"]["steps_done"])


def _predict(run: Run, opened: Opened, which: str, accelerator: str, progress: Say | None) -> None:
    from semialign.inference.predictor import predict

    folder = _predictions(run, which)
    cases = [opened.dataset.cases[case] for case in opened.split.test]
    done = predict([run.folder], cases, folder, checkpoint=which, accelerator=accelerator, progress=progress)
    for reason in done.failed.values():
        raise UserError(reason)


def _predictions(run: Run, which: str) -> Path:
    return run.folder / "predictions" / which


def _scored(run: Run, opened: Opened, which: str, progress: Say | None) -> dict[str, Any]:
    return {"step": _step_of(run, which), **_score(run, opened, _predictions(run, which), which, progress)}


def _score(run: Run, opened: Opened, predictions: Path, name: str, progress: Say | None) -> dict[str, Any]:
    from semialign.evaluation.evaluate import evaluate

    dataset = opened.dataset
    evaluation = evaluate(
        predictions,
        dataset.root / "labelsTr",
        output=run.folder / "evaluation" / name,
        dataset_json=dataset.root / "dataset.json",
        cases=opened.split.test,
        progress=progress,
    )
    summary = {key: of for key, of in evaluation.summary.items() if key not in ("predictions", "labels")}
    return {"summary": summary, "case_dice": evaluation.case_dice(), "scores": evaluation.cases}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"[:500]
