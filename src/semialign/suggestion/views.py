"""One pass of a model over windows: the mean of its views, how far they are apart, and the features it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from semialign.common.types import Output
from semialign.evaluation.certainty import bits
from semialign.networks.injection import resize
from semialign.networks.residual_encoder import Encoding

if TYPE_CHECKING:
    from semialign.data.plan import Plan
    from semialign.inference.model import TrainedModel

Change = Callable[[Tensor], Tensor]
View = tuple[Change, Change]
"""What is done to windows (B, C, *patch), and what undoes it in their probabilities (B, K, *patch)."""


def views_of(plan: Plan) -> dict[str, View]:
    """Return views that a model of ``plan`` should predict alike, the plain one first.

    Flips along each axis that training flipped; where it flipped none, since sides count, other contrasts.
    """
    views: dict[str, View] = {"as it is": (_same, _same)}
    for axis in plan.mirror_axes:
        views[f"flipped along axis {axis}"] = (_flip(axis), _flip(axis))
    if not plan.mirror_axes:
        views |= {f"contrast times {factor:g}": (_times(factor), _same) for factor in (0.8, 1.25)}
    return views


@dataclass
class Pass:
    """Answers windows, whose last channel is 1 inside the image and 0 beyond it.

    ``models``: several are compared as they are, by the plain view alone; of one, all ``views`` are. Answers are
    (B, K + 1, *patch): the mean probabilities, then in bits how far the entropy of that mean lies above the mean of the
    views' own: by as much the views disagree. It is taken here, on the network's grid, since blending windows and
    resampling would themselves look like disagreement. Features are pooled over all windows, see :meth:`described`.
    """

    models: Sequence[TrainedModel]
    views: Mapping[str, View]
    _sums: list[Tensor] = field(default_factory=list)
    _weights: list[Tensor] = field(default_factory=list)

    def __call__(self, windows: Tensor) -> Tensor:
        """Answer windows (B, C + 1, *patch)."""
        device = self.models[0].device
        image, inside = windows[:, :-1].to(device), windows[:, -1:].to(device)
        with torch.inference_mode():
            with watched(self.models[0]) as seen:
                plain = self.models[0].probabilities(image)
            self._pool(plain, inside, seen or [(image, image**2)])
            answers = [plain]
            if len(self.models) > 1:
                answers += [model.probabilities(image.to(model.device)).to(device) for model in self.models[1:]]
            else:
                answers += [back(self.models[0].probabilities(to(image))) for to, back in list(self.views.values())[1:]]
            mean = torch.stack(answers).mean(0)
            own = torch.stack([bits(answer.movedim(1, 0)) for answer in answers]).mean(0)
            apart = (bits(mean.movedim(1, 0)) - own).clamp(min=0)
            return torch.cat([mean, apart[:, None]], 1)

    def described(self) -> list[Tensor]:
        """Return the pooled features as blocks: of every class but the background, then of the whole image.

        A class's block is the mean of the features that the head classifies, weighted by its probability; the whole
        image's is the mean of the deepest ones. A method that shows none is described by its image's intensities.
        """
        return [total / weight for total, weight in zip(self._sums, self._weights, strict=True)]

    def _pool(self, probabilities: Tensor, inside: Tensor, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        fine = torch.cat([_at(features, inside) for features, _ in seen], 1).float()
        # A class that is found nowhere is described by what the image is everywhere.
        shares = (probabilities[:, 1:] + 1e-8) * inside
        sums = list(torch.einsum("bk...,bd...->kd", shares, fine).double().cpu())
        weights = list(shares.transpose(0, 1).flatten(1).sum(1).double().cpu())
        deep = [features.float() for _, features in seen]
        covered = [resize(inside.float(), features.shape[2:]) for features in deep]
        sums.append(torch.cat([_total(f * c) for f, c in zip(deep, covered, strict=True)]))
        weights.append(torch.cat([_total(c).expand(f.shape[1]) for f, c in zip(deep, covered, strict=True)]))
        if not self._sums:
            self._sums, self._weights = sums, weights
        else:
            self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)]
            self._weights = [a + b for a, b in zip(self._weights, weights, strict=True)]


@contextmanager
def watched(model: TrainedModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield a list that gets the finest and the deepest features of every network that predicts meanwhile."""
    seen: list[tuple[Tensor, Tensor]] = []

    def look(module: torch.nn.Module, given: object, answer: object) -> None:
        if isinstance(answer, Output):
            seen.append((answer.features, answer.pyramid[-1]))
        elif isinstance(answer, Encoding):
            seen.append((answer.features[0], answer.moments))

    hooks = [module.register_forward_hook(look) for module in model.method.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _at(features: Tensor, like: Tensor) -> Tensor:
    return features if features.shape[2:] == like.shape[2:] else resize(features.float(), like.shape[2:])


def _total(values: Tensor) -> Tensor:
    return values.transpose(0, 1).flatten(1).sum(1).double().cpu()


def _same(values: Tensor) -> Tensor:
    return values


def _flip(axis: int) -> Change:
    return lambda values: values.flip(2 + axis)


def _times(factor: float) -> Change:
    return lambda values: values * factor  # normalised: the mean is 0
