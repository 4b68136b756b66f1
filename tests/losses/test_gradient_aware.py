"""The gradient-aware losses: by hand, against float64 oracles from one-hot volumes, and where they could break."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.gradient_aware import ga_ce, ga_dice, ga_loss, kept_at, require_ga
from semialign.losses.segmentation import cross_entropy

KEEPS = (10, 37.5, 100)
LOSSES = {
    "dice": ga_dice,
    "ce 10": lambda x, t: ga_ce(x, t, keep=10, gamma=0.5),
    "ce 100": lambda x, t: ga_ce(x, t, keep=100, gamma=0.25),
    "both": lambda x, t: ga_loss(x, t, keep=10),
}


def _one_hot(target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    valid = (target >= 0)[:, None].double()
    return F.one_hot(target.clamp(min=0), classes).movedim(-1, 1).double() * valid, valid


def _dice_oracle(logits: Tensor, target: Tensor) -> Tensor:
    """The definition, class by class."""
    g, valid = _one_hot(target, logits.shape[1])
    p = logits.double().softmax(1) * valid
    losses = []
    for c in range(logits.shape[1]):
        if g[:, c].any():
            above, below = 2 * (p[:, c] * g[:, c]).sum(), (p[:, c] ** 2).sum() + (g[:, c] ** 2).sum()
            losses.append(1 - (above + 1e-10) / (below + 1e-10))
        else:
            losses.append(((p[:, c] / valid.sum()).detach() * p[:, c]).sum())
    return torch.stack(losses).mean()


def _ce_oracle(logits: Tensor, target: Tensor, keep: float, gamma: float) -> Tensor:
    """The definition, by sorting every annotated voxel."""
    g, _ = _one_hot(target, logits.shape[1])
    voxels = -(logits.double().log_softmax(1) * g).sum(1)[target >= 0]
    classes = target[target >= 0]
    order = voxels.argsort(descending=True)[: math.floor(keep * len(voxels) / 100)]
    voxels, classes = voxels[order], classes[order]
    total = voxels.sum() * 0
    for c in classes.unique():
        own = classes == c
        total = total + voxels[own].sum() / (int(own.sum()) ** (1 - gamma) * len(order) ** gamma)
    return total


def _example(seed: int = 0, *, ignore: bool = False, size: tuple[int, ...] = (6, 5, 4)) -> tuple[Tensor, Tensor]:
    """Logits of five classes and a target of four: the last is nowhere."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 5, *size, generator=generator)
    return logits, torch.randint(-1 if ignore else 0, 4, (3, *size), generator=generator)


def _compare(ours: Tensor, logits: Tensor, oracle: Tensor, doubles: Tensor) -> None:
    ours.backward()
    oracle.backward()
    assert ours.dtype == torch.float32
    assert ours.shape == ()
    assert ours.item() == pytest.approx(oracle.item(), rel=2e-6)
    assert logits.grad is not None
    assert doubles.grad is not None
    assert torch.allclose(logits.grad, doubles.grad.float(), rtol=1e-4, atol=1e-7)


def test_dice_by_hand() -> None:
    # Two voxels of classes 0 and 1; class 2 is nowhere.
    p = torch.tensor([[[0.5, 0.6], [0.3, 0.3], [0.2, 0.1]]])
    expected = (1 - 1.0 / (0.25 + 0.36 + 1)) + (1 - 0.6 / (0.09 + 0.09 + 1)) + (0.04 + 0.01) / 2
    assert ga_dice(p.log(), torch.tensor([[0, 1]])).item() == pytest.approx(expected / 3, rel=1e-6)


