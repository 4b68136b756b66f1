"""The two-stream loader: a step's batch follows from seed, step and rank alone."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semialign.common.errors import UserError
from semialign.common.types import Batch
from semialign.data.loader import TwoStream, batches
from semialign.data.plan import Normalisation, Plan
from semialign.data.store import Store
from semialign.data.transforms import STRENGTHS

LABELLED, UNLABELLED = [f"l{i}" for i in range(5)], [f"u{i}" for i in range(7)]
SHAPE = (10, 12, 14)
PLAN = Plan(
    dimensions=3,
    spacing=(1.0, 1.0, 1.5),
    picture_size=None,
    normalisation=(Normalisation("z-score"),) * 2,
    patch_size=(6, 7, 8),
    widths=(4, 4),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3)),
    mirror_axes=(0, 1, 2),
    batch_labelled=2,
    batch_unlabelled=2,
    made_for="tests",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Cases whose every voxel tells where it lies: channel 0 the case's number, channel 1 the voxel's."""
    store = Store(tmp_path_factory.mktemp("store"))
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    for number, case in enumerate(LABELLED + UNLABELLED):
        image = np.stack([np.full(SHAPE, number, np.float32), voxels])
        label = np.zeros(SHAPE, np.int16)
        label[4, 5, 6:8], label[9, 11, 13], label[0] = 1, 2, -1  # class 2 is one voxel in a corner
        store.write(case, image, label if case in LABELLED else None, "key")
    return store


def _loader(store: Store, **changes: Any) -> TwoStream:
    plan = dataclasses.replace(PLAN, **{k: changes.pop(k) for k in list(changes) if hasattr(PLAN, k)})
    values: dict[str, Any] = {"labelled": LABELLED, "unlabelled": UNLABELLED, "batch": (2, 2), "seed": 3}
    return TwoStream(store, plan, **(values | changes))


def _equal(one: Batch, other: Batch) -> bool:
    return all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_shapes_and_types(store: Store) -> None:
    batch = _loader(store)[0]
    assert batch.image_l.shape == batch.image_u.shape == (2, 2, 6, 7, 8)
    assert batch.label_l.shape == (2, 6, 7, 8)
    assert batch.index_l.shape == batch.index_u.shape == (2,)
    assert batch.image_l.dtype == batch.image_u.dtype == torch.float32
    assert batch.label_l.dtype == batch.index_l.dtype == batch.index_u.dtype == torch.int64
    assert set(batch.label_l.unique().tolist()) <= {-1, 0, 1, 2}


def test_batch_is_of_the_cases_it_names(store: Store) -> None:
    for step in range(6):
        batch = _loader(store, augmentation="none")[step]
        assert batch.image_l[:, 0].flatten(1).amax(1).tolist() == batch.index_l.tolist()
        of_unlabelled = (batch.image_u[:, 0].flatten(1).amax(1) - len(LABELLED)).tolist()
        assert of_unlabelled == batch.index_u.tolist()


def test_label_voxels_are_those_of_the_labelled_cases(store: Store) -> None:
    stream = _loader(store)
    labels = [np.asarray(store.label(case)[:]) for case in stream.cases["labelled"]]
    expected = [sum(int((label == c).sum()) for label in labels) for c in range(5)]
    assert stream.label_voxels(5).tolist() == expected
    assert expected[1] > 0


def test_without_augmentation_patches_are_whole_and_in_place(store: Store) -> None:
    label = np.asarray(store.label("l0")[:])
    for step in range(8):
        batch = _loader(store, augmentation="none")[step]
        for image, its in zip(batch.image_l[:, 1].numpy(), batch.label_l.numpy(), strict=True):
            corner = np.unravel_index(int(image[0, 0, 0]), SHAPE)
            where = tuple(slice(c, c + n) for c, n in zip(corner, PLAN.patch_size, strict=True))
            assert np.array_equal(image, np.arange(np.prod(SHAPE)).reshape(SHAPE)[where])
            assert np.array_equal(its, label[where])


def test_flips_keep_image_and_label_together(store: Store) -> None:
    lookup = np.asarray(store.label("l0")[:]).ravel()
    loader = _loader(store, augmentation="light")
    loader.strength = STRENGTHS["none"]  # flips alone
    seen = set()
    for step in range(30):
        batch = loader[step]
        for image, its in zip(batch.image_l[:, 1], batch.label_l, strict=True):
            assert np.array_equal(lookup[image.long().numpy()], its.numpy())
            seen.add(tuple(int(image.diff(dim=axis)[0, 0, 0].sign()) for axis in range(3)))
    assert len(seen) == 8


