"""A matrix of data sets, entries and seeds, restartable run by run, to one JSON file and one page of tables."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError, require_known
from semialign.common.files import write_json, write_text
from semialign.evaluation.benchmark_data import (
    Opened,
    digest,
    identify,
    open_data,
    refuse_leaks,
    renew_prepared,
    require_fitting,
)
from semialign.evaluation.benchmark_file import Bench, BenchData, BenchEntry, load_bench
from semialign.evaluation.benchmark_machine import source_commit
from semialign.evaluation.benchmark_page import write_bench_page
from semialign.evaluation.benchmark_pairs import compare_pairs
from semialign.evaluation.benchmark_run import (
    CHANGED,
    FAILED,
    FINISHED,
    Run,
    carry_out,
    make_run,
    read_record,
    state_of,
)
from semialign.evaluation.benchmark_summary import summarise
from semialign.evaluation.benchmark_table import markdown
from semialign.evaluation.benchmark_words import duration
from semialign.evaluation.groups import FINGERPRINT, read_frequencies

Say = Callable[[str, int, int], None]
Tell = Callable[[str], None]
FORMAT, VERSION = "semialign benchmark", 1


@dataclass(frozen=True)
class BenchResult:
    """Where the results lie, what ``bench.json`` holds, and the failed runs of this call with their reasons."""

    output: Path
    value: dict[str, Any]
    failed: dict[str, str]


def bench(
    file: Path,
    *,
    output: Path | None = None,
    only: Sequence[str] = (),
    steps: int | None = None,
    minutes: float | None = None,
    seeds: Sequence[int] | None = None,
    accelerator: str = "auto",
    progress: Say | None = None,
    tell: Tell | None = None,
) -> BenchResult:
    """Train, predict and score every run of a benchmark file; writes ``bench.json``, ``bench.md`` and
    ``report.html`` to its output.

    Finished runs are not done again, interrupted and failed ones go on, those whose settings changed start anew.
    ``only``: names of data sets and entries to run; the results still hold whatever is finished. ``steps``,
    ``minutes``, ``seeds`` lie over the file. ``progress`` is called with (what, done, of), ``tell`` with lines of text.
    A run that fails is recorded and stops no other. Raises :class:`UserError` for a mistake in the file or its data.
    """
    made = load_bench(file, output=output, steps=steps, minutes=minutes, seeds=seeds)
    say = tell or (lambda line: None)
    chosen = _chosen(made, only)
    opened = {}
    for data in made.datasets:
        if any(run.data == data for run in chosen):
            opened[data.name] = open_data(data, made.output, progress=progress)
            require_fitting(opened[data.name], [run.entry for run in chosen if run.data == data])
            refuse_leaks(opened[data.name], made.output, progress=progress)
    states = [state_of(run) for run in chosen]
    say(f"{len(chosen)} runs, {states.count(FINISHED)} of them finished before; {made.length}")
    value, failed = _write(made), {}
    for place, (run, state) in enumerate(zip(chosen, states, strict=True), 1):
        if state == FINISHED:
            continue
        say(f"run {place} of {len(chosen)}: {run.title}{_left(made, chosen[place - 1 :])}")
        if state == CHANGED:
            say("  its settings have changed since it was made: done again")
        record = _carry_out(run, opened[run.data.name], accelerator, progress, say)
        say(f"  {_outcome(record)}")
        if record["state"] == FAILED:
            failed[run.title] = record["reason"]
        value = _write(made)  # after every run, so that a stopped matrix has its tables too
    return BenchResult(made.output, value, failed)


def list_runs(
    file: Path,
    *,
    output: Path | None = None,
    only: Sequence[str] = (),
    steps: int | None = None,
    minutes: float | None = None,
    seeds: Sequence[int] | None = None,
) -> list[tuple[Run, str]]:
    """Return the runs that :func:`bench` would see to, each with its state; trains and writes nothing."""
    made = load_bench(file, output=output, steps=steps, minutes=minutes, seeds=seeds)
    return [(run, state_of(run)) for run in _chosen(made, only)]


def _runs(made: Bench, data: BenchData) -> list[Run]:
    identity = identify(data)
    # Seeds outermost: a matrix stopped early has compared all entries.
    return [
        make_run(data, entry, seed, output=made.output, identity=identity)
        for seed in made.seeds
        for entry in made.entries
        if seed in _seeds(made, entry)
    ]


def _seeds(made: Bench, entry: BenchEntry) -> tuple[int, ...]:
    # One folder of predictions counts once: said over for every seed, it would show a spread of nothing.
    return made.seeds if entry.given is None or entry.given.per_seed else made.seeds[:1]


def _chosen(made: Bench, only: Sequence[str]) -> list[Run]:
    datasets, entries = {d.name for d in made.datasets}, {e.name for e in made.entries}
    for name in only:
        require_known(name, datasets | entries, "data set or entry")
    datasets, entries = datasets & set(only) or datasets, entries & set(only) or entries
    return [
        run for data in made.datasets if data.name in datasets for run in _runs(made, data) if run.entry.name in entries
    ]


def _carry_out(run: Run, opened: Opened, accelerator: str, progress: Say | None, say: Tell) -> dict[str, Any]:
    if run.entry.given is None and renew_prepared(run.prepared, digest([identify(run.data), run.entry.labels])):
        say(f"  the data set or its split has changed: {run.prepared} is made anew")
    return carry_out(run, opened, accelerator=accelerator, progress=progress)


def _records(made: Bench) -> Iterator[dict[str, Any]]:
    """Yield the record of every run of the matrix that is finished or failed under its present settings."""
    for data in made.datasets:
        try:
            runs = _runs(made, data)
        except UserError:
            continue  # left out by --only, and not on this machine
        for run in runs:
            record = read_record(run)
            if record is not None and record["key"] == run.key and record["state"] in (FINISHED, FAILED):
                # Names and grouping may have changed in the file since; they decide no run's result.
                named = {"dataset": data.name, "entry": run.entry.name, "group_by": data.group_by}
                found = {"folder": str(run.folder.relative_to(made.output)), "class_frequencies": _frequencies(run)}
                costs = {} if run.entry.given is None else run.entry.given.costs()
                yield record | named | found | costs


def _frequencies(run: Run) -> dict[str, float] | None:
    """Return the frequencies of the foreground classes in the labelled cases of a run; ``None`` where it failed."""
    return read_frequencies(run.folder) if (run.folder / FINGERPRINT).exists() else None


def _write(made: Bench) -> dict[str, Any]:
    records = list(_records(made))
    entries = [entry.name for entry in made.entries]
    value = {
        "format": FORMAT,
        "version": VERSION,
        "name": made.name,
        "description": made.description,
        "file": made.file.name,
        "length": made.length,
        "overrides": made.overrides,
        "seeds": list(made.seeds),
        "planned": len(made.datasets) * sum(len(_seeds(made, entry)) for entry in made.entries),
        "datasets": [data.name for data in made.datasets],
        "entries": entries,
        "baseline": made.baseline,
        "ceiling": made.ceiling,
        "versions": {"semialign": __version__, "python": platform.python_version()},
        "commit": source_commit(),
        "series": {data.name: data.series for data in made.datasets if data.series},
        "results": summarise(records, entries=entries, baseline=made.baseline, ceiling=made.ceiling),
        "pairs": compare_pairs(records, entries=entries),
        "runs": records,
    }
    write_json(made.output / "bench.json", value)
    write_text(made.output / "bench.md", markdown(value))
    write_bench_page(made.output, value)
    return value


def _outcome(record: dict[str, Any]) -> str:
    if record["state"] == FAILED:
        return f"failed: {record['reason']}"
    means = {name: of["summary"]["mean"]["dice"] for name, of in record["checkpoints"].items()}
    dice = [f"{'-' if mean is None else f'{mean:.3f}'} ({name} checkpoint)" for name, mean in means.items()]
    dice = [text.replace("(last checkpoint)", "(as given)") for text in dice] if record.get("given") else dice
    return f"mean Dice {', '.join(dice)}; {duration(record['seconds'])}"


def _left(made: Bench, waiting: Sequence[Run]) -> str:
    """Return `` (about ... left)`` from the time that runs have taken so far; at first from their training time."""
    took: dict[str, list[float]] = {}
    for record in _records(made):
        if record["state"] == FINISHED and not record.get("given"):
            took.setdefault(record["dataset"], []).append(record["seconds"])
    every = [seconds for runs in took.values() for seconds in runs]
    total, known = 0.0, True
    for run in waiting:
        if state_of(run) == FINISHED or run.entry.given is not None:
            continue
        seen = took.get(run.data.name) or every
        minutes = run.entry.resolved["training"]["minutes"]
        known = known and bool(seen or minutes)
        total += sum(seen) / len(seen) if seen else 60 * (minutes or 0)
    return f" ({'about' if every else 'at least'} {duration(total)} left)" if known else ""
