"""Near-copies: planted ones are found, strangers that share a frame or a shape are not."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from semialign.data.dataset import load_dataset, read_case
from semialign.data.grid import Grid, Image
from semialign.data.importers import near_copies as module
from semialign.data.importers.near_copies import near_copies, thumbnail

STRANGERS = 40


def picture(array: np.ndarray) -> Image:
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return Image(array, Grid(array.shape[1:], np.eye(4), picture=True), ".png")


@functools.cache
def texture(seed: int, size: tuple[int, ...] = (150, 200)) -> np.ndarray:
    """Smooth shapes and fine grain, 0 to 255, other for every seed."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.normal(size=size), s) for s in (20, 6, 2)]
    mixed = sum(layer / layer.std() for layer in layers)
    return (255 * (mixed - mixed.min()) / np.ptp(mixed)).astype(np.uint8)


def find(images: list[Image], **options: float) -> list[tuple[str, ...]]:
    ids = [f"c{n:02d}" for n in range(len(images))]
    return near_copies(ids, np.stack([thumbnail(image) for image in images]), **options)


def raw_correlation(a: Image, b: Image) -> float:
    return float(np.corrcoef(thumbnail(a).ravel(), thumbnail(b).ravel())[0, 1])


def planted(original: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(99)
    noisy = np.clip(original + rng.normal(0, 20, original.shape), 0, 255).astype(np.uint8)
    smaller = np.asarray(Pillow.fromarray(original).resize((97, 73), Pillow.Resampling.BICUBIC))
    duller = (original * 0.5 + 60).astype(np.uint8)
    shifted = original[2:, 3:]
    return {"noise": noisy, "scale": smaller, "contrast": duller, "shift": shifted}


@pytest.mark.parametrize("change", ["noise", "scale", "contrast", "shift"])
def test_planted_copy_is_found_and_nothing_else(change: str) -> None:
    images = [picture(texture(seed)) for seed in range(STRANGERS)]
    assert find(images) == []
    copy = picture(planted(texture(7))[change])
    assert find([*images, copy]) == [("c07", f"c{STRANGERS}")]


def test_copies_of_colour_pictures() -> None:
    colours = [np.stack([texture(3 * n + c) for c in range(3)], axis=-1) for n in range(10)]
    noisy = np.clip(colours[2] + np.random.default_rng(0).normal(0, 10, colours[2].shape), 0, 255).astype(np.uint8)
    assert find([picture(c) for c in [*colours, noisy]]) == [("c02", "c10")]


def test_strangers_in_one_frame_are_not_reported() -> None:
    rows, columns = np.ogrid[:150, :200]
    inside = (rows - 75) ** 2 / 65**2 + (columns - 100) ** 2 / 90**2 < 1
    frames = [np.where(inside, 110 + 0.5 * texture(seed), 8).astype(np.uint8) for seed in range(STRANGERS)]
    images = [picture(frame) for frame in frames]
    alike = [raw_correlation(images[0], other) for other in images[1:]]
    assert min(alike) > 0.9  # correlation alone would report them all
    assert find(images) == []
    noisy = np.clip(frames[3] + np.random.default_rng(0).normal(0, 3, (150, 200)), 0, 255).astype(np.uint8)
    assert find([*images, picture(noisy)]) == [("c03", f"c{STRANGERS}")]


def test_copies_of_smooth_pictures_are_found() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:256, :256]
    places = [(rng.integers(70, 180), rng.integers(70, 180)) for _ in range(8)]
    discs = [80 + 100.0 * ((rows - r) ** 2 + (columns - c) ** 2 < 40**2) for r, c in places]
    images = [picture((disc + rng.normal(0, 5, disc.shape)).astype(np.uint8)) for disc in [*discs, discs[5]]]
    assert find(images) == [("c05", "c08")]


def test_threshold_and_chains() -> None:
    images = [picture(texture(seed)) for seed in range(6)]
    weaker = picture(np.clip(texture(0) + np.random.default_rng(0).normal(0, 110, (150, 200)), 0, 255).astype(np.uint8))
    similarity = raw_correlation(images[0], weaker)
    assert 0.5 < similarity < 0.98
    assert find([*images, weaker], threshold=similarity - 0.02) == [("c00", "c06")]
    assert find([*images, weaker], threshold=similarity + 0.005) == []
    assert find([images[0]] * 3, threshold=1.0) == []
    assert find([images[1], images[0], images[1], images[0], images[1]]) == [("c00", "c02", "c04"), ("c01", "c03")]


