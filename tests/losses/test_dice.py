"""The one Dice: by hand, against MONAI, against a float64 oracle with its gradients, and where it could break."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from semialign.losses.dice import dice_per_class, soft_dice

OPTIONS = [{"squared": a, "per_sample": b, "background": c} for a, b, c in itertools.product((False, True), repeat=3)]


def _oracle(
    p: Tensor,
    target: Tensor,
    *,
    squared: bool = False,
    per_sample: bool = False,
    background: bool = True,
    smooth: float = 1e-5,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Dice from one-hot volumes in float64, in as many words as the definition has."""
    p = p.double()
    valid = (target >= 0)[:, None].double()
    g = torch.zeros_like(p).scatter_(1, target.clamp(min=0)[:, None], 1.0) * valid
    over = tuple(range(2, p.ndim)) if per_sample else (0, *range(2, p.ndim))
    p = p * valid
    below = (p**2 if squared else p).sum(over) + (g**2 if squared else g).sum(over)
    dice = (2 * (p * g).sum(over) + smooth) / (below + smooth)
    if class_weights is not None:
        dice = dice * class_weights.double()
    return 1 - (dice if background else dice[..., 1:]).mean()


def _example(seed: int = 0, classes: int = 4, size: tuple[int, ...] = (6, 5, 4), ignore: bool = False) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, *size, generator=generator)
    target = torch.randint(-1 if ignore else 0, classes, (3, *size), generator=generator)
    return logits.softmax(1), target


def test_by_hand_linear() -> None:
    # Two voxels, two classes. p(1) = 0.25, 0.5; labels 1, 0.
    p = torch.tensor([[[0.75, 0.5], [0.25, 0.5]]])
    target = torch.tensor([[1, 0]])
    # class 0: 2 * 0.5 / (1.25 + 1); class 1: 2 * 0.25 / (0.75 + 1)
    assert soft_dice(p, target, smooth=0.0).item() == pytest.approx(1 - (1 / 2.25 + 0.5 / 1.75) / 2, rel=1e-6)
    assert soft_dice(p, target, smooth=0.0, background=False).item() == pytest.approx(1 - 0.5 / 1.75, rel=1e-6)
    assert soft_dice(p, target, smooth=1.0, background=False).item() == pytest.approx(1 - 1.5 / 2.75, rel=1e-6)


def test_by_hand_squared_and_ignored() -> None:
    p = torch.tensor([[[0.75, 0.5, 0.1], [0.25, 0.5, 0.9]]])
    target = torch.tensor([[1, 0, -1]])
    # class 0: 2 * 0.5 / (0.5625 + 0.25 + 1); class 1: 2 * 0.25 / (0.0625 + 0.25 + 1); the third voxel counts nowhere
    expected = 1 - (1 / 1.8125 + 0.5 / 1.3125) / 2
    assert soft_dice(p, target, squared=True, smooth=0.0).item() == pytest.approx(expected, rel=1e-6)


def test_by_hand_over_batch_or_per_sample() -> None:
    # Sample one: certain and right. Sample two: certain and wrong. Class 1 alone.
    p = torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]])
    target = torch.tensor([[1], [1]])
    assert soft_dice(p, target, background=False, smooth=0.0).item() == pytest.approx(1 - 2 / 3)
    assert soft_dice(p, target, background=False, smooth=0.0, per_sample=True).item() == pytest.approx(0.5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(9, 7), (6, 5, 4)], ids=["2d", "3d"])
def test_agrees_with_monai(options: dict[str, bool], size: tuple[int, ...]) -> None:
    from monai.losses import DiceLoss

    p, target = _example(size=size)
    theirs = DiceLoss(
        include_background=options["background"],
        to_onehot_y=True,
        squared_pred=options["squared"],
        batch=not options["per_sample"],
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    assert soft_dice(p, target, **options).item() == pytest.approx(theirs(p, target[:, None]).item(), abs=2e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("ignore", [False, True], ids=["annotated", "ignore"])
def test_value_and_gradient_agree_with_the_oracle(options: dict[str, bool], ignore: bool) -> None:
    p, target = _example(seed=1, ignore=ignore)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0])
    mine, oracle = p.clone().requires_grad_(), p.double().requires_grad_()
    ours, theirs = (f(x, target, class_weights=weights, **options) for f, x in ((soft_dice, mine), (_oracle, oracle)))
    ours.backward()
    theirs.backward()
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert mine.grad is not None
    assert oracle.grad is not None
    assert torch.allclose(mine.grad, oracle.grad.float(), rtol=1e-4, atol=1e-8)


