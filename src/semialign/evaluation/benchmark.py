"""A matrix of data sets, entries and seeds, restartable run by run, to one JSON file and one page of tables."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError
from semialign.common.files import write_json, write_text
from semialign.evaluation.benchmark_data import open_data, refuse_leaks, require_fitting
from semialign.evaluation.benchmark_file import Bench, load_bench
from semialign.evaluation.benchmark_jobs import Listener, number_of_jobs, run_side_by_side
from semialign.evaluation.benchmark_machine import source_commit
from semialign.evaluation.benchmark_matrix import carry_out_here, chosen_runs, planned, runs_of
from semialign.evaluation.benchmark_page import write_bench_page
from semialign.evaluation.benchmark_pairs import compare_pairs
from semialign.evaluation.benchmark_run import CHANGED, FAILED, FINISHED, RELABELLED, Run, read_record, state_of
from semialign.evaluation.benchmark_summary import summarise
from semialign.evaluation.benchmark_table import markdown
from semialign.evaluation.benchmark_words import duration
from semialign.evaluation.groups import FINGERPRINT, read_frequencies

Say = Callable[[str, int, int], None]
Tell = Callable[[str], None]
RUNNING = "running"
FORMAT, VERSION = "semialign benchmark", 1


@dataclass(frozen=True)
class Told:
    """Where a run stands: ``state`` running, finished or failed; what it is at, ``done`` of ``of``; or its outcome."""

    title: str
    state: str
    what: str
    done: int
    of: int


Watch = Callable[[Told], None]


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
    jobs: int | None = None,
    progress: Say | None = None,
    tell: Tell | None = None,
    watch: Watch | None = None,
) -> BenchResult:
    """Train, predict and score every run of a benchmark file; writes ``bench.json``, ``bench.md`` and
    ``report.html`` to its output.

    Finished runs are not done again, interrupted and failed ones go on, those whose settings changed start anew.
    ``only``: names of data sets and entries to run; the results still hold whatever is finished. ``steps``,
    ``minutes``, ``seeds`` lie over the file. ``jobs``: runs that go side by side, each in a process with a GPU or a
    share of the cores of its own (default: one a GPU; without any, one in this process). ``progress`` is called with
    (what, done, of), ``tell`` with lines of text, ``watch`` with where a run stands. A run that fails is recorded and
    stops no other. Raises :class:`UserError` for a mistake in the file or its data.
    """
    made = load_bench(file, output=output, steps=steps, minutes=minutes, seeds=seeds)
    say = tell or (lambda line: None)
    chosen = chosen_runs(made, only)
    opened = {}
    for data in made.datasets:
        if any(run.data == data for run in chosen):
            opened[data.name] = open_data(data, made.output, progress=progress)
            require_fitting(opened[data.name], [run.entry for run in chosen if run.data == data])
            refuse_leaks(opened[data.name], made.output, progress=progress)
    states = [state_of(run) for run in chosen]
    say(f"{len(chosen)} runs, {states.count(FINISHED)} of them finished before; {made.length}")
    together = number_of_jobs(jobs, accelerator)
    matrix = _Matrix(made, chosen, states, together, say, watch or (lambda told: None))
    due = [run for run, state in zip(chosen, states, strict=True) if state != FINISHED]
    if together > 1:  # even for a single run that is left: a share of the cores gives the same result as before
        listener = Listener(matrix.started, matrix.progress, say, matrix.finished)
        run_side_by_side(made, due, opened, jobs=together, accelerator=accelerator, listener=listener)
        return BenchResult(made.output, matrix.value, matrix.failed)
    for run in due:
        matrix.started(run)

        def heard(what: str, done: int, of: int, run: Run = run) -> None:
            matrix.progress(run, what, done, of)
            if progress is not None:
                progress(what, done, of)

        matrix.finished(
            run, carry_out_here(run, opened[run.data.name], accelerator=accelerator, tell=say, progress=heard)
        )
    return BenchResult(made.output, matrix.value, matrix.failed)


class _Matrix:
    """Tells how the runs go, and writes the results after each, so that a stopped matrix has its tables too."""

    def __init__(
        self, made: Bench, chosen: Sequence[Run], states: Sequence[str], together: int, say: Tell, watch: Watch
    ) -> None:
        self.made, self.chosen, self.together, self.say, self.watch = made, chosen, together, say, watch
        self.states = dict(zip([run.title for run in chosen], states, strict=True))
        self.value, self.failed = _write(made), dict[str, str]()

    def started(self, run: Run) -> None:
        place = self.chosen.index(run)
        self.say(
            f"run {place + 1} of {len(self.chosen)}: {run.title}{_left(self.made, self.chosen[place:], self.together)}"
        )
        if self.states[run.title] == CHANGED:
            self.say("  its settings or its data have changed since it was made: done again")
        if self.states[run.title] == RELABELLED:
            self.say("  labels of its test cases, or names of classes, have changed since: scored anew")
        self.watch(Told(run.title, RUNNING, "begins", 0, 0))

    def progress(self, run: Run, what: str, done: int, of: int) -> None:
        self.watch(Told(run.title, RUNNING, what, done, of))

    def finished(self, run: Run, record: Mapping[str, Any]) -> None:
        outcome = _outcome(record)
        if record["state"] == FAILED:
            self.failed[run.title] = record["reason"]
        self.say(f"  {outcome}" if self.together == 1 else f"  {run.title}: {outcome}")
        self.value = _write(self.made)
        self.watch(Told(run.title, record["state"], outcome, 0, 0))


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
    return [(run, state_of(run)) for run in chosen_runs(made, only)]


def _records(made: Bench, left_out: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the record of every run of the matrix that is finished or failed under its present settings.

    ``left_out`` is given the data sets that cannot be read, with the reason: without --only, there are none.
    """
    for data in made.datasets:
        try:
            runs = runs_of(made, data)
        except UserError as error:
            (left_out if left_out is not None else {})[data.name] = str(error)
            continue
        for run in runs:
            record = read_record(run)
            if record is not None and state_of(run) in (FINISHED, FAILED):
                # Names and grouping may have changed in the file since; they decide no run's result.
                named = {"dataset": data.name, "entry": run.entry.name, "group_by": data.group_by}
                found = {"folder": str(run.folder.relative_to(made.output)), "class_frequencies": _frequencies(run)}
                costs = {} if run.entry.given is None else run.entry.given.costs()
                yield record | named | found | costs


