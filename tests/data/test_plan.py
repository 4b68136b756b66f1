"""The default plan on sizes and spacings of real kinds, the file it is written to, and edits of that file."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from semialign.common.errors import UserError
from semialign.data.plan import Budget, Normalisation, Plan, budget_at_hand, load_plan, make_plan, write_plan

PROCESSOR = Budget("processor", 96_000, 160 * 160, 256 * 256, (16, 32, 64, 128, 128, 128), 4, 0.5, 0.25, 2.2, 112 * 112)
GPU = Budget("gpu with 80 GiB", 128**3, 512 * 512, 512 * 512, (32, 64, 128, 256, 320, 320), 8, 1.0, 0.0)
BUDGETS = {"processor": PROCESSOR, "gpu": GPU}
NUMBERS = {"low": -100.0, "high": 200.0, "mean": 30.0, "std": 50.0}


def seen(size: tuple[float, ...], spacing: tuple[float, ...] | None = None, channels: int = 1) -> dict[str, Any]:
    """A fingerprint: volumes where a spacing is given, pictures else."""
    return {
        "picture": spacing is None,
        "median_size": list(size),
        "median_spacing": list(spacing or (1.0,) * len(size)),
        "intensities": [NUMBERS] * channels,
    }


def planned(fingerprint: dict[str, Any], budget: Budget, channels: tuple[str, ...] = ("MRI",), **more: Any) -> Plan:
    more = {"class_names": ["background", "organ"], "dimensions": None if fingerprint["picture"] else 3} | more
    return make_plan(fingerprint, channel_names=channels, budget=budget, **more)


def require_sound(plan: Plan, budget: Budget, spacing: Any) -> None:
    """What a network of this plan relies on."""
    strides, kernels = np.array(plan.strides), np.array(plan.kernels)
    assert len(plan.widths) == len(strides) == len(kernels) <= len(budget.widths)
    assert plan.widths == budget.widths[: len(strides)]
    assert not (np.array(plan.patch_size) % strides.prod(0)).any()
    assert (np.array(plan.patch_size) // strides.prod(0)).min() >= 1
    most = budget.voxels if plan.dimensions == 3 else budget.pixels if plan.picture_size is None else budget.picture
    assert np.prod(plan.patch_size) <= most
    assert set(strides.ravel()) <= {1, 2}
    assert (strides[0] == 1).all()
    assert (strides[1:].max(1) == 2).all()  # a level that halves nothing would be wasted
    assert set(kernels.ravel()) <= {1, 3}
    assert (np.diff(kernels, axis=0) >= 0).all()
    if spacing is not None:
        assert plan.spacing is not None
        ratio = np.array(plan.spacing) / spacing
        assert (ratio >= 0.999).all()
        assert (ratio <= 2.001).all()


VOLUMES = {
    "cine MRI": ((256, 216, 10), (1.5, 1.5, 10.0)),
    "left atrium": ((180, 140, 88), (0.625, 0.625, 0.625)),
    "hippocampus": ((35, 50, 36), (1.0, 1.0, 1.0)),
    "CT": ((512, 512, 140), (0.8, 0.8, 2.5)),
    "long CT": ((512, 512, 900), (0.8, 0.8, 1.0)),
    "sagittal": ((20, 512, 512), (4.4, 0.5, 0.5)),
    "one slice": ((300, 300, 1), (1.0, 1.0, 5.0)),
    "tiny": ((3, 2, 1), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", VOLUMES)
def test_plans_of_volumes(kind: str, budget: str) -> None:
    size, spacing = VOLUMES[kind]
    plan = planned(seen(size, spacing), BUDGETS[budget])
    require_sound(plan, BUDGETS[budget], spacing)
    assert (plan.dimensions, plan.picture_size) == (3, None)


@pytest.mark.parametrize("kind", VOLUMES)
def test_large_volumes_are_seen_slice_by_slice_on_a_processor(kind: str) -> None:
    size, spacing = VOLUMES[kind]
    plan = planned(seen(size, spacing), PROCESSOR, dimensions=None)
    # A patch of the budget at the scans' own spacing covers less than a quarter of these.
    large = kind in ("cine MRI", "left atrium", "CT", "long CT", "sagittal")
    assert (plan.dimensions, plan.slice_axis is not None) == ((2, True) if large else (3, False))
    if large:
        assert plan.slice_axis == (0 if kind == "sagittal" else 2), "across the thick slices"
        axes = [axis for axis in range(3) if axis != plan.slice_axis]
        across, pixel = np.array(size)[axes], np.array(spacing)[axes]
        require_sound(plan, PROCESSOR, pixel)
        assert plan.spacing is not None
        factor = np.array(plan.spacing) / pixel
        # As fine as a patch of the budget can be that covers the slice; twice as coarse as the scans at most.
        assert PROCESSOR.enough is not None
        assert PROCESSOR.enough >= (across / factor).prod() or (factor > 1.9).all()
        assert (factor < 1.001).all() or PROCESSOR.enough < (across / factor * 1.06).prod()
        # Where that is not coarse enough, patches grow.
        room = min(PROCESSOR.pixels, (across / factor).prod())
        assert np.prod(plan.patch_size) > 0.8 * room or (factor < 1.9).any()
    assert planned(seen(size, spacing), GPU, dimensions=None) == planned(seen(size, spacing), GPU)


def test_slices_are_as_fine_as_what_is_labelled_lets_them_be() -> None:
    size, spacing = VOLUMES["cine MRI"]
    found = [
        planned(seen(size, spacing) | {"median_extent": extent}, PROCESSOR, dimensions=2).spacing
        for extent in ([40.0, 40.0, 8.0], [74.0, 80.0, 10.0], [250.0, 80.0, 10.0], None)
    ]
    assert None not in found
    fine, middle, *coarse = (np.array(its) / 1.5 for its in found)
    assert fine == pytest.approx(1), "a patch of 112 x 112 covers 2.2 times the structure as it is"
    # 2.2 x 74 by 2.2 x 80 voxels are 2.28 patches.
    assert middle.prod() == pytest.approx(2.2**2 * 74 * 80 / 112**2, rel=0.11)
    assert middle.prod() >= 2.2**2 * 74 * 80 / 112**2
    # Across the whole slice, and never more than that, in so far as a factor of two allows.
    assert coarse[0].prod() == pytest.approx(2.2 * 80 * 256 / 112**2, rel=0.11)
    assert (coarse[1] > 1.9).all()


@given(st.tuples(*[st.integers(1, 900)] * 3), st.tuples(*[st.floats(0.1, 12)] * 3), st.sampled_from(sorted(BUDGETS)))
def test_plans_of_any_volumes(size: tuple[int, ...], spacing: tuple[float, ...], budget: str) -> None:
    require_sound(planned(seen(size, spacing), BUDGETS[budget]), BUDGETS[budget], spacing)


@given(st.tuples(*[st.integers(1, 4000)] * 2), st.sampled_from(sorted(BUDGETS)))
@example((300, 400), "processor")
@example((256, 256), "processor")
@example((813, 430), "processor")
def test_plans_of_pictures(size: tuple[int, ...], budget: str) -> None:
    plan = planned(seen(size), BUDGETS[budget])
    if max(size) < 30 * min(size):  # a strip is as wide as the network needs it
        require_sound(plan, BUDGETS[budget], None)
    assert plan.picture_size == plan.patch_size
    assert plan.spacing is None


@pytest.mark.parametrize(("budget", "volumes", "pictures"), [("processor", (2, 1), (4, 4)), ("gpu", (2, 2), (8, 8))])
def test_batches(budget: str, volumes: tuple[int, int], pictures: tuple[int, int]) -> None:
    for fingerprint, expected in ((seen((90, 90, 90), (1.0,) * 3), volumes), (seen((90, 90)), pictures)):
        plan = planned(fingerprint, BUDGETS[budget])
        assert (plan.batch_labelled, plan.batch_unlabelled) == expected


def test_what_prediction_keeps_follows_the_labelled_cases() -> None:
    assert planned(seen((90, 90)), GPU).keep_largest == ()
    assert planned(seen((90, 90)) | {"one_piece": [[1, 2], [3]]}, GPU).keep_largest == ((1, 2), (3,))


def test_a_picture_keeps_its_form() -> None:
    assert planned(seen((300, 400)), GPU).patch_size in ((288, 384), (288, 416), (320, 384))
    small = planned(seen((300, 400)), PROCESSOR).patch_size
    assert small[1] / small[0] == pytest.approx(4 / 3, rel=0.12)
    assert planned(seen((256, 256)), PROCESSOR).patch_size == (256, 256)


def test_thick_slices_are_neither_pooled_nor_convolved_through_at_first() -> None:
    for budget in BUDGETS.values():
        plan = planned(seen(*VOLUMES["cine MRI"]), budget)
        assert plan.kernels[0] == plan.kernels[1] == (3, 3, 1)
        assert plan.kernels[-1] == (3, 3, 3)
        assert plan.strides[1] == plan.strides[2] == (2, 2, 1)
        assert plan.patch_size[0] > 8 * plan.patch_size[2]
        assert plan.spacing is not None
        assert plan.spacing[2] == 10.0


def test_equal_spacings_are_pooled_alike() -> None:
    plan = planned(seen((128, 128, 128), (1.0, 1.0, 1.0)), GPU)
    assert plan.patch_size == (128, 128, 128)
    assert set(plan.strides[1:]) == {(2, 2, 2)}
    assert set(plan.kernels) == {(3, 3, 3)}


def test_only_the_processor_coarsens() -> None:
    large = seen((512, 512, 140), (0.8, 0.8, 2.5))
    assert planned(large, GPU).spacing == (0.8, 0.8, 2.5)
    coarse = planned(large, PROCESSOR).spacing
    assert coarse is not None
    assert 0.8 < coarse[0] <= 1.6
    assert planned(seen((35, 50, 36), (1.0, 1.0, 1.0)), PROCESSOR).spacing == (1.0, 1.0, 1.0)


def test_channels_are_normalised_by_their_kind() -> None:
    fingerprint = seen((64, 64, 64), (1.0, 1.0, 1.0), channels=3)
    ct, lower, other = planned(fingerprint, GPU, ("CT", "ct", "PET")).normalisation
    assert ct == lower == Normalisation("ct", -100.0, 200.0, 30.0, 50.0)
    assert other == Normalisation("z-score")


def test_a_picture_is_cut_far_from_its_usual_range() -> None:
    (how,) = planned(seen((64, 64)), GPU).normalisation
    assert how == Normalisation("picture", -400.0, 500.0, 30.0, 50.0)
    flat = seen((64, 64))
    flat["intensities"] = [{"low": 7.0, "high": 7.0, "mean": 7.0, "std": 0.0}]
    (how,) = planned(flat, GPU).normalisation
    assert (how.low, how.high) == (None, None)
    assert how.std > 0


def test_a_gpu_that_is_not_there_is_not_planned_for() -> None:
    import torch

    assert budget_at_hand("cpu").name == "processor"
    if torch.cuda.is_available():
        assert budget_at_hand("auto").name.startswith("gpu")
    else:
        with pytest.raises(UserError, match="--accelerator cuda: no GPU"):
            budget_at_hand("cuda")


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
