"""A model exported to one file predicts what its run predicts, and holds no more than that takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.inference.export import export, used_by_prediction
from semialign.inference.model import load_trained
from semialign.suggestion.suggest import suggest
from semialign.training.checkpoint import load_checkpoint


def test_predicts_as_its_run(case: Any, trained: Callable[[Any], Path], tmp_path: Path) -> None:
    run = trained(case)
    made = export(run, tmp_path / "model.pt")
    model, small = load_trained(run, accelerator="cpu"), load_trained(made.path, accelerator="cpu")
    window = torch.rand(2, len(model.channel_names), *model.plan.patch_size)
    assert torch.equal(model.probabilities(window), small.probabilities(window))
    assert made.size < made.checkpoint_size
    assert made.size == (tmp_path / "model.pt").stat().st_size
    state = load_checkpoint(made.path)
    assert not {"optimisers", "means"} & set(state)
    once = {value.data_ptr(): value.numel() for value in state["model"].values() if value.numel()}
    assert made.parameters == sum(once.values())


@pytest.mark.parametrize(
    ("settings", "kept"), [({}, "teacher"), ({"predict_with": "student"}, "network")], ids=["teacher", "student"]
)
def test_keeps_one_network_of_a_mean_teacher(settings: dict[str, str], kept: str, small_method: Any) -> None:
    method = small_method("mean-teacher", 3, plugin="scdl", **settings)
    names = used_by_prediction(method, torch.zeros(1, 1, 8, 8, 8))
    assert {name.split(".")[0] for name in names} == {kept}


def test_a_part_that_networks_share_counts_once(trained: Callable[[Any], Path], any_case: Any, tmp_path: Path) -> None:
    run = trained(any_case._replace(method="generic-ssl"))
    made = export(run, tmp_path / "model.pt")
    method = load_trained(run, accelerator="cpu").method
    distinct = {id(value): value.numel() for value in [*method.parameters(), *method.buffers()]}
    assert made.parameters + made.left_out == sum(distinct.values())
    assert made.parameters == sum(value.numel() for value in method.theta.state_dict().values())


def test_sees_views_and_buffers_and_nothing_else() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sliced, self.unused = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
            self.register_buffer("shift", torch.rand(1))

        def predict(self, image: torch.Tensor) -> torch.Tensor:
            return image * self.sliced.view(2, 2)[1].sum() + self.get_buffer("shift")

    assert used_by_prediction(Odd(), torch.zeros(1, 1, 2, 2)) == {"sliced", "shift"}


def test_on_the_command_line(
    any_case: Any, trained: Callable[[Any], Path], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, raw, model = trained(any_case), tiny[any_case.dims].raw, tmp_path / "model.pt"
    assert main(["export", str(run), str(model)]) == 0
    assert f"{model}: " in capsys.readouterr().out
    for name, what in (("of-run", run), ("of-model", model)):
        assert main(["predict", str(what), str(raw), "--output", str(tmp_path / name), "--accelerator", "cpu"]) == 0
    files = sorted((tmp_path / "of-run").glob("*.nii.gz"))
    assert files
    for path in files:
        labels = [np.asarray(nibabel.load(tmp_path / of / path.name).dataobj) for of in ("of-run", "of-model")]
        assert np.array_equal(*labels)


def test_says_what_is_wrong(any_case: Any, trained: Callable[[Any], Path], tiny: Any, tmp_path: Path) -> None:
    run, model = trained(any_case), tmp_path / "model.pt"
    with pytest.raises(UserError, match=r"model\.onnx: an exported model is a file that ends in \.pt"):
        export(run, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no such run folder"):
        export(tmp_path / "nowhere", model)
    assert not model.exists()
    export(run, model)
    with pytest.raises(UserError, match="exported already; name the run's folder"):
        export(model, tmp_path / "again.pt")
    with pytest.raises(UserError, match="does not know its cases; name the run's folder"):
        suggest(model)
    before = model.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        export(run, model)
    assert model.read_bytes() == before
    export(run, model, overwrite=True)


def test_training_does_not_start_from_it(
    any_case: Any, trained: Callable[[Any], Path], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "only").mkdir()
    export(trained(any_case), tmp_path / "only" / "best.pt")
    data = tiny[any_case.dims]
    of_data = [str(data.raw), "--split", str(data.split), "--prepared", str(data.folder)]
    of_run = ["--init", str(tmp_path / "only"), "--output", str(tmp_path / "run"), "--accelerator", "cpu"]
    assert main(["train", *of_data, *of_run, "--steps", "2"]) == 2
    assert "was exported to predict; training starts from a run folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
