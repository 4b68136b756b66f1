"""Cross-entropy and the supervised loss: by hand, against PyTorch's and MONAI's own, and where they could break."""

import math

import pytest
import torch
import torch.nn.functional as F

from semialign.losses.dice import soft_dice
from semialign.losses.segmentation import cross_entropy, dice_ce


def _example(seed: int = 0, ignore: bool = False, size: tuple[int, ...] = (6, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, *size, generator=generator)
    return logits, torch.randint(-1 if ignore else 0, 4, (2, *size), generator=generator)


def test_cross_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.75, 0.5, 0.9], [0.25, 0.5, 0.1]]]))
    target = torch.tensor([[1, 0, -1]])
    assert cross_entropy(logits, target).item() == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_cross_entropy_by_hand_with_weights() -> None:
    logits = torch.log(torch.tensor([[[0.75, 0.5, 0.9], [0.25, 0.5, 0.1]]]))
    target = torch.tensor([[1, 0, -1]])
    weights = torch.tensor([[3.0, 0.5, 100.0]])
    # Divided by the two annotated voxels, not by the sum of the weights.
    expected = (3 * math.log(4) + 0.5 * math.log(2)) / 2
    assert cross_entropy(logits, target, weights=weights).item() == pytest.approx(expected)


@pytest.mark.parametrize("ignore", [False, True])
def test_cross_entropy_and_its_gradient_agree_with_pytorch_in_float64(ignore: bool) -> None:
    logits, target = _example(1, ignore)
    mine, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    ours, expected = cross_entropy(mine, target), F.cross_entropy(theirs, target, ignore_index=-1)
    ours.backward()
    expected.backward()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(mine.grad, theirs.grad.float(), atol=1e-7)


def test_cross_entropy_does_not_care_about_shifts_of_the_logits_or_the_order_of_the_batch() -> None:
    logits, target = _example(2, True)
    expected = cross_entropy(logits, target).item()
    assert cross_entropy(logits + 7, target).item() == pytest.approx(expected, rel=1e-5)
    assert cross_entropy(logits.flip(0), target.flip(0)).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_scales_with_its_weights() -> None:
    logits, target = _example(3)
    weights = torch.rand(target.shape)
    doubled = cross_entropy(logits, target, weights=2 * weights).item()
    assert doubled == pytest.approx(2 * cross_entropy(logits, target, weights=weights).item(), rel=1e-6)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_gradient_of_dice_ce_numerically(squared: bool, per_sample: bool, background: bool) -> None:
    logits, target = _example(7, True, size=(4, 3))

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return dice_ce(logits, target, squared=squared, per_sample=per_sample, background=background)

    assert torch.autograd.gradcheck(loss, logits.double().requires_grad_())


@pytest.mark.parametrize("squared", [False, True])
def test_dice_ce_is_its_parts(squared: bool) -> None:
    (logits, target), kind = _example(8, True, size=(5, 4, 6)), {"squared": squared, "smooth": 0.3}
    ours, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    whole = dice_ce(ours, target, **kind)
    apart = (cross_entropy(parts, target) + soft_dice(parts.softmax(1), target, background=False, **kind)) / 2
    assert whole.item() == pytest.approx(apart.item(), rel=1e-6)
    (3 * whole).backward()
    (3 * apart).backward()
    assert ours.grad is not None
    assert parts.grad is not None
    assert torch.allclose(ours.grad, parts.grad, atol=1e-7)


def test_dice_ce_of_half_precision_logits_has_a_gradient_of_theirs() -> None:
    logits, target = _example(9)
    half, whole = logits.bfloat16().requires_grad_(), logits.bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = dice_ce(half, target)
    loss.backward()
    dice_ce(whole, target).backward()
    assert loss.dtype == torch.float32
    assert half.grad is not None
    assert whole.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert torch.equal(half.grad, whole.grad.bfloat16())


@pytest.mark.parametrize("size", [(9, 7), (5, 4, 6)], ids=["2d", "3d"])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_dice_ce_agrees_with_monai(size: tuple[int, ...], squared: bool, per_sample: bool, background: bool) -> None:
    from monai.losses import DiceCELoss

    logits, target = _example(4, size=size)
    theirs = DiceCELoss(
        include_background=background,
        to_onehot_y=True,
        softmax=True,
        squared_pred=squared,
        batch=not per_sample,
        lambda_dice=0.5,
        lambda_ce=0.5,
    )
    ours = dice_ce(logits, target, squared=squared, per_sample=per_sample, background=background)
    assert ours.item() == pytest.approx(theirs(logits, target[:, None]).item(), abs=2e-5)


def test_dice_ce_is_half_of_each() -> None:
    logits, target = _example(5, True)
    expected = 0.5 * (cross_entropy(logits, target) + soft_dice(logits.softmax(1), target, background=False))
    assert torch.equal(dice_ce(logits, target), expected)


def test_classes_may_be_renamed() -> None:
    logits, target = _example(6, True)
    order = torch.tensor([0, 3, 1, 2])  # the background stays: it is left out of the Dice
    renamed = torch.where(target >= 0, order.argsort()[target.clamp(min=0)], target)
    assert dice_ce(logits[:, order], renamed).item() == pytest.approx(dice_ce(logits, target).item(), rel=1e-5)


@pytest.mark.parametrize("value", [0, -1, 3], ids=["all background", "nothing annotated", "one class alone"])
@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["usual", "huge logits"])
def test_finite_with_finite_gradients(value: int, scale: float) -> None:
    logits, target = _example(7)
    leaf = (scale * logits).requires_grad_()
    loss = dice_ce(leaf, torch.full_like(target, value))
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    if value == -1:
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert not leaf.grad.any()


def test_ignored_voxels_get_no_gradient() -> None:
    logits, target = _example(8, True)
    leaf = logits.requires_grad_()
    dice_ce(leaf, target).backward()
    assert leaf.grad is not None
    assert not leaf.grad.movedim(1, -1)[target < 0].any()
    assert leaf.grad.movedim(1, -1)[target >= 0].any(-1).all()


def test_half_precision_and_autocast() -> None:
    logits, target = _example(9, size=(30, 30, 30))
    expected = dice_ce(logits, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dice_ce(logits, target), expected)
    rounded = dice_ce(logits.bfloat16(), target)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, dice_ce(logits.bfloat16().float(), target))
