"""The choice itself, on figures alone: cases that stand for many unsure ones that nothing labelled stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 0.1
"""Cases nearer than this share of the usual distance between two cases are one case seen twice."""


@dataclass(frozen=True)
class Choice:
    """A chosen case. ``nearest`` was the most alike labelled or earlier chosen case, at ``distance``; None for none.

    ``gain``: see :func:`choose`. ``stands_for``: the cases, itself among them, that are nearer to it than to any
    labelled or earlier chosen one.
    """

    case: str
    gain: float
    distance: float | None
    nearest: str | None
    stands_for: tuple[str, ...]


def unsureness(*figures: Sequence[float]) -> np.ndarray:
    """Return in (0, 1] where each case stands by the mean of its ranks in all ``figures`` (N,); 1 is the most unsure.

    Ranks, since entropies of a few cases lie far above all others and would decide alone.
    """
    from scipy.stats import rankdata

    ranks = np.mean([rankdata(np.asarray(values, float)) for values in figures], axis=0)
    return np.asarray(rankdata(ranks) / len(ranks))


def places(described: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Return a place (N, D) for each of N cases, from blocks of features (D_b,) each.

    Every block is centred over the cases and weighs the same. The root mean square distance between two cases is one;
    blocks in which no case differs count for nothing.
    """
    kept = []
    for parts in zip(*described, strict=True):
        block = np.stack(parts).astype(float)
        centred = block - block.mean(0)
        size = np.sqrt((centred**2).sum(1).mean())
        if size > 1e-5 * np.sqrt((block**2).sum(1).mean()):  # the rest is rounding
            kept.append(centred / size)
    if not kept:
        return np.zeros((len(described), 1))
    pairs = 2 * len(described) / (len(described) - 1)
    return np.asarray(np.concatenate(kept, 1) / np.sqrt(len(kept) * pairs))


def choose(
    unsure: Mapping[str, float],
    place: Mapping[str, np.ndarray],
    *,
    labelled: Sequence[str],
    count: int,
    alike: float = ALIKE,
) -> list[Choice]:
    """Choose up to ``count`` of the cases in ``unsure``, each the one of largest gain (greedy facility location).

    The gain is how far the mean distance (Euclidean, of ``place``) to the nearest case of ``labelled`` or chosen before
    falls, each case weighted by its unsureness (> 0); with none yet, distances start at the largest between two cases.
    What is no farther than ``alike`` is never chosen, so that fewer than ``count`` may be found. Of equal gains the
    most unsure case counts, then the first name.
    """
    from scipy.spatial.distance import cdist

    names = sorted(unsure)
    if not names:
        return []
    weight = np.array([unsure[name] for name in names], np.float32)
    weight /= weight.sum()
    points = np.stack([place[name] for name in names])
    apart = cdist(points, points).astype(np.float32)  # N x N: the largest array here
    distance, nearest = np.full(len(names), np.inf, np.float32), np.full(len(names), None, object)
    if labelled:
        known = cdist(points, np.stack([place[name] for name in labelled]))
        distance, nearest = known.min(1).astype(np.float32), np.array(labelled, object)[known.argmin(1)]
    chosen: list[Choice] = []
    while len(chosen) < count and (distance > alike).any():
        gap = np.minimum(distance, apart.max()) if np.isinf(distance[0]) else distance
        gain = np.where(distance > alike, weight @ np.maximum(gap[:, None] - apart, 0), -1)
        equal = np.flatnonzero(gain >= gain.max() - 1e-5 * abs(gain.max()))  # but for rounding
        best = int(equal[weight[equal].argmax()])
        closer = apart[best] < distance
        far = None if np.isinf(distance[best]) else float(distance[best])
        stands_for = tuple(names[i] for i in np.flatnonzero(closer))
        chosen.append(Choice(names[best], float(gain[best]), far, nearest[best], stands_for))
        distance, nearest = np.minimum(distance, apart[best]), np.where(closer, names[best], nearest)
    return chosen
