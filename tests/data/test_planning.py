"""The default plan on sizes and spacings of real kinds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from plans import BUDGETS, GPU, PROCESSOR, VOLUMES, planned, seen

from semialign.common.errors import UserError
from semialign.data.plan import Normalisation, Plan
from semialign.data.planning import Budget, budget_at_hand


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
    flat = kind in ("one slice", "tiny")
    assert (plan.dimensions, plan.slice_axis is not None) == ((2, True) if large or flat else (3, False))
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
    assert planned(seen(size, spacing), GPU, dimensions=None) == planned(
        seen(size, spacing), GPU, dimensions=2 if flat else 3
    )


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


@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_is_planned_as_a_slice_wherever_it_lies(axis: int) -> None:
    size, spacing = [256, 240, 224], [1.4, 1.4, 1.4]
    size[axis], spacing[axis] = 1, 1.0  # finer across than within: the coarsest axis is another one
    for budget in BUDGETS.values():
        plan = planned(seen(tuple(size), tuple(spacing)), budget, dimensions=None)
        assert (plan.dimensions, plan.slice_axis) == (2, axis)
        assert min(plan.patch_size) >= 32
