"""``train``: from a data set and a method's name to a finished run folder."""

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError, closest, require_known
from semialign.common.files import make_folder, read_json, read_yaml, write_json, write_yaml
from semialign.config import TrainingSettings, from_mapping, merge, to_mapping
from semialign.data.plan import with_defaults
from semialign.data.prepare import Prepared, prepare
from semialign.data.splits import Split, write_split

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
    started = _started_with(Path(output)) if resume and output else {}
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
    ready = _prepare_once(fabric, preparing, say)
    run = (
        Path(output)
        if output
        else Path("runs") / f"{ready.dataset.name.replace('/', '-')}-{name}-{ready.folder.name}-{training.seed}"
    )
    described = _describe(ready, name, training, own, plugins)
    state = _open_run(run, described, resume)
    if resume:  # what the run was started with counts, whatever is asked for now
        described = {key: state[key] for key in described} if state is not None else described
        name, own, plugins = described["method"], described["method_settings"], described["plugins"]
        asked, training = training, from_mapping(TrainingSettings, described["training"], str(run / "config.yaml"))
        if precision is None and asked.precision != training.precision:
            raise UserError(f"{run}: was started with precision={training.precision}; add --output {run}")
        _require_same_split(run, ready.split)

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
        path = Path(init) / "best.pt" if (Path(init) / "best.pt").exists() else Path(init) / "last.pt"
        load_method(built, load_run(path), path)
    fabric.barrier()  # every process has seen that no run was there
    # Only now, when all that was asked for is known to fit: a run folder stands for a run that began.
    if fabric.is_global_zero:
        _begin(run, ready, described, resumed=state is not None)
    fabric.barrier()
    if fabric.device.type == "cpu" and fabric.world_size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // fabric.world_size))
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
        place = loop.run_all()
        if fabric.is_global_zero:
            _finish(run, ready, place, described, on_gpu=fabric.device.type == "cuda")
            if ready.split.unlabelled and (note := built.closing_note()):
                warnings.warn(note, stacklevel=2)
            if report:
                from semialign.evaluation.run_report import report_run

                report_run(run, accelerator=accelerator, progress=say)
    fabric.barrier()
    return run


