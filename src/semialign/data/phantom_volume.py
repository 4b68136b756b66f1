"""The phantom's CT scanner: one random patient sampled as HU and labels, with partial volume, noise and shade.

The patient is a function of position in mm, so another size is another resolution of the same scan.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from semialign.common.seeding import numpy_rng
from semialign.data.phantom_organs import ORGANS, Structure, draw_contrast, draw_organs
from semialign.data.phantom_shapes import FAR, Points, SplineField, union
from semialign.data.phantom_surroundings import Habitus, draw_habitus, draw_surroundings, paint_body

VIEW = (340.0, 340.0, 216.0)  # mm, before each case's own few per cent
_REACH = (185.0, 185.0, 125.0)
_FINE = 2  # points a voxel and axis
_SLAB = 1_500_000  # points at a time, so that memory stays small at any size
_RELIEF = 2.5  # the most that a surface departs from its shape, in units of its lobes
_STORED = ("RAS", "LPS", "LAS", "RPI")


@dataclass(frozen=True)
class Scan:
    """A scan: ``image`` (X, Y, Z) int16 HU, ``label`` (X, Y, Z) uint8 of 0..13, ``affine`` (4, 4) to RAS+ mm."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class _Patient:
    structures: tuple[Structure, ...]
    habitus: Habitus
    matrix: np.ndarray
    shift: np.ndarray
    warp: tuple[SplineField, SplineField, SplineField]
    relief: SplineField
    grain: SplineField


