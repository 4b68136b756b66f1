"""The CT phantom's anatomy: which organs, how large, on which side, how bright."""

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from semialign.data.phantom_organs import ORGANS, organ_names
from semialign.data.phantom_volume import scan

SMALL = (48, 48, 24)
# Per cent of the voxels, mean over cases: Synapse's order of magnitude, liver about 2 to 3, adrenals about 0.01.
BANDS = {
    "spleen": (0.25, 0.75),
    "right kidney": (0.18, 0.6),
    "left kidney": (0.18, 0.6),
    "gallbladder": (0.02, 0.1),
    "oesophagus": (0.02, 0.08),
    "liver": (1.8, 3.8),
    "stomach": (0.4, 1.3),
    "aorta": (0.12, 0.35),
    "inferior vena cava": (0.12, 0.35),
    "portal and splenic vein": (0.02, 0.08),
    "pancreas": (0.08, 0.27),
    "right adrenal gland": (0.006, 0.025),
    "left adrenal gland": (0.006, 0.025),
}


@pytest.fixture(scope="module")
def scans():
    return [scan(1, i, (96, 96, 48)) for i in range(4)]


@pytest.fixture(scope="module")
def small():
    return [scan(0, i, SMALL) for i in range(10)]


def share(made) -> np.ndarray:
    return 100 * np.bincount(made.label.ravel(), minlength=len(ORGANS) + 1)[1:] / made.label.size


def world(made, organ: str) -> np.ndarray:
    """Centroid in RAS+ mm, by the affine alone."""
    return apply_affine(made.affine, np.argwhere(made.label == ORGANS.index(organ) + 1)).mean(0)


def test_every_organ_is_in_every_case(scans):
    for made in scans:
        assert set(np.unique(made.label)) == set(range(14))
        assert np.bincount(made.label.ravel()).min() >= 10


def test_organs_have_their_share_of_the_volume(scans):
    mean = np.mean([share(made) for made in scans], axis=0)
    outside = {o: float(m) for o, m in zip(ORGANS, mean, strict=True) if not BANDS[o][0] <= m <= BANDS[o][1]}
    assert not outside


def test_left_and_right_hold_in_world_coordinates(small):
    for made in small:
        at = {organ: world(made, organ) for organ in ("liver", "spleen", "stomach", "aorta", "inferior vena cava")}
        at |= {organ: world(made, organ) for organ in ("right kidney", "left kidney", "oesophagus", "gallbladder")}
        middle = at["aorta"][0]
        assert at["liver"][0] > middle + 15
        assert at["gallbladder"][0] > middle
        assert at["spleen"][0] < middle - 30
        assert at["stomach"][0] < middle
        assert at["right kidney"][0] > at["left kidney"][0] + 50
        assert at["inferior vena cava"][0] > at["aorta"][0]
        assert at["gallbladder"][1] > at["right kidney"][1], "the gallbladder lies in front"
        assert at["oesophagus"][2] > at["left kidney"][2], "the oesophagus lies above"


def test_cases_are_stored_in_several_orientations(small):
    codes = [nibabel.aff2axcodes(made.affine) for made in small]
    assert len(set(codes)) >= 3
    assert codes.count(("R", "A", "S")) < len(codes)


def test_size_is_resolution_of_one_scan(small):
    fine = scan(0, 0, (72, 72, 36))
    coarse = small[0]
    assert np.allclose(share(fine)[5], share(coarse)[5], rtol=0.06)
    assert np.linalg.norm(world(fine, "liver") - world(coarse, "liver")) < 2
    corner = [
        made.affine[:3, :3] @ (np.array(made.image.shape) - 1) / 2 + made.affine[:3, 3] for made in (fine, coarse)
    ]
    assert np.allclose(*corner, atol=1e-6)
    extent = [np.linalg.norm(made.affine[:3, :3], axis=0) * made.image.shape for made in (fine, coarse)]
    assert np.allclose(*extent)


def test_same_arguments_same_bytes():
    one, two = (scan(5, 2, (32, 32, 16)) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.label.tobytes() == two.label.tobytes()
    assert np.array_equal(one.affine, two.affine)
    assert scan(6, 2, (32, 32, 16)).image.tobytes() != one.image.tobytes()


def test_memory_slabs_do_not_change_the_scan(monkeypatch):
    whole = scan(5, 2, (32, 32, 16))
    monkeypatch.setattr("semialign.data.phantom_volume._SLAB", 30_000)
    parts = scan(5, 2, (32, 32, 16))
    assert np.array_equal(whole.label, parts.label)
    assert np.abs(whole.image.astype(int) - parts.image).max() <= 1


def test_intensities_are_hounsfield_units(small):
    for made in small:
        assert made.image.dtype == np.int16
        assert made.image[:2, :2].mean() < -900, "air around the body"
        assert made.image.max() > 250, "bone"
        for organ in ("liver", "spleen", "right kidney", "pancreas"):
            inside = made.image[made.label == ORGANS.index(organ) + 1]
            assert 5 < np.median(inside) < 260


def test_contrast_phase_differs_between_cases(small):
    liver = [np.median(made.image[made.label == 6]) for made in small]
    aorta = [np.median(made.image[made.label == 8]) for made in small]
    assert np.ptp(liver) > 25
    assert np.ptp(aorta) > 80


def test_intensity_alone_does_not_decide(scans):
    """The best threshold per case, chosen with the label at hand, finds no organ well."""
    for made in scans:
        levels = np.arange(-150, 400, 10)
        for organ in ("spleen", "pancreas", "gallbladder"):
            truth = made.label == ORGANS.index(organ) + 1
            inside = np.histogram(made.image[truth], levels)[0]
            around = np.histogram(made.image, levels)[0]
            # Taking every bin where the organ's share is largest first is the best any choice of intensities can do.
            order = np.argsort(-inside / np.maximum(around, 1))
            dice = 2 * np.cumsum(inside[order]) / (np.cumsum(around[order]) + truth.sum())
            assert dice.max() < 0.5


def test_organ_subsets_keep_synapse_order():
    assert organ_names(13) == ORGANS
    assert organ_names(1) == ("liver",)
    assert set(organ_names(5)) == {"liver", "spleen", "right kidney", "left kidney", "gallbladder"}
    for n in range(1, 14):
        names = organ_names(n)
        assert len(names) == n
        assert sorted(names, key=ORGANS.index) == list(names)
