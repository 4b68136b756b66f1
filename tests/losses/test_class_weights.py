"""Weights of classes: values by hand, and classes that are absent, alone, or nowhere."""

import math
from typing import Any

import pytest
import torch

from semialign.losses.class_weights import DifficultyWeights, DistributionWeights, class_counts, rarity
from semialign.losses.segmentation import cross_entropy


def test_counts_leave_out_what_nobody_annotated() -> None:
    assert class_counts(torch.tensor([[0, 2, -1], [2, 2, -1]]), 4).tolist() == [1, 0, 3, 0]


def test_rarity_by_hand() -> None:
    expected = [0.0, math.log(10), math.log(100)]
    torch.testing.assert_close(
        rarity(torch.tensor([100.0, 10, 1])), torch.tensor([3 * v / expected[2] for v in expected])
    )
    # The order of classes changes nothing.
    torch.testing.assert_close(rarity(torch.tensor([1.0, 100, 10])), torch.tensor([3.0, 0, 1.5]))


@pytest.mark.parametrize("counts", [[0, 0, 0], [5, 5, 5], [7, 0, 0], [0, 0, 9]], ids=str)
def test_absent_classes_give_numbers(counts: Any) -> None:
    weights = rarity(torch.tensor(counts, dtype=torch.float64))
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    if len(set(counts)) == 1:
        assert weights.tolist() == [1, 1, 1]


def test_the_distribution_follows_pseudo_labels() -> None:
    module = DistributionWeights(3, momentum=0.9)
    module.seen(torch.tensor([100, 10, 1]))
    after = module.next(torch.tensor([1.0, 10, 100]))
    torch.testing.assert_close(after, torch.tensor([0.3, 1.5, 2.7]))
    torch.testing.assert_close(module.weights, torch.tensor([0.0, 1.5, 3.0]), msg="kept only when told")
    module.keep(after)
    torch.testing.assert_close(module.next(None), after)
    # Without labels seen before, those of the step count.
    fresh = DistributionWeights(3)
    torch.testing.assert_close(fresh.next(None, torch.tensor([100.0, 10, 1])), torch.tensor([0.0, 1.5, 3.0]))


@pytest.mark.parametrize("scale", [True, False])
def test_difficulty_by_hand(scale: bool) -> None:
    module = DifficultyWeights(3, scale=scale)
    label = torch.tensor([[0, 0, 0, 1, 1, -1]])
    steps = [torch.tensor([[0, 0, 1, 1, 0, 2]]), torch.tensor([[0, 1, 1, 1, 1, 2]])]
    dices = [[4 / 6, 2 / 4, 0.5], [2 / 4, 4 / 6, 0.5]]  # the third class is in neither
    learn, unlearn, hard, before = [0.0] * 3, [0.0] * 3, [1.0] * 3, [1e-8] * 3
    for prediction, now in zip(steps, dices, strict=True):
        weights, state = module.next(prediction, label)
        module.keep(state)
        expected = []
        for c in range(3):
            change, ratio = now[c] - before[c], math.log(now[c] / before[c])
            learn[c] = 0.98 * learn[c] + 0.02 * max(change, 0) * ratio
            unlearn[c] = 0.98 * unlearn[c] + 0.02 * min(change, 0) * ratio
            hard[c] = 0.98 * hard[c] + 0.02 * (1 - now[c])
            expected.append(((unlearn[c] + 1e-8) / (learn[c] + 1e-8)) ** 0.2 * hard[c])
            before[c] = now[c]
        largest = max(expected)
        expected = [3 * e / largest for e in expected] if scale else expected
        torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [-1, 0, 2])
def test_difficulty_of_one_class_or_none(value: int) -> None:
    module = DifficultyWeights(3)
    for prediction in (0, 2, 2, 1):
        weights, state = module.next(torch.full((1, 4, 4), prediction), torch.full((1, 4, 4), value))
        module.keep(state)
        assert weights.isfinite().all()
        assert weights.max() == pytest.approx(3)


def test_weighted_cross_entropy_is_a_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, generator=generator), torch.randint(0, 3, (2, 4, 4), generator=generator)
    target[0, 0] = -1
    weights = torch.tensor([0.0, 1.0, 2.5])
    expected = torch.nn.functional.cross_entropy(logits, target, weight=weights, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, target, class_weights=weights), expected)
    # Background alone, which weighs nothing, and nothing at all: 0, not a division by it.
    for alone in (0, -1):
        assert cross_entropy(logits, torch.full_like(target, alone), class_weights=weights) == 0
