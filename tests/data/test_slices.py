"""Volumes seen slice by slice: the plan, the grid, the store and the loader's patches."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from semialign.common.errors import UserError
from semialign.common.types import Batch
from semialign.data.geometry import label_to_network, network_shape, network_spacing, to_network
from semialign.data.grid import Grid, Image
from semialign.data.loader import TwoStream, batches
from semialign.data.plan import Normalisation, Plan, load_plan, write_plan
from semialign.data.planning import Budget, make_plan
from semialign.data.store import Store
from semialign.data.transforms import STRENGTHS

PROCESSOR = Budget("processor", 96_000, 160 * 160, 96 * 96, (16, 32, 64, 128, 128, 128), 4, 0.5, 0.25, 2.2, 112 * 112)
GPU = Budget("gpu with 80 GiB", 128**3, 512 * 512, 512 * 512, (32, 64, 128, 256, 320, 320), 8, 1.0, 0.0)
SHAPE = (10, 12, 14)
PLAN = Plan(
    dimensions=2,
    slice_axis=2,
    spacing=(1.0, 1.5),
    picture_size=None,
    normalisation=(Normalisation("z-score"),) * 2,
    patch_size=(6, 7),
    widths=(4, 4),
    strides=((1, 1), (2, 1)),
    kernels=((3, 3), (3, 3)),
    mirror_axes=(0, 1),
    batch_labelled=2,
    batch_unlabelled=2,
    made_for="tests",
)


def planned(size: tuple[int, ...], spacing: tuple[float, ...] | None, budget: Budget = PROCESSOR, **more: Any) -> Plan:
    """The default plan of volumes (pictures without spacing) with two dimensions."""
    seen = {
        "picture": spacing is None,
        "median_size": list(size),
        "median_spacing": list(spacing or (1.0,) * len(size)),
        "intensities": [{"low": -100.0, "high": 200.0, "mean": 30.0, "std": 50.0}],
        "one_piece": [[1]],
    }
    more = {"class_names": ["background", "organ"], "dimensions": 2, "channel_names": ["CT"]} | more
    return make_plan(seen, budget=budget, **more)


KINDS = {
    "cine MRI": ((256, 216, 10), (1.5, 1.5, 10.0), 2),
    "isotropic": ((180, 140, 88), (0.625, 0.625, 0.625), 2),
    "CT": ((512, 512, 140), (0.8, 0.8, 2.5), 2),
    "sagittal": ((20, 512, 400), (4.4, 0.5, 0.5), 0),
    "coronal": ((300, 30, 200), (1.0, 3.0, 1.2), 1),
    "one slice": ((300, 300, 1), (1.0, 1.0, 5.0), 2),
    "tiny": ((3, 2, 1), (1.0, 1.0, 1.0), 2),
}


@pytest.mark.parametrize("budget", [PROCESSOR, GPU], ids=lambda b: b.name.split()[0])
@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_across_the_coarsest_axis_and_planned_like_volumes(
    kind: str, budget: Budget, tmp_path: Path
) -> None:
    size, spacing, axis = KINDS[kind]
    plan = planned(size, spacing, budget)
    assert (plan.dimensions, plan.slice_axis, plan.picture_size) == (2, axis, None)
    assert plan.normalisation[0].scheme == "ct"
    assert plan.keep_largest == ((1,),)
    assert (plan.batch_labelled, plan.batch_unlabelled) == ((4, 4) if budget is PROCESSOR else (8, 8))
    assert np.prod(plan.patch_size) <= budget.pixels
    assert plan.spacing is not None
    ratio = np.array(plan.spacing) / np.delete(spacing, axis)
    assert (ratio >= 0.999).all()
    assert (ratio <= (2.001 if budget is PROCESSOR else 1.001)).all()
    covered = np.array(plan.patch_size) * plan.spacing / (np.delete(size, axis) * np.delete(spacing, axis))
    assert covered.prod() >= (0.2 if budget is PROCESSOR else 0.9)
    write_plan(tmp_path / "plan.yaml", plan)
    assert load_plan(tmp_path / "plan.yaml") == plan  # sound too


def test_another_axis_may_be_asked_for_and_pictures_have_none() -> None:
    plan = planned(*KINDS["sagittal"][:2], slice_axis=1)
    assert (plan.slice_axis, len(plan.patch_size)) == (1, 2)
    assert plan.spacing is not None
    assert plan.spacing[0] == 4.4, "right-left, which is coarse here, lies within these slices"
    assert planned((300, 400), None).slice_axis is None
    assert planned((45, 45, 45), (1.0, 1.0, 1.0), dimensions=None).dimensions == 3


@pytest.mark.parametrize(
    ("axis", "classes", "flips"),
    [
        (2, ["background", "organ"], (0, 1)),
        (0, ["background", "organ"], (0, 1)),
        (2, ["background", "liver", "spleen"], (0,)),
        (1, ["background", "liver", "spleen"], (0,)),
        (0, ["background", "liver", "spleen"], ()),  # right and left are not within a sagittal slice
        (2, ["background", "left kidney", "right kidney"], ()),
    ],
)
def test_flips_are_those_of_the_volume(axis: int, classes: list[str], flips: tuple[int, ...]) -> None:
    plan = planned((90, 90, 90), (1.0, 1.0, 1.0), slice_axis=axis, class_names=classes)
    assert plan.mirror_axes == flips


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"slice_axis": 3}, "slice_axis 3 must be 0 (right-left), 1 (back-front) or 2 (foot-head)"),
        ({"slice_axis": -1}, "slice_axis -1 must be 0"),
        ({"slice_axis": "z"}, "'slice_axis' must be a whole number"),
        ({"picture_size": [64, 64]}, "spacing and picture_size both set the size of slices"),
        ({"dimensions": 3}, "slice_axis is for slices of volumes"),
        ({"spacing": [1, 1, 1]}, "spacing [1.0, 1.0, 1.0] must be 2 numbers"),
        ({"volume_size": [64, 64, 64], "spacing": None}, "volume_size is for whole volumes"),
        ({"mirror_axes": [2]}, "mirror_axes [2] must be among [0, 1]"),
    ],
)
def test_a_wrong_edit_is_named_in_one_line(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    path = tmp_path / "plan.yaml"
    write_plan(path, planned(*KINDS["CT"][:2]))
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))
    with pytest.raises(UserError) as error:
        load_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    if "picture_size" in values:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"spacing": None}))
        assert load_plan(path).picture_size == (64, 64)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [None, (9, 23)])
def test_only_the_slices_are_resampled(axis: int, size: tuple[int, int] | None) -> None:
    own = (1.2, 0.9, 2.0)
    grid = Grid((11, 12, 13), np.diag([*own, 1.0]))
    array = np.random.default_rng(axis).normal(size=(2, *grid.shape)).astype(np.float32)
    label = np.random.default_rng(axis).integers(0, 3, grid.shape).astype(np.int16)
    spacing = None if size else (0.7, 1.9)
    plan = dataclasses.replace(PLAN, slice_axis=axis, spacing=spacing, picture_size=size)
    within, steps = np.delete(grid.shape, axis), np.delete(own, axis)
    expected = size or tuple(np.rint(within * steps / (0.7, 1.9)).astype(int))
    assert network_shape(grid, plan) == tuple(np.insert(expected, axis, grid.shape[axis]))
    assert network_spacing(grid, plan)[axis] == pytest.approx(own[axis])
    found, its = to_network(Image(array, grid, ".nii"), plan), label_to_network(label, grid, plan, num_classes=3)
    # Every slice as the same picture alone would be.
    of_pictures = dataclasses.replace(PLAN, slice_axis=None, spacing=None, picture_size=tuple(map(int, expected)))
    picture = Grid(tuple(map(int, within)), np.eye(4), picture=True)
    for place in range(grid.shape[axis]):
        alone = to_network(Image(array.take(place, 1 + axis), picture, ".png"), of_pictures)
        np.testing.assert_allclose(found.take(place, 1 + axis), alone, atol=1e-5)
        alone_label = label_to_network(label.take(place, axis), picture, of_pictures, num_classes=3)
        np.testing.assert_array_equal(its.take(place, axis), alone_label)


def test_a_model_of_slices_is_for_volumes() -> None:
    with pytest.raises(UserError, match="a picture, but the model is for volumes"):
        network_shape(Grid((4, 5), np.eye(4), picture=True), PLAN)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_apart_in_the_store(tmp_path: Path, axis: int) -> None:
    rng = np.random.default_rng(axis)
    image, label = rng.normal(size=(2, 300, 40, 50)).astype(np.float32), rng.integers(-1, 3, (300, 40, 50))
    store = Store(tmp_path)
    store.write("x", image, label, "key", slice_axis=axis)
    np.testing.assert_array_equal(store.image("x")[:], image.astype(np.float16))
    np.testing.assert_array_equal(store.label("x")[:], label)
    chunks = [min(n, 256) for n in (300, 40, 50)]
    blocks = [min(n, 128) for n in (300, 40, 50)]
    chunks[axis] = blocks[axis] = 1  # one slice is read without its neighbours
    for array, lead in ((store.image("x")._array, (1,)), (store.label("x")._array, ())):
        assert tuple(array.chunks) == (*lead, *chunks)
        assert tuple(array.blocks) == (*lead, *blocks)


LABELLED, UNLABELLED = ["l0", "l1"], ["u0", "u1", "u2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Cases whose every voxel tells where it lies: channel 0 the case's number, channel 1 the voxel's."""
    store = Store(tmp_path_factory.mktemp("store"))
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    for number, case in enumerate(LABELLED + UNLABELLED):
        label = np.zeros(SHAPE, np.int16)
        label[4, 5, 6:8], label[9, 11, 13], label[0] = 1, 2, -1  # class 2 is one voxel in a corner
        image = np.stack([np.full(SHAPE, number, np.float32), voxels])
        store.write(case, image, label if case in LABELLED else None, "key", slice_axis=2)
    return store


