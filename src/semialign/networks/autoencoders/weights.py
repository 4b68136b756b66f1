"""Weights from a local file into a module: all of them, or one line that says what does not fit."""

from pathlib import Path

import torch
from torch import Tensor, nn

from semialign.common.errors import UserError

EXTRA = "pip install 'semialign[semigda]'"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as float32 on the processor; :class:`UserError` names a bad one."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such weights file; give the path of a .safetensors file")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: reading it needs the package safetensors; {EXTRA}") from error
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file; fetch it again") from error
    return {name: values.to(torch.float32) for name, values in tensors.items()}


def load_strictly(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load ``weights`` into ``module``; every name and shape must match, or :class:`UserError` names the first."""
    own = {name: values.shape for name, values in module.state_dict().items()}
    apart = sorted(own.keys() ^ weights.keys())
    if apart:
        where = "it lacks" if apart[0] in own else "it has"
        raise UserError(f"{path}: weights of another network ({where} '{apart[0]}'); give those of this autoencoder")
    for name, shape in own.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{path}: '{name}' is {list(weights[name].shape)}, wanted {list(shape)}; "
                "give the weights of this autoencoder"
            )
    module.load_state_dict(weights)
