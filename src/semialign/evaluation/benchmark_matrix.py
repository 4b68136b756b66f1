"""The runs of a benchmark: which there are, and carrying out one of them, here or in a process of its own."""

from collections.abc import Callable, Sequence
from typing import Any

from semialign.common.errors import require_known
from semialign.evaluation.benchmark_data import Opened, renew_prepared
from semialign.evaluation.benchmark_file import Bench, BenchData, BenchEntry
from semialign.evaluation.benchmark_identity import identify
from semialign.evaluation.benchmark_run import Run, carry_out, make_run

Say = Callable[[str, int, int], None]


def runs_of(made: Bench, data: BenchData) -> list[Run]:
    """Return the runs on a data set, seeds outermost: a matrix stopped early has compared all entries."""
    identity = identify(data)
    return [
        make_run(data, entry, seed, output=made.output, identity=identity)
        for seed in made.seeds
        for entry in made.entries_on(data)
        if seed in _seeds(made, entry)
    ]


def run_of(made: Bench, dataset: str, title: str) -> Run:
    """Return the run of that title on the data set of that name; of others nothing need be on this machine."""
    (data,) = (data for data in made.datasets if data.name == dataset)
    (run,) = (run for run in runs_of(made, data) if run.title == title)
    return run


def planned(made: Bench) -> int:
    """Return how many runs the whole matrix has."""
    return sum(len(_seeds(made, entry)) for data in made.datasets for entry in made.entries_on(data))


def chosen_runs(made: Bench, only: Sequence[str]) -> list[Run]:
    """Return the runs of the data sets and entries that ``only`` names (all of them where it names none)."""
    datasets, entries = {d.name for d in made.datasets}, {e.name for e in made.entries}
    for name in only:
        require_known(name, datasets | entries, "data set or entry")
    datasets, entries = datasets & set(only) or datasets, entries & set(only) or entries
    return [
        run
        for data in made.datasets
        if data.name in datasets
        for run in runs_of(made, data)
        if run.entry.name in entries
    ]


def carry_out_here(
    run: Run,
    opened: Opened,
    *,
    accelerator: str,
    side_by_side: int = 1,
    tell: Callable[[str], None],
    progress: Say | None = None,
) -> dict[str, Any]:
    """Carry out ``run`` in this process, on data prepared for its present split; returns its record."""
    if run.entry.given is None and renew_prepared(run.prepared, identify(run.data).trained(run.entry.labels)):
        tell(f"  the data set or its split has changed: {run.prepared} is made anew")
    return carry_out(run, opened, accelerator=accelerator, side_by_side=side_by_side, progress=progress)


def _seeds(made: Bench, entry: BenchEntry) -> tuple[int, ...]:
    # One folder of predictions counts once: said over for every seed, it would show a spread of nothing.
    return made.seeds if entry.given is None or entry.given.per_seed else made.seeds[:1]
