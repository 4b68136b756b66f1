"""The file a plan is written to, and edits of it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from plans import GPU, PROCESSOR, VOLUMES, planned, seen

from semialign.common.errors import UserError
from semialign.data.plan import Plan, load_plan, write_plan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A plan of volumes, written."""
    write_plan(tmp_path / "plan.yaml", planned(seen(*VOLUMES["cine MRI"]), PROCESSOR))
    return tmp_path / "plan.yaml"


def edited(path: Path, **values: Any) -> Path:
    """The plan as a person would change it."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))
    return path


def test_a_written_plan_is_read_back(tmp_path: Path) -> None:
    channels = ("CT", "MRI")
    for plan in (
        planned(seen(*VOLUMES["CT"], channels=2), GPU, channels),
        planned(seen((300, 400), channels=2), GPU, channels),
        planned(seen((64, 64, 20), (1, 1, 1)), GPU, class_names=["background", "left kidney", "right kidney"]),
    ):
        write_plan(tmp_path / "plan.yaml", plan)
        assert load_plan(tmp_path / "plan.yaml") == plan


def test_every_field_has_a_comment_above_it(path: Path) -> None:
    text = path.read_text()
    for field in dataclasses.fields(Plan):
        assert re.search(rf"^# .+\n{field.name}: ", text, re.MULTILINE), field.name


def test_an_edit_is_read(path: Path) -> None:
    plan = load_plan(edited(path, spacing=[2, 2, 10], batch_labelled=7, made_for="me", picture_size=None))
    assert (plan.spacing, plan.batch_labelled, plan.made_for) == ((2.0, 2.0, 10.0), 7, "me")


VNET: dict[str, Any] = {
    "network": "vnet",
    "widths": [8, 16, 32, 64, 128],
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
    "kernels": [[3, 3, 3]] * 5,
    "patch_size": [32, 32, 16],
}

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"patch_sise": [1]}, "unknown key 'patch_sise'; did you mean 'patch_size'"),
    "no list": ({"patch_size": 64}, "'patch_size' must be a list"),
    "fractional": ({"patch_size": [64.5, 64, 8]}, "'patch_size' must be a whole number"),
    "words": ({"spacing": ["fine", 1, 1]}, "'spacing' must be a number"),
    "ragged": ({"strides": [[1, 1, 1], [2, 2]]}, "a number for every axis"),
    "too few axes": ({"patch_size": [64, 64]}, "a number for every axis"),
    "too few levels": ({"widths": [16]}, "a row for every level"),
    "no level": ({"widths": [], "strides": [], "kernels": []}, "above 0"),
    "zero stride": ({"widths": [8, 8], "kernels": [[3] * 3] * 2, "strides": [[1, 1, 1], [2, 2, 0]]}, "above 0"),
    "zero patch": ({"patch_size": [0, 0, 0]}, "above 0"),
    "negative width": ({"widths": [16, -1, 4, 4, 4, 4]}, "above 0"),
    "even kernel": ({"widths": [8], "kernels": [[2, 3, 3]], "strides": [[1, 1, 1]]}, "kernels odd"),
    "first stride": ({"widths": [8], "kernels": [[3, 3, 3]], "strides": [[2, 1, 1]]}, "first strides must be 1"),
    "no multiple": ({"patch_size": [127, 96, 6]}, "must be multiples of [32, 16, 1]"),
    "dimensions": ({"dimensions": 4}, "dimensions must be 2 or 3"),
    "other dimensions": ({"dimensions": 2}, "a number for every axis"),
    "short spacing": ({"spacing": [1, 1]}, "spacing [1.0, 1.0] must be 3 numbers above 0"),
    "zero spacing": ({"spacing": [1, 0, 1]}, "must be 3 numbers above 0"),
    "negative spacing": ({"spacing": [1, -1, 1]}, "must be 3 numbers above 0"),
    "two sizes": ({"volume_size": [64, 64, 32]}, "set one of the two to null"),
    "short size": ({"spacing": None, "volume_size": [64, 64]}, "volume_size [64, 64] must be 3 numbers above 0"),
    "fractional size": ({"spacing": None, "volume_size": [64, 64, 1.5]}, "'volume_size' must be a whole number"),
    "network": ({"network": "vent"}, "unknown network 'vent'; did you mean 'vnet'?"),
    "norm": (VNET | {"norm": "bach"}, "unknown norm 'bach'; did you mean 'batch'?"),
    "norm of the U-Net": ({"norm": "batch"}, "norm and dropout are for network vnet"),
    "dropout of the U-Net": ({"dropout": True}, "norm and dropout are for network vnet"),
    "no truth": (VNET | {"dropout": "yes, please"}, "'dropout' must be true or false"),
    "V-Net as planned": ({"network": "vnet"}, "network vnet needs widths of five numbers"),
    "V-Net's strides": (VNET | {"strides": [[1, 1, 1], [2, 2, 1], *[[2, 2, 2]] * 3]}, "strides [[1, 1, 1], [2, 2, 2],"),
    "V-Net's kernels": (VNET | {"kernels": [[3, 3, 1], *[[3, 3, 3]] * 4]}, "and kernels [[3, 3, 3], "),
    "V-Net's patch": (VNET | {"patch_size": [32, 32, 24]}, "must be multiples of [16, 16, 16]"),
    "one voxel": (VNET | {"patch_size": [16, 16, 16]}, "patch_size [16, 16, 16] leaves one voxel at the last level"),
    "mirror": ({"mirror_axes": [3]}, "mirror_axes [3] must be among [0, 1, 2]"),
    "batch": ({"batch_labelled": 0}, "batch_labelled must be at least 1"),
    "scheme": ({"normalisation": [{"scheme": "zscore"}]}, "unknown normalisation 'zscore'; did you mean 'z-score'?"),
    "no scheme": ({"normalisation": [{"mean": 3}]}, "a key is missing"),
    "zero std": ({"normalisation": [{"scheme": "ct", "std": 0}]}, "std a number above 0"),
    "window": ({"normalisation": [{"scheme": "ct", "low": 5, "high": 5}]}, "low (5) must be below its high (5)"),
    "no mapping": ({"normalisation": ["ct"]}, "must hold keys"),
    "version": ({"version": 99}, "of version 99"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_edit_is_named_in_one_line(path: Path, fault: str) -> None:
    values, words = FAULTS[fault]
    with pytest.raises(UserError) as error:
        load_plan(edited(path, **values))
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "plan"])
def test_a_file_that_is_no_plan(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=r"plan.yaml"):
        load_plan(path)


def test_a_missing_key(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    del values["widths"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"plan.yaml: a key is missing; delete the file"):
        load_plan(path)


def test_a_v_net_is_read(path: Path) -> None:
    for norm in ("batch", "instance", "none"):
        plan = load_plan(edited(path, **VNET, norm=norm, dropout=True))
        assert (plan.network, plan.norm, plan.dropout) == ("vnet", norm, True)
        assert plan.widths == (8, 16, 32, 64, 128)
    # Without a norm there is nothing to take a mean of.
    assert load_plan(edited(path, **VNET | {"norm": "none", "patch_size": [16, 16, 16]})).patch_size == (16, 16, 16)


def test_plans_from_before_there_was_a_choice_of_network(path: Path, small_train: Any, tmp_path: Path) -> None:
    import torch

    from semialign.data.plan import with_defaults
    from semialign.inference.model import load_trained

    newer = {"network": "unet", "norm": "instance", "dropout": False, "slice_axis": None}
    values = yaml.safe_load(path.read_text())
    assert {name: values.pop(name) for name in newer} == newer
    before = load_plan(path)
    path.write_text(yaml.safe_dump(values))
    assert load_plan(path) == before
    assert with_defaults(values) == with_defaults(values | newer)
    assert with_defaults(values | {"norm": "batch"})["norm"] == "batch"
    assert with_defaults(None) is None
    # The same of a run: it is gone on with, and predicts.
    case = type("Case", (), {"method": "supervised", "plugin": None, "dims": 2})
    run = small_train(case, tmp_path / "run", steps=2, validations=0)
    state = torch.load(run / "last.pt", weights_only=True)
    for name in newer:
        del state["plan"][name]
    torch.save(state, run / "last.pt")
    small_train(case, run, resume=True, steps=2, validations=0)
    assert load_trained(run, checkpoint="last", accelerator="cpu").plan.network == "unet"