def loader(store: Store, axis: int = 2, **changes: Any) -> TwoStream:
    plan = dataclasses.replace(PLAN, slice_axis=axis, **{k: changes.pop(k) for k in list(changes) if hasattr(PLAN, k)})
    values: dict[str, Any] = {"labelled": LABELLED, "unlabelled": UNLABELLED, "batch": (2, 2), "seed": 3}
    return TwoStream(store, plan, **(values | changes))


def places(image: torch.Tensor) -> np.ndarray:
    """Where each pixel (H, W) of channel 1 lies in the volume: (3, H, W)."""
    return np.stack(np.unravel_index(image.long().numpy(), SHAPE))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_patch_is_a_piece_of_one_slice(store: Store, axis: int) -> None:
    label = np.asarray(store.label("l0")[:])
    seen: Counter[int] = Counter()
    for step in range(60):
        batch = loader(store, axis, augmentation="none", foreground=0.0)[step]
        assert batch.image_l.shape == batch.image_u.shape == (2, 2, 6, 7)
        assert (batch.label_l.shape, batch.label_l.dtype) == ((2, 6, 7), torch.int64)
        for image, its in zip(batch.image_l, batch.label_l, strict=True):
            at = places(image[1])
            seen[int(at[axis][0, 0])] += 1
            assert (at[axis] == at[axis][0, 0]).all(), "one slice"
            rows, columns = np.delete(at, axis, 0)
            assert (np.diff(rows, axis=0) == 1).all()
            assert (np.diff(columns, axis=1) == 1).all()
            np.testing.assert_array_equal(its, label[tuple(at)])
    assert set(seen) == set(range(SHAPE[axis])), "every slice is reached, the outermost too"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labelled_patches_are_placed_on_slices_that_show_a_class(store: Store, axis: int) -> None:
    common = {"augmentation": "none", "batch": (4, 0)}
    labels = torch.cat([loader(store, axis, foreground=1.0, **common)[step].label_l for step in range(40)])
    assert (labels > 0).flatten(1).any(1).all(), "the foreground share is of patches that hold the class"
    assert (labels == 2).flatten(1).any(1).float().mean().item() == pytest.approx(0.5, abs=0.15)
    half = torch.cat([loader(store, axis, foreground=0.5, **common)[step].label_l for step in range(40)])
    # Class 2 is a corner of one slice in ten or more: elsewhere hardly any patch meets it.
    assert (half == 2).flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.1)


