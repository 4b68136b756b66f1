"""``train``: from a data set and a method's name to a finished run folder."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from semialign.common.allocator import give_back_freed_memory, keep_freed_memory
from semialign.common.errors import UserError
from semialign.config import TrainingSettings, from_mapping
from semialign.data.prepare import Prepared, prepare
from semialign.data.splits import Split
from semialign.training.memory import memory_in_one_line
from semialign.training.resolve import resolve
from semialign.training.run_folder import (
    begin_run,
    describe_run,
    finish_run,
    open_run,
    require_no_run,
    require_same_split,
    started_with,
    starting_checkpoint,
    test_cases_seen,
)

Say = Callable[[str, int, int], None]


def train(
    data: Path,
    *,
    method: str | None = None,
    recipe: str | None = None,
    split: Path | Split | None = None,
    prepared: Path | None = None,
    output: Path | None = None,
    init: Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    dimensions: int | None = None,
    report: bool = True,
    progress: Say | None = None,
) -> Path:
    """Train on ``data`` and return the run folder.

    ``settings``: any field of :class:`TrainingSettings`, of the method's own settings, or ``plugin.key``; they lie over
    the recipe's. ``split``, ``prepared``: the split, and where the prepared data lie or go; a recipe may name a split
    and fields of the plan (see :func:`prepare`). ``dimensions``: 2 trains on the slices of volumes. ``init``: a run
    whose weights this one starts from. ``resume``: go on with ``output`` from its last checkpoint, with the settings it
    was started with. Raises :class:`UserError` for anything the user can mend.
    """
    import torch

    from semialign.methods.base import method_class, require_dimensions

    name, training, own, plugins = resolve(method, recipe, settings or {})
    if devices < 1 or nodes < 1:
        raise UserError(f"--devices {devices} --nodes {nodes}: must be at least 1")
    started = started_with(Path(output)) if resume and output else {}
    precision = started.get("precision")
    kind = method_class(str(started.get("method", name)))
    fabric = _fabric(accelerator, devices, nodes, str(precision or training.precision), may_rest=kind.may_rest)
    say = progress if progress is not None and fabric.is_global_zero else None
    preparing = partial(
        prepare,
        data,
        split,
        recipe=recipe,
        output=prepared,
        accelerator=accelerator,
        dimensions=dimensions,
        accept=lambda plan: require_dimensions(name, plan.dimensions),
    )
    if output and not resume:
        require_no_run(Path(output))  # before scans are prepared, which may take hours
    ready = _prepare_once(fabric, preparing, say)
    run = (
        Path(output)
        if output
        else Path("runs") / f"{ready.dataset.name.replace('/', '-')}-{name}-{ready.folder.name}-{training.seed}"
    )
    init = starting_checkpoint(init) if init is not None else None
    described = describe_run(ready, name, training, own, plugins, init)
    state = open_run(run, described, resume)
    if resume:  # what the run was started with counts, whatever is asked for now
        described = {key: state.get(key) for key in described} if state is not None else described
        name, own, plugins = described["method"], described["method_settings"], described["plugins"]
        asked, training = training, from_mapping(TrainingSettings, described["training"], str(run / "config.yaml"))
        if precision is None and asked.precision != training.precision:
            raise UserError(f"{run}: was started with precision={training.precision}; add --output {run}")
        require_same_split(run, ready.split)
        init = Path(described["init"]) if described.get("init") else None

    from semialign.common.seeding import seed_step
    from semialign.methods.base import build_method
    from semialign.networks.build import network_of_plan
    from semialign.training.checkpoint import load_method, load_run
    from semialign.training.loop import Loop

    seed_step(training.seed, "start")
    built = build_method(
        name, lambda: network_of_plan(ready.plan, ready.dataset.num_classes), own, plugins, plan=ready.plan
    )
    _notes(ready, built, name)
    if init is not None and state is None:
        load_method(built, load_run(init), init)
        if seen := test_cases_seen(init, ready):
            warnings.warn(
                f"{init}: its run has seen {len(seen)} of this split's test cases, such as {seen[0]}: scores on them "
                "would say nothing of new scans",
                stacklevel=2,
            )
    fabric.barrier()  # every process has seen that no run was there
    # Only now, when all that was asked for is known to fit: a run folder stands for a run that began.
    if fabric.is_global_zero:
        begin_run(run, ready, described, resumed=state is not None)
    fabric.barrier()
    if fabric.device.type == "cpu" and fabric.world_size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // fabric.world_size))
    if fabric.device.type == "cpu":
        keep_freed_memory()
    loop = Loop(
        fabric,
        built,
        ready,
        training,
        run=run,
        describe=described,
        workers=_workers(training),
        state=state,
        loggers=_loggers(run) if fabric.is_global_zero else (),
        progress=say,
    )
    with _others_end_too(fabric):
        with memory_in_one_line(run):
            place = loop.run_all()
        give_back_freed_memory()
        if fabric.is_global_zero:
            finish_run(run, ready, place, described, on_gpu=fabric.device.type == "cuda")
            if ready.split.unlabelled and (note := built.closing_note()):
                warnings.warn(note, stacklevel=2)
            if report:
                from semialign.evaluation.run_report import report_run

                report_run(run, accelerator=accelerator, progress=say)
    fabric.barrier()
    return run


def _fabric(accelerator: str, devices: int, nodes: int, precision: str, *, may_rest: bool) -> Any:
    from datetime import timedelta

    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    from semialign.inference.model import _device, in_bfloat16

    _require_all_asked_for(devices * nodes)
    device = _device(accelerator)
    low = in_bfloat16(precision, device)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise UserError(f"--devices {devices}: only {torch.cuda.device_count()} GPUs are seen here")
    # Preparing is done by the first rank; on a large data set the others wait for hours.
    strategy: Any = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(timeout=timedelta(hours=12), find_unused_parameters=may_rest)
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision="bf16-mixed" if low else "32-true",
    )
    fabric.launch()
    return fabric


def _require_all_asked_for(processes: int) -> None:
    """Raise :class:`UserError` where this was started more often than --devices and --nodes say.

    Each process would take itself for the only one, and all would write the same run folder.
    """
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):  # torchrun's, and srun's
        told = os.environ.get(name, "")
        if told.isdecimal() and int(told) > 1 and int(told) != processes:
            raise UserError(
                f"{name}={told}, but --devices times --nodes is {processes}: start as many processes as these ask for"
            )


def _prepare_once(fabric: Any, prepare_data: Callable[..., Prepared], say: Say | None) -> Prepared:
    """Prepare on the first process while the others wait; what it finds wrong ends them too, without another word."""
    mistake: UserError | None = None
    if fabric.is_global_zero:
        try:
            prepare_data(progress=say)
        except UserError as error:
            mistake = error
    if fabric.broadcast(mistake is not None):
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()  # its threads, alive at the end, may abort the process
        raise mistake or SystemExit(2)
    return prepare_data()


@contextmanager
def _others_end_too(fabric: Any) -> Iterator[None]:
    """Where this process fails, end those it has started: they would wait for it for hours, or end in a traceback."""
    try:
        yield
    except BaseException:
        for process in getattr(fabric.strategy.launcher, "procs", ()):
            process.kill()
            process.wait()
        raise


def _loggers(run: Path) -> list[Any]:
    from lightning_fabric.loggers import TensorBoardLogger

    return [TensorBoardLogger(run, name="tensorboard", version="")]


def _notes(ready: Prepared, method: Any, name: str) -> None:
    for warning in ready.fingerprint["warnings"][:20]:
        warnings.warn(warning, stacklevel=3)
    if not ready.split.unlabelled and any(method.stage_settings(stage).uses_unlabelled for stage in method.stages):
        warnings.warn(f"no unlabelled case: {name} trains on labels alone", stacklevel=3)


def _workers(training: TrainingSettings) -> int:
    if training.workers is not None:
        return training.workers
    return max(1, min(8, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 1))