def test_an_absent_classs_gradient_by_hand() -> None:
    # Class 0 everywhere, two voxels; of the absent one, d/dp is p / 2, not 2 p / 2: half of it stands still.
    logits = torch.tensor([[[0.3, -0.4], [0.1, 0.9]]], requires_grad=True)
    ga_dice(logits, torch.tensor([[0, 0]])).backward()
    p = logits.detach()[0].double().softmax(0)
    above, below = 2 * p[0].sum(), (p[0] ** 2).sum() + 2
    by_p = -(2 * below - 2 * p[0] * above) / below**2 - p[1] / 2  # p[1] is 1 - p[0]
    expected = by_p * p[0] * p[1] / 2
    assert logits.grad is not None
    assert logits.grad[0, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert logits.grad[0, 1].tolist() == pytest.approx((-expected).tolist(), rel=1e-5)


def test_cross_entropy_by_hand() -> None:
    own = [0.5, 0.25, 0.8, 0.1]  # of each voxel's own class
    target = torch.tensor([[0, 1, 0, 1]])
    p = torch.tensor([own]) * F.one_hot(target, 2).movedim(-1, 1)
    p = torch.where(p > 0, p, 1 - torch.tensor(own))
    a, b, c, d = (-math.log(v) for v in own)
    for keep, gamma, expected in (
        (25, 0.5, d),
        (50, 0.5, (d + b) / 2),
        (75, 0.5, (d + b) / math.sqrt(2 * 3) + a / math.sqrt(1 * 3)),
        (75, 0.25, (d + b) / (2**0.75 * 3**0.25) + a / 3**0.25),
        (100, 0.5, (d + b) / math.sqrt(2 * 4) + (a + c) / math.sqrt(2 * 4)),
        (100, 0.0, (d + b) / 2 + (a + c) / 2),
        (100, 1.0, (a + b + c + d) / 4),
        (99, 1.0, (d + b + a) / 3),  # rounded down
        (24, 0.5, 0.0),
    ):
        assert ga_ce(p.log(), target, keep=keep, gamma=gamma).item() == pytest.approx(expected, rel=1e-6), keep


@pytest.mark.parametrize("ignore", [False, True], ids=["annotated", "ignore"])
@pytest.mark.parametrize("size", [(9, 7), (6, 5, 4)], ids=["2d", "3d"])
def test_dice_and_its_gradient_agree_with_the_oracle(ignore: bool, size: tuple[int, ...]) -> None:
    logits, target = _example(1, ignore=ignore, size=size)
    mine, doubles = logits.clone().requires_grad_(), logits.double().requires_grad_()
    _compare(ga_dice(mine, target), mine, _dice_oracle(doubles, target), doubles)


@pytest.mark.parametrize("ignore", [False, True], ids=["annotated", "ignore"])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("keep", KEEPS)
def test_cross_entropy_and_its_gradient_agree_with_the_oracle(keep: float, gamma: float, ignore: bool) -> None:
    logits, target = _example(2, ignore=ignore)
    mine, doubles = logits.clone().requires_grad_(), logits.double().requires_grad_()
    _compare(ga_ce(mine, target, keep=keep, gamma=gamma), mine, _ce_oracle(doubles, target, keep, gamma), doubles)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_agrees_with_finite_differences_in_float64(name: str) -> None:
    # All classes present: of an absent one the gradient is, by definition, half of the value's slope.
    logits = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    target = torch.arange(40).reshape(2, 5, 4) % 4 - 1
    assert LOSSES[name](logits, target).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target), logits.requires_grad_())


def test_both_is_the_sum() -> None:
    logits, target = _example(4, ignore=True)
    expected = ga_dice(logits, target) + ga_ce(logits, target, keep=25, gamma=0.7)
    assert torch.equal(ga_loss(logits, target, keep=25, gamma=0.7), expected)


