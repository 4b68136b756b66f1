"""The run folder as training begins, resumes and ends: what the run was asked for and what came of it."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semialign import __version__
from semialign.common.errors import UserError
from semialign.common.files import make_folder, read_json, read_yaml, write_json, write_yaml
from semialign.config import TrainingSettings, to_mapping
from semialign.data.plan import with_defaults
from semialign.data.prepare import Prepared
from semialign.data.splits import Split, write_split


def describe_run(
    ready: Prepared,
    name: str,
    training: TrainingSettings,
    own: dict[str, Any],
    plugins: dict[str, Any],
    init: Path | None = None,
) -> dict[str, Any]:
    """Return what a run folder says of its run: version, method, every setting, the plan, names of classes.

    ``init``: the checkpoint whose weights it starts from.
    """
    return {
        "semialign": __version__,
        "method": name,
        "training": to_mapping(training),
        "method_settings": own,
        "plugins": plugins,
        "plan": to_mapping(ready.plan),
        "class_names": ready.dataset.class_names,
        "channel_names": list(ready.dataset.channel_names),
        "init": str(init) if init is not None else None,
    }


def starting_checkpoint(init: Path) -> Path:
    """Return the checkpoint that ``--init RUN`` means: ``best.pt``, or ``last.pt`` where there is none."""
    init = Path(init).resolve()
    if init.is_file():
        raise UserError(f"{init}: a file; training starts from a run folder")
    best = init / "best.pt"
    return best if best.exists() else init / "last.pt"


def test_cases_seen(checkpoint: Path, ready: Prepared) -> list[str]:
    """Return the test cases of ``ready`` that the run of ``checkpoint``, on the same data set, trained or chose by."""
    folder = checkpoint.parent
    if not ((folder / "split.json").exists() and (folder / "data.json").exists()):
        return []
    if Path(read_json(folder / "data.json")["root"]).resolve() != ready.dataset.root.resolve():
        return []
    before = read_json(folder / "split.json")
    seen = {case for part in ("labelled", "unlabelled", "validation") for case in before.get(part, ())}
    return sorted(seen & set(ready.split.test))


def started_with(run: Path) -> Mapping[str, Any]:
    """Return the training settings of the run in ``run``: some have to be known before the processes start."""
    path = run / "config.yaml"
    config = read_yaml(path) if path.exists() else None
    training = config.get("training") if isinstance(config, dict) else None
    return training if isinstance(training, dict) else {}


def require_same_split(run: Path, split: Split) -> None:
    """Raise :class:`UserError` where a run goes on with other cases than it was begun with."""
    path, now = run / "split.json", to_mapping(split)
    if not path.exists():
        return
    before = read_json(path)
    for part in ("labelled", "unlabelled", "validation"):
        if before.get(part) != now[part]:
            raise UserError(f"{path}: the run has other {part} cases than are asked for; name its --split")


def begin_run(run: Path, ready: Prepared, described: dict[str, Any], *, resumed: bool) -> None:
    """Make the folder and write what the run was asked for; on resuming, clear what a killed process left."""
    make_folder(run)
    for left in run.glob(".writing-*"):  # by a killed process
        left.unlink()
    if not resumed:
        write_split(run / "split.json", ready.split)
        _write_place_of_data(run, ready)
        write_yaml(run / "config.yaml", described)


def _write_place_of_data(run: Path, ready: Prepared) -> None:
    write_json(run / "data.json", {"name": ready.dataset.name, "root": str(ready.dataset.root.resolve())})


def require_finished(run: Path) -> None:
    """Raise :class:`UserError` for a run that began and has not ended; what is no run at all passes."""
    if (run / "config.yaml").exists() and not (run / "result.json").exists():
        raise UserError(f"{run}: this run is not finished; go on with it by semialign train ... --resume")


def open_run(run: Path, described: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Return the checkpoint to resume from, or ``None`` where training begins.

    Without a checkpoint yet, a resumed run's settings are read into ``described``. Raises :class:`UserError` where
    there is nothing to resume, where the checkpoint does not fit, or where a run is there and was not to be resumed.
    """
    from semialign.training.checkpoint import load_run

    last = run / "last.pt"
    if resume:
        if last.exists():
            state = load_run(last)
            _require_same_data(state, described, last)
            return state
        config = run / "config.yaml"
        if not config.exists():
            raise UserError(f"{run}: no run to resume; leave out --resume")
        before = read_yaml(config)
        if not isinstance(before, dict) or not described.keys() - {"init"} <= before.keys():
            raise UserError(f"{config}: is not whole, and nothing is trained yet; delete {run} and start anew")
        _require_same_data(before, described, config)
        described.update(before)
        return None
    require_no_run(run)
    return None


def require_no_run(run: Path) -> None:
    """Raise :class:`UserError` where ``run`` holds a run already."""
    if (run / "last.pt").exists() or (run / "config.yaml").exists():
        raise UserError(f"{run}: holds a run already; add --resume to go on with it, or choose another --output")


def _require_same_data(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    for key in ("class_names", "plan"):
        if (with_defaults(before[key]) if key == "plan" else before[key]) != now[key]:
            raise UserError(f"{path}: was made with other {key.replace('_', ' ')}; prepare as before or start anew")


def peak_memory() -> int | None:
    """Return the most memory in bytes that this process has held; ``None`` where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024))


def _larger(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)


def finish_run(run: Path, ready: Prepared, place: Any, described: dict[str, Any], *, on_gpu: bool) -> None:
    """Write what the run came to: fingerprint, where its data lie by now, time, memory and versions."""
    import torch

    # A run that was finished, and resumed, trains nothing more: this process held less than that which trained.
    before = read_json(run / "result.json") if (run / "result.json").exists() else {}
    gpu = torch.cuda.max_memory_allocated() if on_gpu else None
    write_json(run / "fingerprint.json", ready.fingerprint)
    _write_place_of_data(run, ready)
    write_json(
        run / "result.json",
        {
            "method": described["method"],
            "steps": place.steps_done,
            "training_seconds": round(place.seconds, 2),
            "best_validation_dice": place.best if place.best >= 0 else None,
            "peak_memory_bytes": _larger(peak_memory(), before.get("peak_memory_bytes")),
            "peak_gpu_bytes": _larger(gpu, before.get("peak_gpu_bytes")),
            "versions": {"semialign": __version__, "torch": torch.__version__, "python": platform.python_version()},
        },
    )
