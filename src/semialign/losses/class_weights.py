"""Weights of classes for the losses, by how common (DistDW) and how hard (DiffDW) they are (DHC, MICCAI 2023)."""

import torch
from torch import Tensor, nn

from semialign.common.ranks import sum_of_ranks

SMALL = 1e-8


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Return voxels (C,) float64 of each class in ``labels`` (any shape, -1 counts nowhere), over all processes."""
    return sum_of_ranks(torch.bincount(labels.flatten() + 1, minlength=num_classes + 1)[1:].double())


def rarity(counts: Tensor) -> Tensor:
    """Return ``ln((max N + 1e-8) / (N_c + 1e-8))`` (C,), scaled so that the largest is C; the commonest class gets 0.

    1 everywhere where all classes are equally common.
    """
    value = ((counts.max() + SMALL) / (counts + SMALL)).log()
    return torch.where(value.max() > 0, scaled(value), torch.ones_like(value)).float()


def scaled(weights: Tensor) -> Tensor:
    """Return ``weights`` (C,) divided by their maximum, times C."""
    return weights / weights.max().clamp(min=1e-30) * len(weights)


class DistributionWeights(nn.Module):
    """DistDW: rare classes weigh more; an average over steps of :func:`rarity`. Its buffers are all its state.

    :meth:`seen` starts it from label voxels, :meth:`next` returns the weights of a step, :meth:`keep` keeps them.
    """

    weights: Tensor
    started: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("weights", torch.ones(num_classes))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def seen(self, counts: Tensor) -> None:
        """Start from voxels (C,) of every class in the labels."""
        self.weights.copy_(rarity(counts.double()))
        self.started.fill_(True)

    def next(self, counts: Tensor | None, of_labels: Tensor | None = None) -> Tensor:
        """Return the weights (C,) after pseudo-labels of ``counts`` (C,) voxels, where there are any.

        ``of_labels`` (C,): voxels in the labels of this step, which count where none were :meth:`seen` before.
        """
        weights = self.weights
        if of_labels is not None:
            weights = torch.where(self.started, weights, rarity(of_labels))
        return weights.clone() if counts is None else self.momentum * weights + (1 - self.momentum) * rarity(counts)

    def keep(self, weights: Tensor) -> None:
        """Keep what :meth:`next` returned."""
        self.weights.copy_(weights)
        self.started.fill_(True)


class DifficultyWeights(nn.Module):
    """DiffDW: classes that are learned slowly, unlearned, or segmented badly weigh more. Its buffers are all its state.

    With ``d`` the Dice of the hard prediction on a labelled batch and ``d'`` the one before:
    ``((unlearn + 1e-8) / (learn + 1e-8))^(1/5) hard``, averages over steps with momentum 49/50 of
    ``min(d - d', 0) ln(d / d')``, ``max(d - d', 0) ln(d / d')`` and ``1 - d``.
    """

    state: Tensor

    def __init__(self, num_classes: int, *, scale: bool = True, momentum: float = 49 / 50) -> None:
        super().__init__()
        self.scale, self.momentum = scale, momentum
        self.register_buffer("state", torch.zeros(4, num_classes, dtype=torch.float64))  # learn, unlearn, hard, d'
        self.forget()

    def forget(self) -> None:
        """Start anew, as if nothing had been seen."""
        self.state.zero_()
        self.state[2], self.state[3] = 1, SMALL

    def next(self, prediction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights (C,) at a hard ``prediction`` (L, *S) of ``label`` (L, *S), and the state to keep.

        Voxels of -1 count nowhere; a class absent from both has a Dice of one half.
        """
        classes = self.state.shape[1]
        hit = torch.where(prediction == label, label, -1)
        guess = torch.where(label >= 0, prediction, -1)
        both, predicted, true = (class_counts(v, classes) for v in (hit, guess, label))
        now = (2 * both + SMALL) / (predicted + true + 2 * SMALL)
        before = self.state[3]
        change, ratio = now - before, (now / before).log()
        moved = torch.stack([change.clamp(min=0) * ratio, change.clamp(max=0) * ratio, 1 - now])
        learn, unlearn, hard = averages = self.momentum * self.state[:3] + (1 - self.momentum) * moved
        weights = ((unlearn + SMALL) / (learn + SMALL)) ** 0.2 * hard
        return (scaled(weights) if self.scale else weights).float(), torch.cat([averages, now[None]])

    def keep(self, state: Tensor) -> None:
        """Keep the state that :meth:`next` returned."""
        self.state.copy_(state)