def scan(seed: int, index: int, size: tuple[int, int, int]) -> Scan:
    """Make case ``index`` of the phantom ``seed`` with ``size`` voxels, stored in the orientation drawn for the case.

    Depends on the arguments alone; patient, contrast, pose and field of view do not depend on ``size``.
    """
    rng = numpy_rng(seed, "phantom", index, "scanner")
    spacing = np.asarray(VIEW) * rng.uniform((0.95, 0.95, 0.95), (1.06, 1.06, 1.06)) / size
    spacing[1] = spacing[0] * size[0] / size[1]
    origin = rng.uniform((-20, -20, -600), (20, 20, 600)).round(1)
    clean, label = _sample(_draw_patient(seed, index), size, spacing)
    image = _expose(clean, rng, numpy_rng(seed, "phantom", index, "noise"), spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin - spacing * (np.asarray(size) - 1) / 2
    stored = _STORED[rng.choice(len(_STORED), p=[0.5, 0.25, 0.125, 0.125])]
    return Scan(*_store(image, label, affine, stored))


def _draw_patient(seed: int, index: int) -> _Patient:
    rng = numpy_rng(seed, "phantom", index, "patient")
    contrast = draw_contrast(rng)
    habitus = draw_habitus(rng, contrast)
    structures = (*draw_surroundings(rng, contrast, habitus), *draw_organs(rng, contrast))
    turn = Rotation.from_euler("xyz", np.clip(rng.normal(0, (3, 3, 6)), -12, 12), degrees=True).as_matrix()
    matrix = turn * rng.uniform((0.93, 0.95, 0.94), (1.13, 1.16, 1.08))
    shift = rng.uniform((-10, -10, -9), (10, 10, 9))
    x, y, z, relief = (SplineField(rng, _REACH, knot=46, smooth=s) for s in (0.6, 0.6, 0.6, 0.0))
    return _Patient(structures, habitus, matrix, shift, (x, y, z), relief, SplineField(rng, _REACH, knot=9))


def _sample(patient: _Patient, size: tuple[int, int, int], spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = [
        ((np.arange(n * _FINE) + 0.5) / _FINE * s - n * s / 2).astype(np.float32)
        for n, s in zip(size, spacing, strict=True)
    ]
    image, label = np.empty(size, np.float32), np.empty(size, np.uint8)
    step = max(1, _SLAB // (size[0] * size[1] * _FINE**3))
    for low in range(0, size[2], step):
        high = min(low + step, size[2])
        hu, owner = _paint(patient, (axes[0], axes[1], axes[2][low * _FINE : high * _FINE]))
        image[..., low:high], label[..., low:high] = _blocks(hu).mean(-1), _majority(_blocks(owner))
    return image, label


def _paint(patient: _Patient, axes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    # Bounded, for a large bend would fold organs over one another.
    moved = [np.tanh(field(axes) * np.float32(5.5 / 13)) * np.float32(13) for field in patient.warp]
    bend = float(max(np.abs(m).max() for m in moved))
    for i, axis in enumerate(axes):
        moved[i] += (axis - np.float32(patient.shift[i])).reshape([-1 if i == j else 1 for j in range(3)])
    back = np.linalg.inv(patient.matrix).astype(np.float32)
    body = np.stack([row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2] for row in back])
    points = Points(axes, body, patient.matrix, patient.shift, bend)
    grain = patient.grain(axes)
    relief = np.clip(np.float32(0.5) * patient.relief(axes) + grain, -_RELIEF, _RELIEF)
    hu, room = paint_body(points, patient.habitus)
    hu += grain * np.float32(5)
    owner, depth = np.zeros(hu.shape, np.uint8), np.full(hu.shape, FAR, np.float32)
    for structure in patient.structures:
        margin = _RELIEF * structure.lobes
        found = union(structure.parts, points, holes=structure.holes, blend=structure.blend, margin=margin)
        if found is None:
            continue
        box, distance = found
        distance += np.float32(structure.lobes) * relief[box]
        if not structure.anywhere:
            np.maximum(distance, room[box], out=distance)
        if structure.within is None:
            score = distance - np.float32(structure.priority)
            won = (distance < 0) & (score < depth[box])
            np.copyto(depth[box], score, where=won)
            np.copyto(owner[box], structure.label, where=won)
        else:
            won = (distance < 0) & (owner[box] == structure.within)
        np.copyto(hu[box], _fill(structure, distance, points.at(box)[1], grain[box]), where=won)
    return hu, owner


def _fill(structure: Structure, distance: np.ndarray, front: np.ndarray, grain: np.ndarray) -> np.ndarray:
    tissue = structure.tissue
    value = np.float32(tissue.core) + np.float32(tissue.texture) * grain
    if tissue.gas is not None:
        value = np.where(front > tissue.gas, np.float32(-850), value)
    if tissue.wall is not None:
        value = np.where(distance > -tissue.thickness, np.float32(tissue.wall) + np.float32(3) * grain, value)
    return value


def _blocks(fine: np.ndarray) -> np.ndarray:
    shape = [m for n in fine.shape for m in (n // _FINE, _FINE)]
    return fine.reshape(shape).transpose(0, 2, 4, 1, 3, 5).reshape(*shape[::2], _FINE**3)


def _majority(owners: np.ndarray) -> np.ndarray:
    flat, classes = owners.reshape(-1, owners.shape[-1]), len(ORGANS) + 1
    keys = np.arange(len(flat))[:, None] * classes + flat
    counts = np.bincount(keys.ravel(), minlength=len(flat) * classes).reshape(len(flat), classes)
    # On a draw the later, smaller organ wins: the adrenals are hardly thicker than a voxel.
    return (classes - 1 - counts[:, ::-1].argmax(1)).reshape(owners.shape[:-1]).astype(np.uint8)


def _expose(clean: np.ndarray, rng: np.random.Generator, noise: np.random.Generator, spacing: np.ndarray) -> np.ndarray:
    size = clean.shape
    axes = [(np.arange(n) + 0.5) * s - n * s / 2 for n, s in zip(size, spacing, strict=True)]
    kernel = rng.uniform(0.25, 0.5)
    image = gaussian_filter(clean, (kernel, kernel, 0.2), mode="nearest")
    shade = SplineField(rng, _REACH, knot=120)(axes) * np.float32(rng.uniform(2, 7))
    # Beam hardening leaves the middle of the body too dark.
    off = (axes[0][:, None, None] / 140) ** 2 + (axes[1][None, :, None] / 110) ** 2
    shade -= (rng.uniform(0, 12) * np.exp(-off)).astype(np.float32)
    image += shade * (image > -900)
    strength, width = rng.uniform(8, 20), rng.uniform(0.5, 0.9)
    speckle = gaussian_filter(noise.standard_normal(size, np.float32), (width, width, 0.3))
    streaks = gaussian_filter(noise.standard_normal(size, np.float32), (8, 0.5, 0.2))
    louder = (0.6 + 0.7 * np.exp(-off)).astype(np.float32)
    image += louder * np.float32(strength) * (speckle / speckle.std() + np.float32(0.3) * streaks / streaks.std())
    return np.rint(np.clip(image, -1024, 1600)).astype(np.int16)


def _store(
    image: np.ndarray, label: np.ndarray, affine: np.ndarray, stored: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(stored))
    affine = affine @ inv_ornt_aff(change, image.shape)
    image, label = (np.ascontiguousarray(apply_orientation(a, change)) for a in (image, label))
    return image, label, affine
