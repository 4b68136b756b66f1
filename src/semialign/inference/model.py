"""A trained run, ready to predict."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from semialign.common.errors import UserError, closest
from semialign.config import from_mapping
from semialign.data.plan import Plan
from semialign.methods.base import Method, build_method
from semialign.networks.build import network_of_plan
from semialign.networks.layout import lay_out
from semialign.training.checkpoint import load_method, load_run


@dataclass(frozen=True)
class TrainedModel:
    """What predicting needs of a run."""

    plan: Plan
    channel_names: tuple[str, ...]
    class_names: list[str]
    device: torch.device
    method: Method
    low_precision: bool
    """As in training: whether ``precision`` asked for bfloat16, or left it to what the device has."""

    def probabilities(self, windows: Tensor) -> Tensor:
        """Return probabilities (B, K, *patch) float32 of normalised windows (B, C, *patch)."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            return self.method.predict(windows.to(self.device)).float()


def load_trained(run: Path, *, checkpoint: str = "best", accelerator: str = "auto") -> TrainedModel:
    """Load a run, or a file that was exported from one, for prediction.

    ``checkpoint``: ``best`` (``last`` where the run had no validation cases) or ``last``. ``accelerator``: ``auto``,
    ``cpu`` or ``cuda``. Raises :class:`UserError` for a folder that is no run or a checkpoint that does not fit.
    """
    path = Path(run) if Path(run).is_file() else checkpoint_path(Path(run), checkpoint)
    state = load_run(path)
    plan = from_mapping(Plan, state["plan"], str(path))
    classes: list[str] = state["class_names"]
    method = build_method(
        state["method"],
        lambda: network_of_plan(plan, len(classes)),
        state["method_settings"],
        state["plugins"],
        plan=plan,
    )
    load_method(method, state, path, to_predict=True)
    device = _device(accelerator)
    method = method.to(device).eval()
    lay_out(method, device)
    low = in_bfloat16(state["training"].get("precision", "auto"), device)
    return TrainedModel(plan, tuple(state["channel_names"]), classes, device, method, low)


def checkpoint_path(run: Path, checkpoint: str) -> Path:
    """Return the file of ``checkpoint`` in folder ``run``: that of ``last`` where there is no best one."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder, nor an exported model")
    best = run / f"{checkpoint}.pt"
    return run / "last.pt" if checkpoint == "best" and not best.exists() else best


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a run of that ``precision`` (``auto``, ``bf16`` or ``float32``) computes in bfloat16 on ``device``.

    Raises :class:`UserError` for another word.
    """
    if precision not in (known := ("auto", "bf16", "float32")):
        raise UserError(f"precision '{precision}'{closest(precision, known)}")
    return precision == "bf16" or (precision == "auto" and has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware rather than emulated (which is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # Apple's processors have no such library
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_bf16())


def _cpu_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check()) if check is not None else True


def _device(accelerator: str) -> torch.device:
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("cuda", "gpu"):
        raise UserError(f"--accelerator {accelerator}: no GPU is seen here; use cpu or auto")
    if accelerator not in ("auto", "cpu"):
        raise UserError(f"--accelerator {accelerator}: there are auto, cpu, cuda")
    return torch.device("cpu")
