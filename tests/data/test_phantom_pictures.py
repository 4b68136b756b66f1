"""The lesion pictures: one lesion, random, hard enough."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label
from scipy.stats import spearmanr

from semialign.data.phantom_pictures import picture

SIZE = (64, 64)


@pytest.fixture(scope="module")
def made():
    return [picture(0, i, SIZE) for i in range(40)]


def test_every_picture_has_one_lesion_of_a_middling_size(made):
    shares = []
    for image, mask in made:
        assert image.shape == (*SIZE, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
        assert label(mask)[1] == 1
        shares.append(mask.mean())
    assert 0.08 < np.mean(shares) < 0.25
    assert min(shares) > 0.01
    assert max(shares) < 0.7


@pytest.mark.parametrize("size", [(16, 16), (16, 40), (128, 96)])
def test_any_size_from_sixteen_on(size):
    for index in range(12):
        image, mask = picture(2, index, size)
        assert image.shape == (*size, 3)
        assert 0 < mask.sum() < mask.size


def test_size_is_resolution_of_one_scene():
    for index in range(6):
        fine, coarse = picture(0, index, (128, 128))[1], picture(0, index, (64, 64))[1]
        blocks = fine.reshape(64, 2, 64, 2).mean((1, 3)) > 0.5
        overlap = 2 * (blocks & (coarse > 0)).sum() / (blocks.sum() + coarse.sum())
        assert overlap > 0.93


def test_same_seed_same_bytes():
    one, two = picture(3, 1, SIZE), picture(3, 1, SIZE)
    assert one[0].tobytes() == two[0].tobytes()
    assert one[1].tobytes() == two[1].tobytes()
    assert picture(4, 1, SIZE)[0].tobytes() != one[0].tobytes()


def test_contrast_goes_from_weak_to_strong(made):
    """Distance between the mean colours just inside and just outside of the lesion's edge."""
    steps = []
    for image, mask in made:
        inside = mask.astype(bool)
        rim = ~binary_erosion(~inside, iterations=6) & binary_erosion(~inside, iterations=2)
        steps.append(np.linalg.norm(image[inside].mean(0).astype(float) - image[rim].mean(0)))
    assert np.percentile(steps, 10) < 35
    assert np.percentile(steps, 90) > 80


def test_brightness_alone_does_not_decide(made):
    """Neither dark nor light means lesion in all pictures, and no global threshold separates one."""
    signs = [spearmanr(image.mean(-1).ravel(), mask.ravel()).statistic for image, mask in made]
    assert min(signs) < -0.3
    assert max(signs) > 0.1