def _frequencies(run: Run) -> dict[str, float] | None:
    """Return the frequencies of the foreground classes in the labelled cases of a run; ``None`` where it failed."""
    return read_frequencies(run.folder) if (run.folder / FINGERPRINT).exists() else None


def _write(made: Bench) -> dict[str, Any]:
    left_out: dict[str, str] = {}
    records = list(_records(made, left_out))
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
        "planned": planned(made),
        "datasets": [data.name for data in made.datasets],
        "entries": entries,
        "entries_of": {data.name: [entry.name for entry in made.entries_on(data)] for data in made.datasets},
        "baseline": made.baseline,
        "ceiling": made.ceiling,
        "versions": {"semialign": __version__, "python": platform.python_version()},
        "commit": source_commit(),
        "left_out": left_out,
        "series": {data.name: data.series for data in made.datasets if data.series},
        "results": summarise(records, entries=entries, baseline=made.baseline, ceiling=made.ceiling),
        "pairs": compare_pairs(records, entries=entries),
        "runs": records,
    }
    write_json(made.output / "bench.json", value)
    write_text(made.output / "bench.md", markdown(value))
    write_bench_page(made.output, value)
    return value


def _outcome(record: Mapping[str, Any]) -> str:
    if record["state"] == FAILED:
        return f"failed: {record['reason']}"
    means = {name: of["summary"]["mean"]["dice"] for name, of in record["checkpoints"].items()}
    dice = [f"{'-' if mean is None else f'{mean:.3f}'} ({name} checkpoint)" for name, mean in means.items()]
    dice = [text.replace("(last checkpoint)", "(as given)") for text in dice] if record.get("given") else dice
    return f"mean Dice {', '.join(dice)}; {duration(record['seconds'])}"


def _left(made: Bench, waiting: Sequence[Run], together: int) -> str:
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
    return f" ({'about' if every else 'at least'} {duration(total / together)} left)" if known else ""
