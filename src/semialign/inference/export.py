"""A trained model as one small file: the weights that predicting touches, and nothing of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semialign.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ENDING = ".pt"


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the file, its size and the checkpoint's in bytes, and the weights kept and left out."""

    path: Path
    size: int
    checkpoint_size: int
    parameters: int
    left_out: int


def export(run: Path, output: Path, *, checkpoint: str = "best", overwrite: bool = False) -> Exported:
    """Write what predicting with ``run`` needs to the file ``output`` (``.pt``), which ``predict`` takes as a run.

    Kept are the weights that a prediction touches (of a mean teacher, one of its two networks), the plan and the names
    of channels and classes; the optimiser's state and all that only training uses are left out. Frozen weights that the
    checkpoint names by hash stay outside it. Raises :class:`UserError` for a folder that is no run, and where
    ``output`` is there already unless ``overwrite``.
    """
    import torch

    from semialign.inference.model import checkpoint_path, load_trained
    from semialign.training.checkpoint import load_run, save_checkpoint

    output = Path(output)
    if output.suffix != ENDING:
        raise UserError(f"{output}: an exported model is a file that ends in {ENDING}; name it so")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: is there already; delete it, name another, or add --overwrite")
    if Path(run).is_file():
        raise UserError(f"{run}: a file, perhaps exported already; name the run's folder")
    path = checkpoint_path(Path(run), checkpoint)
    model = load_trained(path, accelerator="cpu")
    window = torch.zeros(1, len(model.channel_names), *model.plan.patch_size)
    needed = used_by_prediction(model.method, window)
    state = load_run(path)
    kept = {name: value for name, value in state["model"].items() if name in needed}
    save_checkpoint(output, {**_lasting(state), "model": kept, "prediction_only": True})
    inside, every = (_count(weights.values()) for weights in (kept, state["model"]))
    return Exported(output, output.stat().st_size, path.stat().st_size, inside, every - inside)


def _count(weights: Iterable[Any]) -> int:
    # Networks may share a part, which then has several names.
    return sum({(value.data_ptr(), value.shape): value.numel() for value in weights}.values())


def used_by_prediction(method: Any, window: Tensor) -> set[str]:
    """Return the names in ``method``'s state that predicting ``window`` (1, C, *S) touches.

    Seen from the operations as they run, so that a method need not say it; empty tensors always count.
    """
    import torch

    state = method.state_dict()
    with _seen_storages() as seen, torch.inference_mode():
        method.eval().predict(window)
    return {name for name, value in state.items() if not value.numel() or value.untyped_storage().data_ptr() in seen}


@contextmanager
def _seen_storages() -> Iterator[set[int]]:
    """Collect the addresses of all memory that operations read, whatever view of it they are given."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    seen: set[int] = set()

    class _Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tensors = (leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor))
            seen.update(tensor.untyped_storage().data_ptr() for tensor in tensors)
            return func(*args, **(kwargs or {}))

    with _Watch():
        yield seen


def _lasting(state: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a checkpoint that describe the model; its version is written anew."""
    return {name: value for name, value in state.items() if name not in ("model", "optimisers", "means", "version")}
