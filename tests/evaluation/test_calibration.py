"""Counts of calibration against a loop over voxels, and errors against what the probabilities were drawn with."""

import numpy as np
import pytest
import torch

from semialign.evaluation.calibration import EDGES, Calibration, count


def drawn(
    shape: tuple[int, ...], classes: int, *, seed: int = 0, sharper: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn by them; ``sharper`` probabilities than those the labels were drawn by."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (classes, *shape))
    true = np.exp(logits) / np.exp(logits).sum(0)
    label = (random.random(shape) > true.cumsum(0)).sum(0).clip(0, classes - 1)
    told = np.exp(sharper * logits) / np.exp(sharper * logits).sum(0)
    return told.astype(np.float32), label


def counted(probabilities: np.ndarray, label: np.ndarray) -> Calibration:
    return count(torch.from_numpy(probabilities), torch.from_numpy(label))


def test_counts_against_a_loop() -> None:
    probabilities, label = drawn((5, 6, 4), 3)
    probabilities[:, 0, 0, 0] = (0.0, 1.0, 0.0)
    probabilities[:, 0, 0, 1] = (0.05, 0.95, 0.0)  # on the edges of bins
    label[1, 1, 1], label[2, 2, 2] = -1, 3
    found = counted(probabilities, label)
    expected = Calibration.nothing(3)
    for place in np.ndindex(label.shape):
        if label[place] not in (0, 1, 2):
            continue
        for value in range(3):
            p = probabilities[(value, *place)]
            inner = sum(p >= np.float32(edge) for edge in EDGES[1:-1])
            expected.voxels[value, inner] += 1
            expected.probability[value, inner] += p
            expected.hits[value, inner] += label[place] == value
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    np.testing.assert_array_equal(found.hits, expected.hits)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)
    assert found.voxels.sum() == 3 * (label.size - 2)


def test_parts_add_up_to_the_whole() -> None:
    probabilities, label = drawn((12, 9), 4)
    whole = counted(probabilities, label)
    parts = Calibration.nothing(4)
    for start in (0, 5, 7):
        stop = {0: 5, 5: 7, 7: 12}[start]
        parts += counted(probabilities[:, start:stop], label[start:stop])
    np.testing.assert_array_equal(parts.voxels, whole.voxels)
    np.testing.assert_array_equal(parts.hits, whole.hits)
    np.testing.assert_allclose(parts.probability, whole.probability, rtol=1e-6)


def test_true_probabilities_have_no_error_and_sharpened_ones_do() -> None:
    for sharper, low, high in ((1.0, 0.0, 0.01), (3.0, 0.05, 0.5)):
        found = counted(*drawn((200_000,), 3, sharper=sharper))
        for value in range(3):
            error = found.error(value)
            assert error is not None
            assert low <= error <= high
    said, true = found.mean(0) or (0, 0)
    assert said > 0
    assert 0 < true < 1


def test_an_error_by_hand() -> None:
    probabilities = np.zeros((2, 100), np.float32)
    probabilities[1, :10], probabilities[1, 10:20] = 0.92, 0.32
    probabilities[0] = 1 - probabilities[1]
    label = np.zeros(100, int)
    label[:5] = label[10:14] = label[99] = 1  # of the sure half are true, of the unsure 4 in 10, of the others 1 in 80
    found = counted(probabilities, label)
    assert found.error(1) == pytest.approx((10 * 0.42 + 10 * 0.08) / 20, abs=1e-6)
    assert found.error(1, everywhere=True) == pytest.approx((4.2 + 0.8 + 1) / 100, abs=1e-6)
    assert found.mean(1) == pytest.approx((0.62, 0.45))
    assert counted(probabilities[:, 30:], label[30:]).error(1) is None
    assert Calibration.nothing(2).error(1, everywhere=True) is None
    described = found.described(["background", "lesion"])
    assert described["classes"]["lesion"]["error"] == found.error(1)
    assert sum(described["classes"]["lesion"]["voxels"]) == 100