def resolve(
    method: str | None, recipe: str | None, settings: Mapping[str, Any]
) -> tuple[str, TrainingSettings, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return method, training settings, the method's own and the plug-ins' settings, every key checked.

    Raises :class:`UserError` for an unknown method, recipe, plug-in or key, with the nearest name.
    """
    from semialign.methods.base import NoSettings, method_class, plugin_class
    from semialign.recipes.load import ASIDE, load_recipe, settings_of

    said = settings_of(load_recipe(recipe)) if recipe else {}
    values = merge(said, settings, {"method": method} if method else {})
    name = str(values.get("method", TrainingSettings.method))
    kind = method_class(name)
    plugins = values.get("plugins") or []
    plugins = [plugins] if isinstance(plugins, str) else plugins
    if not isinstance(plugins, list | tuple) or not all(isinstance(p, str) for p in plugins):
        raise UserError(f"plugins must be a list of names, not {plugins!r}")
    general = {field.name for field in fields(TrainingSettings)}
    of_method = {field.name for field in fields(kind.Settings)}
    for key in values:
        if key in ASIDE:
            raise UserError(f"'{key}' is no setting of a run; write it into a recipe file (docs/reference/recipes.md)")
        if key not in general | of_method | set(plugins):
            raise UserError(f"unknown key '{key}'{closest(str(key), general | of_method | set(plugins))}")
    training = from_mapping(
        TrainingSettings,
        {k: v for k, v in values.items() if k in general} | {"method": name, "plugins": plugins},
        "training",
    )
    _require_sensible(training)
    for plugin in plugins:
        if not isinstance(values.get(plugin, {}), Mapping):
            raise UserError(f"{plugin}: must hold keys, such as --set {plugin}.weight=0.5, not {values[plugin]!r}")
    own = to_mapping(from_mapping(kind.Settings, {k: v for k, v in values.items() if k in of_method}, name))
    its = {
        p: to_mapping(from_mapping(getattr(plugin_class(p), "Settings", NoSettings), values.get(p, {}), p))
        for p in plugins
    }
    if plugins and not kind.takes_plugins:
        raise UserError(f"method {name} takes no plug-ins; leave out --plugin {plugins[0]}")
    return name, training, own, its


def _require_sensible(training: TrainingSettings) -> None:
    from semialign.data.transforms import STRENGTHS

    least = dict.fromkeys(("steps", "batch_labelled", "lr_decay_steps", "checkpoint_steps", "log_steps"), 1)
    least |= dict.fromkeys(("batch_unlabelled", "warmup_steps", "validations", "workers"), 0)
    least |= dict.fromkeys(("momentum", "weight_decay", "clip_norm", "foreground"), 0)
    for name, smallest in least.items():
        value = getattr(training, name)
        if value is not None and value < smallest:
            raise UserError(f"{name} must be at least {smallest}, not {value}")
    for name in ("minutes", "learning_rate"):
        value = getattr(training, name)
        if value is not None and value <= 0:
            raise UserError(f"{name} must be more than 0, not {value}")
    for name, largest in (("momentum", 1), ("foreground", 1)):
        if getattr(training, name) > largest:
            raise UserError(f"{name} must be at most {largest}, not {getattr(training, name)}")
    require_known(training.optimiser, ("sgd", "adamw"), "optimiser")
    require_known(training.augmentation, STRENGTHS, "augmentation")


def _fabric(accelerator: str, devices: int, nodes: int, precision: str, *, may_rest: bool) -> Any:
    from datetime import timedelta

    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    from semialign.inference.model import _device, has_bfloat16

    device = _device(accelerator)
    low = {"auto": has_bfloat16(device), "bf16": True, "float32": False}
    if precision not in low:
        raise UserError(f"precision '{precision}'{closest(precision, low)}")
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
        precision="bf16-mixed" if low[precision] else "32-true",
    )
    fabric.launch()
    return fabric


def _prepare_once(fabric: Any, prepare_data: Callable[..., Prepared], say: Say | None) -> Prepared:
    """Prepare on the first process while the others wait; what it finds wrong ends them too, without another word."""
    mistake: UserError | None = None
    if fabric.is_global_zero:
        try:
            prepare_data(progress=say)
        except UserError as error:
            mistake = error
    if fabric.broadcast(mistake is not None):
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


def _describe(
    ready: Prepared, name: str, training: TrainingSettings, own: dict[str, Any], plugins: dict[str, Any]
) -> dict[str, Any]:
    return {
        "semialign": __version__,
        "method": name,
        "training": to_mapping(training),
        "method_settings": own,
        "plugins": plugins,
        "plan": to_mapping(ready.plan),
        "class_names": ready.dataset.class_names,
        "channel_names": list(ready.dataset.channel_names),
    }


def _started_with(run: Path) -> Mapping[str, Any]:
    """Return the training settings of the run in ``run``: some have to be known before the processes start."""
    path = run / "config.yaml"
    config = read_yaml(path) if path.exists() else None
    training = config.get("training") if isinstance(config, dict) else None
    return training if isinstance(training, dict) else {}


def _require_same_split(run: Path, split: Split) -> None:
    path, now = run / "split.json", to_mapping(split)
    if not path.exists():
        return
    before = read_json(path)
    for part in ("labelled", "unlabelled", "validation"):
        if before.get(part) != now[part]:
            raise UserError(f"{path}: the run has other {part} cases than are asked for; name its --split")


def _begin(run: Path, ready: Prepared, described: dict[str, Any], *, resumed: bool) -> None:
    make_folder(run)
    for left in run.glob(".writing-*"):  # by a killed process
        left.unlink()
    if not resumed:
        write_split(run / "split.json", ready.split)
        write_yaml(run / "config.yaml", described)


def _open_run(run: Path, described: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    from semialign.training.checkpoint import load_run

    last = run / "last.pt"
    if resume:
        if last.exists():
            state = load_run(last)
            for key in ("class_names", "plan"):
                before = with_defaults(state[key]) if key == "plan" else state[key]
                if before != described[key]:
                    raise UserError(
                        f"{last}: was made with other {key.replace('_', ' ')}; prepare as before or start anew"
                    )
            return state
        if not (run / "config.yaml").exists():
            raise UserError(f"{run}: no run to resume; leave out --resume")
        described.update(read_yaml(run / "config.yaml"))
        return None
    if last.exists() or (run / "config.yaml").exists():
        raise UserError(f"{run}: holds a run already; add --resume to go on with it, or choose another --output")
    return None


def _notes(ready: Prepared, method: Any, name: str) -> None:
    for warning in ready.fingerprint["warnings"][:20]:
        warnings.warn(warning, stacklevel=3)
    if not ready.split.unlabelled and any(method.stage_settings(stage).uses_unlabelled for stage in method.stages):
        warnings.warn(f"no unlabelled case: {name} trains on labels alone", stacklevel=3)


def _workers(training: TrainingSettings) -> int:
    import os

    if training.workers is not None:
        return training.workers
    return max(1, min(8, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 1))


def _finish(run: Path, ready: Prepared, place: Any, described: dict[str, Any], *, on_gpu: bool) -> None:
    import resource

    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    write_json(run / "fingerprint.json", ready.fingerprint)
    write_json(run / "data.json", {"name": ready.dataset.name, "root": str(ready.dataset.root.resolve())})
    write_json(
        run / "result.json",
        {
            "method": described["method"],
            "steps": place.steps_done,
            "training_seconds": round(place.seconds, 2),
            "best_validation_dice": place.best if place.best >= 0 else None,
            "peak_memory_bytes": int(peak),
            "peak_gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
            "versions": {"semialign": __version__, "torch": torch.__version__, "python": platform.python_version()},
        },
    )
