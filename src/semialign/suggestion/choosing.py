"""The choice itself, on figures alone: unsure cases far from what is labelled or chosen, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 0.1
"""Cases nearer than this share of the usual distance between two cases are one case seen twice."""


@dataclass(frozen=True)
class Choice:
    """A chosen case. ``nearest`` was the most alike labelled or earlier chosen case, at ``distance``; None for none.

    ``score``: the unsureness times the distance.
    """

    case: str
    score: float
    distance: float | None
    nearest: str | None


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
    """Choose up to ``count`` of the cases in ``unsure``, each the largest product of unsureness and distance.

    The distance (Euclidean, of ``place``) is that to the nearest case of ``labelled`` or chosen before. What is no
    farther than ``alike`` is never chosen, so that fewer than ``count`` may be found.
    """
    names = sorted(unsure)
    if not names:
        return []
    weight = np.array([unsure[name] for name in names])
    points = np.stack([place[name] for name in names])
    distance, nearest = np.full(len(names), np.inf), np.full(len(names), None, object)

    def seen(other: str) -> None:
        apart = np.linalg.norm(points - place[other], axis=1)
        nearest[apart < distance] = other
        np.minimum(distance, apart, out=distance)

    for case in labelled:
        seen(case)
    chosen: list[Choice] = []
    while len(chosen) < count:
        score = np.where(distance > alike, weight * np.where(np.isinf(distance), 1.0, distance), -1.0)
        best = int(score.argmax())
        if score[best] < 0:
            break
        far = None if np.isinf(distance[best]) else float(distance[best])
        chosen.append(Choice(names[best], float(score[best]), far, nearest[best]))
        seen(names[best])
    return chosen
