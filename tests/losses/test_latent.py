"""SemiGDA's losses by hand: whom each teaches, what they do without images, and pseudo-labels in one piece."""

import pytest
import torch
from torch import Tensor

from semialign.data.transforms import random_cuboid
from semialign.losses.dice import soft_dice
from semialign.losses.latent import (
    hard_pseudo_labels,
    labelled_alignment,
    mix_pairs,
    mutual_dice,
    soft_soft_dice,
    unlabelled_alignment,
)


def _latent(*values: float) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1).requires_grad_()


def _random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _two_classes(*foreground: float) -> Tensor:
    """One picture of one row."""
    p = torch.tensor(foreground)
    return torch.stack([1 - p, p]).view(1, 2, 1, -1)


def test_labelled_alignment_by_hand() -> None:
    mapped, encoded, anchor = _latent(1.0, 2.0), _latent(0.0, -1.0), _latent(0.0, 0.5)
    loss = labelled_alignment(mapped, encoded, anchor=anchor)
    assert loss.item() == pytest.approx((1 + 2.25) / 2 + (0 + 2.25) / 2)
    loss.backward()
    assert mapped.grad is not None
    assert encoded.grad is not None
    assert mapped.grad.flatten().tolist() == pytest.approx([1, 1.5])
    assert encoded.grad.flatten().tolist() == pytest.approx([0, -1.5])
    assert anchor.grad is None


def test_unlabelled_alignment_by_hand() -> None:
    mapped, encoded = _latent(1.0, 2.0), _latent(0.0, -1.0)
    loss = unlabelled_alignment(mapped, encoded)
    assert loss.item() == pytest.approx(2 * (1 + 9) / 2)
    loss.backward()
    assert mapped.grad is not None
    assert encoded.grad is not None
    # d mean((m - e)^2) / d m = 2 (m - e) / 2, once for each branch: the other's is stopped.
    assert mapped.grad.flatten().tolist() == pytest.approx([1, 3])
    assert encoded.grad.flatten().tolist() == pytest.approx([-1, -3])


def test_soft_soft_dice_by_hand() -> None:
    p, q = _two_classes(0.5, 1.0), _two_classes(0.25, 0.75)
    # Foreground: 2 (0.125 + 0.75) / (1.5 + 1); background: 2 (0.375 + 0) / (0.5 + 1).
    assert soft_soft_dice(p, q, smooth=0.0).item() == pytest.approx(1 - 0.7)
    assert soft_soft_dice(p, q, smooth=0.0, background=True).item() == pytest.approx(1 - (0.7 + 0.5) / 2)
    assert soft_soft_dice(p, q, smooth=1.0).item() == pytest.approx(1 - 2.75 / 3.5)
    # Per image: a second one in full agreement halves the loss, however large its foreground is.
    both = soft_soft_dice(torch.cat([p, _two_classes(1, 1)]), torch.cat([q, _two_classes(1, 1)]), smooth=0.0)
    assert both.item() == pytest.approx((1 - 0.7) / 2)


@pytest.mark.parametrize("background", [False, True])
def test_soft_soft_dice_of_a_hard_target_is_the_dice_to_its_labels(background: bool) -> None:
    p = _random((3, 4, 6, 5), 0).softmax(1)
    label = torch.randint(0, 4, (3, 6, 5), generator=torch.Generator().manual_seed(1))
    hard = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    expected = soft_dice(p, label, per_sample=True, background=background).item()
    assert soft_soft_dice(p, hard, background=background).item() == pytest.approx(expected, abs=1e-6)


def test_orders_of_images_and_classes_do_not_matter() -> None:
    p, q = (_random((3, 4, 6, 5), seed).softmax(1) for seed in (2, 3))
    expected = mutual_dice(p, q, background=True).item()
    images, classes = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    assert mutual_dice(p[images], q[images], background=True).item() == pytest.approx(expected, abs=1e-6)
    assert mutual_dice(p[:, classes], q[:, classes], background=True).item() == pytest.approx(expected, abs=1e-6)
    assert mutual_dice(q, p, background=True).item() == pytest.approx(expected, abs=1e-6)
    assert mutual_dice(p, q).item() != pytest.approx(expected, abs=1e-3)


def test_mutual_dice_is_both_ways_with_each_target_stopped() -> None:
    p, q = (_random((2, 3, 4, 4), seed).softmax(1).requires_grad_() for seed in (4, 5))
    mutual_dice(p, q).backward()
    for own, other in ((p, q), (q, p)):
        leaf = own.detach().clone().requires_grad_()
        soft_soft_dice(leaf, other.detach()).backward()
        assert own.grad is not None
        assert leaf.grad is not None
        assert torch.allclose(own.grad, leaf.grad)