def test_no_augmentation_mirrors_nothing(store: Store) -> None:
    for step in range(10):
        batch = _loader(store, augmentation="none")[step]
        for image in (*batch.image_l[:, 1], *batch.image_u[:, 1]):
            assert (image.diff(dim=0) > 0).all()
            assert (image.diff(dim=2) > 0).all()


def test_unknown_augmentation(store: Store) -> None:
    with pytest.raises(UserError, match="augmentation 'lite'; did you mean 'light'"):
        _loader(store, augmentation="lite")


def test_same_seed_same_batches_whatever_the_workers(store: Store) -> None:
    streams = [list(batches(_loader(store), range(5), workers)) for workers in (0, 1, 2)]
    for others in streams[1:]:
        assert all(_equal(a, b) for a, b in zip(streams[0], others, strict=True))


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    # A loader process has one thread, the main process several; sums over a large patch are split among them.
    store, size = Store(tmp_path), (48, 48, 48)
    image = np.random.default_rng(0).normal(size=(2, *size))
    store.write("l0", image, np.zeros(size, np.int16), "key")
    loader = _loader(store, labelled=["l0"], unlabelled=[], patch_size=size)
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            seen.append([loader[step] for step in range(6)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(_equal(a, b) for a, b in zip(*seen, strict=True))


def test_step_is_the_same_wherever_one_starts(store: Store) -> None:
    whole = list(batches(_loader(store), range(6), 0))
    later = list(batches(_loader(store), range(4, 6), 1))
    assert all(_equal(a, b) for a, b in zip(whole[4:], later, strict=True))


def test_loading_leaves_the_global_generators_alone(store: Store) -> None:
    # Their state belongs to the step: dropout must not depend on who loads.
    torch.manual_seed(0)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(0)
        list(batches(_loader(store), range(2), workers))
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("change", [{"seed": 4}, {"stage": "other"}, {"rank": 1, "world": 2}])
def test_other_seeds_stages_and_ranks_see_other_patches(store: Store, change: dict[str, Any]) -> None:
    one, other = _loader(store)[0], _loader(store, **change)[0]
    assert not torch.equal(one.image_l, other.image_l)
    assert not torch.equal(one.image_u, other.image_u)


def test_ranks_cut_the_same_case_differently(store: Store) -> None:
    one, other = (_loader(store, labelled=["l0"], unlabelled=["u0"], rank=rank, world=2)[0] for rank in (0, 1))
    assert not torch.equal(one.image_l, other.image_l)
    assert not torch.equal(one.image_u, other.image_u)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_without_repeats(store: Store, world: int) -> None:
    cases = [f"u{i}" for i in range(6)]
    loaders = [_loader(store, unlabelled=cases, batch=(1, 1), rank=r, world=world) for r in range(world)]
    seen = [int(loader[step].index_u) for step in range(12 // world) for loader in loaders]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:], "every epoch has an order of its own"


def test_every_case_is_drawn_equally_often(store: Store) -> None:
    loader = _loader(store, patch_size=(2, 2, 2))
    drawn = Counter(itertools.chain.from_iterable(loader[step].index_l.tolist() for step in range(50)))
    assert set(drawn) == set(range(5))
    assert set(drawn.values()) == {20}


def test_more_patches_than_cases(store: Store) -> None:
    batch = _loader(store, labelled=["l2"], unlabelled=["u0"], batch=(3, 2))[0]
    assert batch.index_l.tolist() == [0, 0, 0]
    assert not torch.equal(batch.image_l[0], batch.image_l[1])


@pytest.mark.parametrize("change", [{"unlabelled": []}, {"batch": (2, 0)}])
@pytest.mark.parametrize("workers", [0, 1])
def test_no_unlabelled(store: Store, change: dict[str, Any], workers: int) -> None:
    batch = next(iter(batches(_loader(store, **change), range(1), workers)))
    assert batch.image_u.shape == (0, 2, 6, 7, 8)
    assert batch.index_u.shape == (0,)
    assert batch.index_u.dtype == torch.int64
    with_unlabelled = _loader(store)[0]
    assert torch.equal(batch.image_l, with_unlabelled.image_l), "the labelled stream does not depend on the other"


def test_images_smaller_than_the_patch(store: Store) -> None:
    batch = _loader(store, patch_size=(16, 8, 16), augmentation="none")[0]
    label = np.asarray(store.label("l0")[:])
    # The volume lies in the middle: (16 - 10) / 2 and (16 - 14) / 2 planes before it.
    for image, its in zip(batch.image_l, batch.label_l, strict=True):
        row = int(image[1, 3, 0, 1]) // SHAPE[2]
        assert np.array_equal(its[3:13, :, 1:15].numpy(), label[:, row : row + 8])
        outside = torch.ones(16, 8, 16, dtype=torch.bool)
        outside[3:13, :, 1:15] = False
        assert (its[outside] == -1).all()
        assert not image[:, outside].any()


def test_every_position_is_reached(store: Store) -> None:
    loader = _loader(store, augmentation="none", patch_size=(9, 11, 13), foreground=0.0, batch=(8, 1))
    corners = Counter(int(c) for step in range(20) for c in loader[step].image_l[:, 1, 0, 0, 0])
    assert len(corners) == 8  # two places along each axis
    assert min(corners.values()) > 5


def _share_with(loader: TwoStream, value: int, steps: int) -> float:
    labels = torch.cat([loader[step].label_l for step in range(steps)])
    return (labels == value).flatten(1).any(1).float().mean().item()


def test_foreground_share_is_roughly_kept(store: Store) -> None:
    # Class 2 is one voxel in a corner: a patch anywhere holds it once in (5 x 6 x 7) cases.
    common = {"augmentation": "none", "batch": (4, 0)}
    assert _share_with(_loader(store, foreground=0.0, **common), 2, 50) < 0.05
    half = _share_with(_loader(store, foreground=0.5, **common), 2, 50)
    assert half == pytest.approx(0.25, abs=0.08)  # half of the patches, and half of those on each of two classes
    full = _loader(store, foreground=1.0, **common)
    assert _share_with(full, 2, 50) == pytest.approx(0.5, abs=0.1)
    labels = torch.cat([full[step].label_l for step in range(50)])
    assert (labels > 0).flatten(1).any(1).all()


def test_unlabelled_patches_are_placed_without_their_labels(store: Store) -> None:
    # The same cases as both streams: what their labels hold must not move the unlabelled one.
    loader = _loader(store, unlabelled=LABELLED, foreground=1.0, augmentation="none", batch=(1, 4))
    corner = 9 * 12 * 14 + 11 * 14 + 13
    share = torch.cat([(loader[s].image_u[:, 1] == corner).flatten(1).any(1) for s in range(50)]).float().mean()
    assert share < 0.05


def test_unlabelled_intensities_stay_as_they_are(store: Store) -> None:
    # The method makes the strong form itself, and a teacher needs the weak one.
    for step in range(10):
        # Resampling mixes a case's number with the 0 outside, and does nothing more.
        batch = _loader(store)[step]
        largest = batch.image_u[:, 0].flatten(1).amax(1)
        assert torch.allclose(largest, batch.index_u + float(len(LABELLED)), atol=1e-3)
        assert (batch.image_u >= 0).all()


def test_damaged_store_is_one_line(store: Store, tmp_path: Path) -> None:
    for workers in (0, 1):
        with pytest.raises(UserError, match="prepare") as error:
            list(batches(_loader(Store(tmp_path)), range(1), workers))
        assert "\n" not in str(error.value), "no worker's traceback"


def test_epochs_count_the_voxels_of_a_patch_that_lie_in_the_image(store: Store) -> None:
    # Two patches of 6 x 7 x 8 a step and rank, of five cases of 10 x 12 x 14.
    assert _loader(store).label_epochs() == pytest.approx(2 * 6 * 7 * 8 / (5 * 10 * 12 * 14))
    assert _loader(store, world=3).label_epochs() == pytest.approx(3 * 2 * 6 * 7 * 8 / (5 * 10 * 12 * 14))
    whole = _loader(store, labelled=["l1"], patch_size=(20, 20, 20))
    assert whole.label_epochs() == 2.0
    slices = _loader(store, dimensions=2, slice_axis=2, patch_size=(10, 12), spacing=(1.0, 1.0))
    assert slices.label_epochs() == pytest.approx(2 / (5 * 14))
