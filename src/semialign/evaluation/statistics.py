"""Statistics behind published figures: spread over seeds, paired intervals over cases, corrected p-values.

Figures of one case are compared with figures of the same case: every function that takes two lists wants them paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semialign.common.errors import UserError

_BLOCK = 4_000_000  # draws held in memory at once
_ALIKE = 1e-12  # two means over seeds of the same figures may differ in their last digits


@dataclass(frozen=True)
class Difference:
    """Mean of ``a - b`` over paired cases with its percentile interval and p-value of "no difference"."""

    mean: float
    low: float
    high: float
    p_value: float
    cases: int
    confidence: float


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over repeated runs, and their number."""

    median: float
    minimum: float
    maximum: float
    runs: int


def paired_bootstrap(
    a: Mapping[str, float] | Sequence[float],
    b: Mapping[str, float] | Sequence[float],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Interval of the mean of ``a - b``, drawing whole cases with replacement; the same seed gives the same interval.

    ``a``, ``b``: per-case figures as ``{case id: value}`` or in one order. Percentile interval and two-sided bootstrap
    p-value (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15). A single case gives an
    interval without width: read ``cases`` beside it. Raises :class:`UserError` where the cases are not the same.
    """
    from semialign.common.seeding import numpy_rng

    first, second = paired(a, b)
    difference = first - second
    means = _resampled_means(difference, resamples, numpy_rng(seed, "paired bootstrap"))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # One more on both sides of the fraction: a p-value of 0 is never warranted by finitely many draws.
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Difference(float(difference.mean()), float(low), float(high), p_value, len(difference), confidence)


def wilcoxon_p_value(a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test on the paired cases that differ; 1 where none does.

    With fewer than six such cases it cannot fall below 0.05, whatever the figures. Errors as
    :func:`paired_bootstrap`.
    """
    from scipy.stats import wilcoxon

    # Left in, cases that are alike would turn the exact test into an approximation that promises too much.
    difference = differing(a, b)
    return float(wilcoxon(difference).pvalue) if len(difference) else 1.0


def differing(a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]) -> np.ndarray:
    """Return ``a - b`` (N,) of the paired cases that are not alike; errors as :func:`paired_bootstrap`."""
    first, second = paired(a, b)
    difference = first - second
    return np.asarray(difference[np.abs(difference) > _ALIKE])


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number, in the order given (Holm, Scand. J. Statist. 1979)."""
    order = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(order):
        largest = max(largest, min(1.0, p_values[name] * (len(order) - rank)))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean (sample standard deviation over the root of the number); ``None`` below two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum over seeds; ``ValueError`` for none."""
    if len(values) == 0:
        raise ValueError("a spread needs at least one run")
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values))


def mean_over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return every case's mean over runs of the same cases, for an interval over cases that is not one over seeds.

    Raises :class:`UserError` where the runs do not hold the same cases.
    """
    for run in runs:
        paired(runs[0], run)
    return {case: float(np.mean([run[case] for run in runs])) for case in (runs[0] if runs else ())}


def gap_closed(method: float, floor: float, ceiling: float) -> float | None:
    """Share of the gap between ``floor`` (labelled cases alone) and ``ceiling`` (all labelled) that a method closes.

    Below 0 where it is worse than the floor, above 1 where it beats the ceiling; ``None`` where there is no gap.
    """
    return (method - floor) / (ceiling - floor) if ceiling > floor else None


def paired(
    a: Mapping[str, float] | Sequence[float], b: Mapping[str, float] | Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays (N,) whose entries belong to the same cases; :class:`UserError` where cases differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        alone = sorted(set(a) ^ set(b))
        if alone:
            some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            raise UserError(f"cannot compare: only one evaluation holds {some}; evaluate both on the same cases")
        names = sorted(a)
        a, b = [a[name] for name in names], [b[name] for name in names]
    elif isinstance(a, Mapping) or isinstance(b, Mapping):
        raise TypeError("give both figures by case id, or both in one order")
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.size == 0:
        raise UserError(f"cannot compare {first.size} with {second.size} cases; evaluate both on the same cases")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("figures to compare must be finite; count infinite distances instead")
    return first, second


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    rows = max(1, _BLOCK // len(values))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1) for n in sizes])