def test_soft_soft_dice_pushes_up_where_the_target_is_above_half_of_the_dice() -> None:
    p, q = _two_classes(0.5, 0.5, 0.5), _two_classes(0.9, 0.2, 0.4)
    dice = 2 * 0.75 / (1.5 + 1.5)  # 0.5: the threshold is 0.25
    leaf = p.requires_grad_()
    loss = soft_soft_dice(leaf, q, smooth=0.0)
    assert loss.item() == pytest.approx(1 - dice)
    loss.backward()
    assert leaf.grad is not None
    assert (leaf.grad[0, 1, 0] < 0).tolist() == [True, False, True]


def test_no_foreground_at_all_is_finite_and_full_agreement_is_no_loss() -> None:
    empty = _two_classes(0.0, 0.0).requires_grad_()
    loss = mutual_dice(empty, _two_classes(0.0, 0.0))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert empty.grad is not None
    assert empty.grad.isfinite().all()
    assert mutual_dice(_two_classes(1, 0), _two_classes(1, 0)).item() == pytest.approx(0, abs=1e-4)
    assert mutual_dice(_two_classes(1, 0), _two_classes(0, 1)).item() == pytest.approx(2, abs=1e-4)


def test_without_images_every_loss_is_zero_and_can_be_trained_on() -> None:
    latent, output = torch.zeros(0, 4, 2, 2, requires_grad=True), torch.zeros(0, 2, 8, 8, requires_grad=True)
    loss = (
        labelled_alignment(latent, latent, anchor=latent)
        + unlabelled_alignment(latent, latent)
        + mutual_dice(output, output)
    )
    loss.backward()
    assert loss.item() == 0
    assert hard_pseudo_labels(output).shape == (0, 8, 8)


def test_autocast_and_half_precision_are_summed_in_full() -> None:
    p = torch.full((1, 2, 40, 40), 0.5, dtype=torch.bfloat16)
    latent = torch.full((1, 4, 28, 28), 0.5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        dice = soft_soft_dice(p, torch.full_like(p, 0.25))
        error = unlabelled_alignment(latent, torch.zeros_like(latent))
    assert (dice.dtype, error.dtype) == (torch.float32, torch.float32)
    assert dice.item() == pytest.approx(1 - 2 * 0.125 / 0.75, abs=1e-5)
    assert error.item() == pytest.approx(0.5, abs=1e-6)


def test_pseudo_labels_of_two_classes_are_sure_and_in_one_piece() -> None:
    # 0.934^10 is just above a half, 0.933^10 just below.
    row = [0.934, 0.95, 0.933, 0.2, 0.99, 0.0]
    p = torch.stack([_two_classes(*row)[0], _two_classes(*row[::-1])[0]])
    assert hard_pseudo_labels(p).tolist() == [[[1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0, 1, 1]]]
    assert hard_pseudo_labels(p, groups=[]).tolist() == [[[1, 1, 0, 0, 1, 0]], [[0, 1, 0, 0, 1, 1]]]


def test_pseudo_labels_of_more_classes_leave_open_what_is_unsure() -> None:
    sure = [0.0, 0.98, 0.02]
    p = torch.tensor([[0.98, 0.01, 0.01], sure, [0.1, 0.9, 0.0], [0.0, 0.0, 1.0], sure, sure]).T[None, :, None]
    assert hard_pseudo_labels(p).tolist() == [[[0, 1, -1, 2, 1, 1]]]
    assert hard_pseudo_labels(p, groups=[[1]]).tolist() == [[[0, 0, -1, 2, 1, 1]]]
    assert hard_pseudo_labels(p, groups=[[1, 2]]).tolist() == [[[0, 0, -1, 2, 1, 1]]]
    assert hard_pseudo_labels(p.requires_grad_()).requires_grad is False


def test_pairs_are_mixed_by_the_mask_alike_for_every_form_of_target() -> None:
    image = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 6, 6)
    mask = random_cuboid(image)
    assert mask.sum() == 16
    label = image[:, 0].long()
    soft = image.repeat(1, 2, 1, 1)
    mixed, mixed_label = mix_pairs(image, label, mask=mask)
    mixed_soft = mix_pairs(image, soft, mask=mask)[1]
    for i in range(3):
        inside, outside = (i - 1) % 3, i
        assert (mixed[i, :, mask] == inside).all()
        assert (mixed[i, :, ~mask] == outside).all()
        assert torch.equal(mixed_label[i], mixed[i, 0].long())
        assert torch.equal(mixed_soft[i], mixed[i].repeat(2, 1, 1))
    alone = mix_pairs(image[:1], label[:1], mask=mask)
    assert torch.equal(alone[0], image[:1])
    assert torch.equal(alone[1], label[:1])