def test_all_voxels_weighed_alike_are_the_plain_cross_entropy() -> None:
    logits, target = _example(5, ignore=True)
    expected = cross_entropy(logits, target).item()
    assert ga_ce(logits, target, keep=100, gamma=1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_orders_of_batch_and_classes_do_not_matter(name: str) -> None:
    logits, target = _example(6, ignore=True)
    expected = LOSSES[name](logits, target).item()
    order = torch.tensor([2, 0, 1])
    assert LOSSES[name](logits[order], target[order]).item() == pytest.approx(expected, rel=1e-6)
    order = torch.tensor([3, 1, 4, 0, 2])  # new class k is old class order[k]
    renamed = torch.where(target >= 0, order.argsort()[target.clamp(min=0)], target)
    assert LOSSES[name](logits[:, order], renamed).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_sums_run_over_the_batch(name: str) -> None:
    logits, target = _example(7, ignore=True)
    joined = LOSSES[name](logits.movedim(0, 1).flatten(1, 2)[None], target.flatten(0, 1)[None])
    assert joined.item() == pytest.approx(LOSSES[name](logits, target).item(), rel=1e-6)


def test_a_scarce_class_counts_as_much_as_the_definition_says() -> None:
    # One voxel of class 1 among a thousand: its own cross-entropy over sqrt(1 * M).
    logits = torch.zeros(1, 2, 1000)
    logits[:, 0] = 3.0
    target = torch.zeros(1, 1000, dtype=torch.int64)
    target[0, 500] = 1
    right, wrong = math.log1p(math.exp(-3)), math.log1p(math.exp(3))
    for keep, kept in ((10, 100), (100, 1000)):
        expected = wrong / math.sqrt(kept) + (kept - 1) * right / math.sqrt((kept - 1) * kept)
        assert ga_ce(logits, target, keep=keep, gamma=0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_annotated_is_zero_and_teaches_nothing(name: str) -> None:
    logits, target = _example(8)
    logits.requires_grad_()
    loss = LOSSES[name](logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_voxels_count_nowhere(name: str) -> None:
    logits, target = _example(9, ignore=True)
    # Ignored voxels with the worst predictions there are must not be the ones that are kept.
    other = torch.where((target < 0)[:, None], 100 * torch.randn_like(logits), logits)
    assert (target < 0).any()
    assert torch.equal(LOSSES[name](logits, target), LOSSES[name](other, target))
    alone = LOSSES[name](logits.movedim(1, -1)[target >= 0].T[None], target[target >= 0][None])
    assert alone.item() == pytest.approx(LOSSES[name](logits, target).item(), rel=1e-6)
    other.requires_grad_()
    LOSSES[name](other, target).backward()
    assert other.grad is not None
    assert not other.grad.movedim(1, -1)[target < 0].any()


@pytest.mark.parametrize("name", LOSSES)
def test_all_background_is_finite_and_pushes_the_other_classes_down(name: str) -> None:
    logits, target = _example(10)
    logits.requires_grad_()
    loss = LOSSES[name](logits, torch.zeros_like(target))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    # Background's own logit falls nowhere; of the others a likely one may pass some on to less likely ones.
    assert (logits.grad[:, 0] <= 0).all()
    assert logits.grad[:, 1:].sum() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("right", [True, False])
def test_certain_predictions_are_finite(name: str, right: bool) -> None:
    _, target = _example(11, ignore=True)
    logits = 1e4 * F.one_hot(target.clamp(min=0), 5).movedim(-1, 1).float()
    logits = (logits if right else logits.roll(1, 1)).requires_grad_()
    loss = LOSSES[name](logits, target)
    loss.backward()
    assert loss.isfinite()
    assert (loss.item() == pytest.approx(0, abs=1e-6)) == right
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_full(name: str) -> None:
    logits, target = _example(12, size=(16, 16, 16))
    half = logits.bfloat16().requires_grad_()
    loss = LOSSES[name](half, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, LOSSES[name](half.detach().float(), target))
    loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LOSSES[name](half.detach(), target), loss)


def test_the_share_kept_falls_by_one_factor_a_step() -> None:
    kept = [kept_at(Progress("train", step, 3), 100, 25) for step in range(4)]
    assert kept == pytest.approx([100, 50, 25, 25]), "a run that outlasts its estimate stays where it ended"
    assert kept_at(Progress("train", 7, 100), 10, 10) == 10, "as published, to the digit"
    assert kept_at(Progress("train", 0, 1), 100, 10) == 100


def test_large_patches_lose_no_digits() -> None:
    # A running float32 sum over 100^3 voxels would be off by a hundredth.
    logits = torch.zeros(1, 10, 100, 100, 100)
    target = torch.zeros(1, 100, 100, 100, dtype=torch.int64)
    n = 1e6
    assert ga_ce(logits, target, keep=100, gamma=0.5).item() == pytest.approx(math.log(10), rel=1e-5)
    present, absent = 1 - 2 * 0.1 * n / (0.01 * n + n), 0.01
    assert ga_dice(logits, target).item() == pytest.approx((present + 9 * absent) / 10, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gamma": 1.5}, "gamma 1.5: must be from 0 to 1"),
        ({"gamma": 0.5, "keep": 0.0}, "keep 0: must be a percentage"),
        ({"gamma": 0.5, "keep": 10.0, "keep_pseudo": 101.0}, "keep_pseudo 101: must be a percentage"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, float], words: str) -> None:
    require_ga(gamma=0.0, keep=100.0)
    with pytest.raises(UserError, match=words):
        require_ga(**values)
