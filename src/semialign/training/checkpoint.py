"""Checkpoints: written whole or not at all, loaded as weights alone, checked before use."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semialign.common.errors import UserError
from semialign.common.tensor_files import write_tensors

if TYPE_CHECKING:
    from semialign.methods.base import Method

VERSION = 1
CONTENT = ("method", "training", "method_settings", "plugins", "plan", "class_names", "channel_names", "model", "place")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path``; killed at any moment, the old or the new file stands."""
    write_tensors(path, {"version": VERSION, **state})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the processor.

    Raises :class:`UserError` where it is missing, damaged, of another version, or carries code (never executed:
    ``weights_only``).
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; was the run started?")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "GLOBAL" in str(error):  # the pickle's instruction that names code; other damage is named otherwise
            raise UserError(f"{path}: holds more than weights (it could run code); not loaded") from error
        raise UserError(f"{path}: not a readable checkpoint; use another, or train again") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else None
        raise UserError(f"{path}: of version {found}, this semialign reads {VERSION}; train again")
    return dict(state)


def load_run(path: Path) -> dict[str, Any]:
    """Read a training run's checkpoint as :func:`load_checkpoint` does; also raises where a part of it is missing."""
    state = load_checkpoint(path)
    lacking = sorted(set(CONTENT) - set(state))
    if lacking:
        raise UserError(f"{path}: lacks '{lacking[0]}', so it is no checkpoint of semialign's training; use another")
    return state


def load_weights(module: torch.nn.Module, weights: dict[str, Any], path: Path, *, partial: bool = False) -> None:
    """Load ``weights`` into ``module``; every name and shape must match, or :class:`UserError` names the first.

    ``partial``: names of ``module`` that ``weights`` lacks stay as they are.
    """
    own = module.state_dict()
    if partial:
        own = {name: value for name, value in own.items() if name in weights}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    apart = [n for n in sorted(own.keys() & weights.keys()) if own[n].shape != weights[n].shape]
    if missing or extra:
        raise UserError(f"{path}: of another method or network ('{(missing + extra)[0]}' is in one of them only)")
    if apart:
        raise UserError(
            f"{path}: '{apart[0]}' is {list(weights[apart[0]].shape)}, here {list(own[apart[0]].shape)}: "
            "another number of classes or another plan"
        )
    module.load_state_dict(weights, strict=not partial)


def load_method(method: "Method", state: dict[str, Any], path: Path, *, to_predict: bool = False) -> None:
    """Load the weights of ``state``, read from ``path``, as :func:`load_weights` does.

    Also raises :class:`UserError` where frozen weights that it names but does not hold are other ones here, and, unless
    ``to_predict``, where it was exported and holds nothing else than prediction needs.
    """
    exported = bool(state.get("prediction_only"))
    if exported and not to_predict:
        raise UserError(f"{path}: was exported to predict; training starts from a run folder")
    here = method.external_state()
    for name, digest in state.get("external", {}).items():
        if name in here and here[name] != digest:
            raise UserError(
                f"{path}: was trained with another {name} than the one at hand; bring back the weights that the run's "
                "config.yaml names"
            )
    load_weights(method, state["model"], path, partial=exported)
