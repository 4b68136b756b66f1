"""Validation's Dice, against counting by hand and against MONAI."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from semialign.data.store import Store
from semialign.training.validation import mean_dice, validate_case


@pytest.fixture
def stored(tmp_path: Any, tiny_3d: Any) -> Any:
    """Return a function that stores image and label as case x; gives the store and a plan whose patch is ``patch``."""

    def make(image: np.ndarray, label: np.ndarray, patch: tuple[int, ...]) -> tuple[Store, Any]:
        store = Store(tmp_path)
        store.write("x", image, label, "key")
        return store, dataclasses.replace(tiny_3d.prepared.plan, patch_size=patch)

    return make


def _exact(classes: int) -> Any:
    """Return a network that reads the class off the image."""

    def predict(windows: torch.Tensor) -> torch.Tensor:
        index = windows[:, 0].round().long().clamp(0, classes - 1)
        return torch.nn.functional.one_hot(index, classes).movedim(-1, 1).float()

    return predict


def test_by_hand(stored: Any) -> None:
    label, shown = np.zeros((4, 4, 4), np.int16), np.zeros((1, 4, 4, 4), np.float32)
    label[0, 0, :3], shown[0, 0, 0, 1:] = 1, 1  # 3 and 3 voxels, 2 of them common
    label[1, 1, 0] = 2  # missed
    label[3], shown[0, 3] = -1, 2  # nobody annotated: counts nowhere
    store, plan = stored(shown, label, (4, 4, 4))
    dice = validate_case(_exact(4), store, plan, "x", 4)
    assert dice[:2].tolist() == [pytest.approx(2 * 2 / 6), 0.0]
    assert np.isnan(dice[2]), "in neither"


def test_pieces_that_a_prediction_drops_count_for_nothing(stored: Any) -> None:
    label, shown = np.zeros((6, 4, 4), np.int16), np.zeros((1, 6, 4, 4), np.float32)
    label[0, 0], shown[0, 0, 0] = 1, 1
    shown[0, 5, 3, :2] = 1  # an island
    store, plan = stored(shown, label, (6, 4, 4))
    assert validate_case(_exact(2), store, plan, "x", 2).tolist() == [pytest.approx(0.8)]
    plan = dataclasses.replace(plan, keep_largest=((1,),))
    assert validate_case(_exact(2), store, plan, "x", 2).tolist() == [1.0]


def test_in_neither_but_where_nobody_annotated(stored: Any) -> None:
    label, shown = np.full((4, 4, 4), -1, np.int16), np.ones((1, 4, 4, 4), np.float32)
    store, plan = stored(shown, label, (4, 4, 4))
    assert np.isnan(validate_case(_exact(2), store, plan, "x", 2)).all()


@pytest.mark.parametrize("size", [(20, 17, 9), (5, 30, 8), (3, 3, 3)])
def test_windows_agree_with_monai_on_the_whole(stored: Any, size: tuple[int, ...]) -> None:
    from monai.metrics import compute_dice

    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, size).astype(np.int16)
    shown = np.where(rng.random(size) < 0.7, label, rng.integers(0, 3, size))[None].astype(np.float32)
    store, plan = stored(shown, label, (8, 8, 8))
    dice = validate_case(_exact(3), store, plan, "x", 3)
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(a).long(), 3).movedim(-1, 0)[None] for a in (shown[0], label)
    ]
    expected = compute_dice(*one_hot, include_background=False)[0]
    assert dice == pytest.approx(expected.numpy(), abs=1e-6)


def test_mean_leaves_out_what_a_case_lacks() -> None:
    nan = np.nan
    mean, per_class = mean_dice([np.array([0.5, nan, nan]), np.array([0.7, 0.2, nan])])
    assert per_class[:2] == pytest.approx([0.6, 0.2])
    assert np.isnan(per_class[2])
    assert mean == pytest.approx(0.4)


def test_mean_of_nothing_is_zero() -> None:
    mean, per_class = mean_dice([np.array([np.nan])])
    assert mean == 0
    assert np.isnan(per_class[0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_by_hand(tmp_path: Any, tiny_3d: Any, axis: int) -> None:
    # A network that calls the brighter half of every slice foreground: its answer is known without any window.
    rng = np.random.default_rng(axis)
    shown, label = rng.normal(size=(1, 5, 6, 7)).astype(np.float32), rng.integers(-1, 2, (5, 6, 7)).astype(np.int16)
    seen: list[torch.Size] = []

    def predict(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.shape)
        bright = (windows[:, 0] > windows[:, 0].flatten(1).median(1).values[:, None, None]).float()
        return torch.stack([1 - bright, bright], 1)

    store = Store(tmp_path)
    store.write("x", shown, label, "key", slice_axis=axis)
    size = tuple(int(n) for n in np.delete(label.shape, axis))
    plan = dataclasses.replace(tiny_3d.prepared.plan, dimensions=2, slice_axis=axis, patch_size=size)
    dice = validate_case(predict, store, plan, "x", 2)
    assert {shape[1:] for shape in seen} == {(1, *size)}
    image = np.asarray(store.image("x")[:])[0].astype(np.float32)
    expected = np.zeros(label.shape, bool)
    for place in range(label.shape[axis]):
        where = tuple(place if a == axis else slice(None) for a in range(3))
        values = np.sort(image[where].ravel())
        expected[where] = image[where] > values[(len(values) - 1) // 2]
    expected &= label >= 0
    both = (expected & (label == 1)).sum()
    assert dice.tolist() == [pytest.approx(2 * both / (expected.sum() + (label == 1).sum()))]