def test_blank_pictures_and_single_cases() -> None:
    blank = picture(np.full((30, 30), 7, np.uint8))
    assert find([blank, blank, blank]) == []
    assert find([picture(texture(0))]) == []


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(texture(seed)) for seed in range(11)]
    images += [picture(planted(texture(seed))["noise"]) for seed in (0, 5, 10)]
    whole = find(images)
    assert len(whole) == 3
    monkeypatch.setattr(module, "_BLOCK", 4)
    assert find(images) == whole


def test_detail_is_compared_at_every_shift_up_to_three_pixels() -> None:
    """The Fourier product against plain sums over shifted arrays."""
    stack = np.stack([thumbnail(picture(texture(seed))) for seed in (1, 2)])
    stack = np.concatenate([stack, np.roll(stack[:1], (2, -3), (1, 2)), np.roll(stack[:1], (0, 7), (1, 2))])
    detail = module._detail(stack)

    def best(a: np.ndarray, b: np.ndarray) -> float:
        shifts = [(i, j) for i in range(-3, 4) for j in range(-3, 4)]
        padded = np.pad(b, 3)
        return max(float((a * padded[3 + i : 67 + i, 3 + j : 67 + j]).sum()) for i, j in shifts)

    first, second = np.array([0, 0, 0, 1]), np.array([1, 2, 3, 2])
    plain = np.array([best(detail[a], detail[b]) for a, b in zip(first, second, strict=True)])
    assert list(plain > module.DETAIL) == [False, True, False, False]
    np.testing.assert_array_equal(module._detail_agrees(stack, first, second), plain > module.DETAIL)
    np.testing.assert_allclose((detail**2).sum((1, 2)), 1, rtol=1e-4)


def volume(array: np.ndarray, affine: np.ndarray) -> Image:
    return Image(array[None], Grid(array.shape, affine), ".nii.gz")


def test_volumes_are_compared_by_their_middle_axial_slice() -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    scans = [texture(seed, (60, 70, 12)).astype(np.int16) for seed in range(8)]
    noisy = (scans[4] + np.random.default_rng(0).normal(0, 10, scans[4].shape)).astype(np.float32) * 3 - 1000
    # The same scan stored slice first and mirrored: k, -i, j of the original.
    turned = np.moveaxis(scans[6], 2, 0)[:, ::-1]
    other = np.zeros((4, 4))
    other[:, 0], other[:, 1], other[:, 2] = affine[:, 2], -affine[:, 0], affine[:, 1]
    other[:, 3] = affine @ [59, 0, 0, 1]
    images = [volume(scan, affine) for scan in scans] + [volume(noisy, affine), volume(turned, other)]
    assert find(images) == [("c04", "c08"), ("c06", "c09")]


def real_groups(root: Path) -> list[tuple[str, ...]]:
    dataset = load_dataset(root)
    images = (read_case(case, len(dataset.channel_names)) for case in dataset.cases.values())
    return near_copies(list(dataset.cases), np.stack([thumbnail(image) for image in images]))


def test_real_two_phases_of_a_heart_are_copies_and_two_hearts_are_not(real_data: Callable[..., Path]) -> None:
    root = real_data("acdc")
    patients: dict[str, list[str]] = {}
    for case in load_dataset(root).cases:
        patients.setdefault(case.split("_")[0], []).append(case)
    assert sorted(real_groups(root)) == sorted(tuple(sorted(phases)) for phases in patients.values())


def test_real_frames_of_two_videos_are_not_copies(real_data: Callable[..., Path]) -> None:
    groups = real_groups(real_data("clinicdb"))
    assert len(groups) > 20
    for group in groups:  # frames are numbered along the videos, whose longest has 25
        numbers = [int(case.removeprefix("frame")) for case in group]
        assert max(numbers) - min(numbers) <= 25, group


def test_real_hippocampi_are_not_copies(real_data: Callable[..., Path]) -> None:
    assert real_groups(real_data("hippocampus")) == []
