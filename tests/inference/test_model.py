"""What a trained run computes in: as it was trained, on a device that may be another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semialign.common.errors import UserError
from semialign.inference.model import has_bfloat16, in_bfloat16, load_trained

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "low"), [("float32", False), ("bf16", True)])
def test_it_predicts_in_the_precision_it_was_trained_in(
    trained: Callable[[Any], Path], any_case: Any, tmp_path: Path, precision: str, low: bool
) -> None:
    state = torch.load(trained(any_case) / "last.pt", weights_only=True)
    state["training"]["precision"] = precision
    torch.save(state, tmp_path / "last.pt")
    model = load_trained(tmp_path, accelerator="cpu")
    assert model.low_precision is low
    inside: list[torch.dtype] = []
    for module in model.method.modules():  # a student or a teacher predicts: one of them is not asked
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            module.register_forward_hook(lambda m, args, out: inside.append(out.dtype))
    model.probabilities(torch.rand(1, len(model.channel_names), *model.plan.patch_size))
    assert set(inside) == {torch.bfloat16 if low else torch.float32}


def test_auto_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (False, True):
        monkeypatch.setattr("semialign.inference.model.has_bfloat16", lambda device, found=found: found)
        assert in_bfloat16("auto", CPU) is found
    with pytest.raises(UserError, match="precision 'fp16'"):
        in_bfloat16("fp16", CPU)


def test_a_processor_without_the_library_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apple's, where the library's operations are not even known by name."""
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    monkeypatch.setattr("torch.ops.mkldnn", object())
    assert has_bfloat16(CPU) is False