def test_unlabelled_patches_are_placed_without_their_labels(store: Store) -> None:
    data = loader(store, unlabelled=LABELLED, foreground=1.0, augmentation="none", batch=(1, 4))
    corner = int(np.prod(SHAPE)) - 1
    share = torch.cat([(data[step].image_u[:, 1] == corner).flatten(1).any(1) for step in range(40)]).float().mean()
    assert share < 0.05


def test_flips_are_within_the_slice(store: Store) -> None:
    data = loader(store, 1, augmentation="light")
    data.strength = STRENGTHS["none"]
    lookup, seen = np.asarray(store.label("l0")[:]), set()
    for step in range(30):
        batch = data[step]
        for image, its in zip(batch.image_l[:, 1], batch.label_l, strict=True):
            at = places(image)
            np.testing.assert_array_equal(its, lookup[tuple(at)])
            seen.add((int(np.sign(at[0][1, 0] - at[0][0, 0])), int(np.sign(at[2][0, 1] - at[2][0, 0]))))
    assert seen == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotated_and_deformed_patches_stay_in_their_slice(tmp_path: Path, axis: int) -> None:
    store, turned = Store(tmp_path), 0
    label = np.broadcast_to(np.arange(SHAPE[axis]).reshape([-1 if a == axis else 1 for a in range(3)]), SHAPE)
    store.write("l0", np.zeros((2, *SHAPE), np.float32), label, "key", slice_axis=axis)
    data = loader(store, axis, labelled=["l0"], unlabelled=[], foreground=0.3, batch=(4, 0))
    for step in range(15):
        for its in data[step].label_l:
            assert len(its[its >= 0].unique()) == 1, "every slice is a class of its own"
            turned += bool((its < 0).any())
    assert turned, "some were turned beyond the image's border"


def test_same_seed_same_batches_whatever_the_workers(store: Store) -> None:
    def equal(one: Batch, other: Batch) -> bool:
        return all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))

    streams = [list(batches(loader(store, 1), range(4), workers)) for workers in (0, 1)]
    assert all(equal(a, b) for a, b in zip(*streams, strict=True))
    assert not equal(streams[0][0], loader(store, 1, seed=4)[0])
    assert equal(streams[0][3], loader(store, 1)[3]), "a step is the same wherever one starts"


def test_slices_smaller_than_the_patch_and_single_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("l0", np.ones((2, 4, 5, 1), np.float32), np.ones((4, 5, 1), np.int16), "key", slice_axis=2)
    batch = loader(store, labelled=["l0"], unlabelled=[], augmentation="none", batch=(1, 1))[0]
    assert batch.image_u.shape == (0, 2, 6, 7)
    expected = np.full((6, 7), -1)
    expected[1:5, 1:6] = 1
    np.testing.assert_array_equal(batch.label_l[0], expected)
    np.testing.assert_array_equal(batch.image_l[0, 0], expected == 1)