def test_gradient_agrees_with_finite_differences() -> None:
    p, target = _example(seed=2, classes=3, size=(3, 2), ignore=True)
    p = p.requires_grad_()
    soft_dice(p, target, squared=True).backward()
    assert p.grad is not None
    step = 1e-6
    for index in np.ndindex(*p.shape):
        up, down = p.detach().double(), p.detach().double()
        up[index] += step
        down[index] -= step
        slope = (_oracle(up, target, squared=True) - _oracle(down, target, squared=True)) / (2 * step)
        assert p.grad[index].item() == pytest.approx(slope.item(), abs=2e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_order_of_the_batch_does_not_matter(options: dict[str, bool]) -> None:
    p, target = _example(seed=3, ignore=True)
    order = torch.tensor([2, 0, 1])
    expected = soft_dice(p, target, **options).item()
    assert soft_dice(p[order], target[order], **options).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_order_of_the_classes_does_not_matter(squared: bool) -> None:
    p, target = _example(seed=4, ignore=True)
    order = torch.tensor([3, 1, 0, 2])  # new class k is old class order[k]
    renamed = torch.where(target >= 0, order.argsort()[target.clamp(min=0)], target)
    expected = soft_dice(p, target, squared=squared).item()
    assert soft_dice(p[:, order], renamed, squared=squared).item() == pytest.approx(expected, abs=1e-6)


def test_repeating_the_image_does_not_matter() -> None:
    p, target = _example(seed=5)
    twice = soft_dice(torch.cat([p, p], 2), torch.cat([target, target], 1), smooth=0.0)
    assert twice.item() == pytest.approx(soft_dice(p, target, smooth=0.0).item(), abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_certain_and_right_is_zero_certain_and_wrong_is_one(options: dict[str, bool]) -> None:
    target = torch.arange(60).reshape(1, 3, 4, 5) % 3
    certain = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert soft_dice(certain, target, **options).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(certain.roll(1, 1), target, **options).item() == pytest.approx(1, abs=1e-5)


def test_class_absent_from_both_counts_as_one() -> None:
    target = torch.tensor([[0, 1, 1]])
    certain = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    dice = dice_per_class(certain, target, squared=False, smooth=1e-5, over_batch=True)
    assert dice.tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_absent_class_and_all_background_are_finite(options: dict[str, bool]) -> None:
    p, _ = _example(seed=6)
    p = p.requires_grad_()
    target = torch.zeros(3, 6, 5, 4, dtype=torch.int64)
    loss = soft_dice(p, target, **options)
    loss.backward()
    assert p.grad is not None
    assert 0 <= loss.item() <= 1
    assert p.grad.isfinite().all()
    # A foreground class that is nowhere is pushed down everywhere, or not at all: never up.
    assert (p.grad[:, 1:] >= 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_annotated_is_finite_and_teaches_nothing(options: dict[str, bool]) -> None:
    p, target = _example(seed=7)
    p = p.requires_grad_()
    loss = soft_dice(p, torch.full_like(target, -1), **options)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert p.grad is not None
    assert not p.grad.any()


def test_ignored_voxels_count_nowhere() -> None:
    p, target = _example(seed=8, ignore=True)
    other = torch.where((target < 0)[:, None], torch.rand_like(p), p)
    assert (target < 0).any()
    assert torch.equal(soft_dice(p, target), soft_dice(other, target))
    leaf = p.requires_grad_()
    soft_dice(leaf, target).backward()
    assert leaf.grad is not None
    assert not leaf.grad.movedim(1, -1)[target < 0].any()


def test_half_precision_is_summed_in_full() -> None:
    # In bfloat16, 256 + 1 is 256: sums of more than a few hundred voxels would stand still.
    p = torch.full((1, 2, 40, 40, 40), 0.5, dtype=torch.bfloat16)
    target = torch.ones(1, 40, 40, 40, dtype=torch.int64)
    assert soft_dice(p, target, background=False).item() == pytest.approx(1 - 2 * 0.5 / 1.5, abs=1e-5)


def test_autocast_changes_nothing() -> None:
    p, target = _example(seed=9, size=(24, 24, 24))
    expected = soft_dice(p, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(soft_dice(p, target), expected)


def test_large_patches_lose_no_digits() -> None:
    # A running float32 sum of 100^3 voxels grows in steps of its last digit, which then dwarf what is added.
    p = torch.full((1, 10, 100, 100, 100), 0.1)
    target = torch.zeros(1, 100, 100, 100, dtype=torch.int64)
    dice = dice_per_class(p.flatten(2), target.flatten(1), squared=False, smooth=0.0, over_batch=True)
    assert dice[0].item() == pytest.approx(2 * 0.1 / 1.1, rel=1e-3)  # a running sum is off by 1e-2
