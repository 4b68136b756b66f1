"""Implicit shapes for the phantoms: smooth random fields on a grid of points, blobs, tubes and their unions.

Shapes are signed distances in mm (negative inside), to first order. Lengths and positions are float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.interpolate import BSpline, CubicSpline
from scipy.ndimage import gaussian_filter

Coordinates = Sequence[np.ndarray] | np.ndarray  # three arrays of one shape, or (3, ...)
FAR = np.float32(80.0)


class Part(Protocol):
    """A primitive: the box it fills and its signed distance."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper corner (3,)."""

    def distance(self, points: Coordinates) -> np.ndarray:
        """Return the signed distance at ``points``."""


class SplineField:
    """A random scalar field: cubic B-splines whose coefficients are noise, the same at every sampling.

    ``reach``: half the extent along each axis, about 0; ``knot``: distance between knots; ``smooth``: width, in knots,
    over which the coefficients are smoothed. Values have about unit spread.
    """

    def __init__(self, rng: np.random.Generator, reach: Sequence[float], *, knot: float, smooth: float = 0.0) -> None:
        self._knots = [knot * np.arange(-np.ceil(r / knot) - 4, np.ceil(r / knot) + 5) for r in reach]
        noise = rng.standard_normal([len(k) - 4 for k in self._knots])
        noise = gaussian_filter(noise, smooth, mode="wrap") if smooth else noise
        # A cubic B-spline averages its coefficients: the spread between knots falls to about 0.7 per axis.
        self._coefficients = (noise / noise.std() / 0.7 ** (len(reach) / (1 + smooth))).astype(np.float32)

    def __call__(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the field on the grid that the 1-D ``axes`` span, float32."""
        value = self._coefficients
        # Sparse products do not go through BLAS, whose rounding may depend on the number of threads.
        for axis, knots in zip(reversed(list(axes)), reversed(self._knots), strict=True):
            value = np.ascontiguousarray(np.moveaxis(value, -1, 0))
            basis = BSpline.design_matrix(np.asarray(axis, float), knots, 3).astype(np.float32)
            value = (basis @ value.reshape(len(value), -1)).reshape(len(axis), *value.shape[1:])
        return value


@dataclass(frozen=True)
class Blob:
    """An ellipsoid: ``centre`` (3,), half ``axes`` (3,), ``rotation`` (3, 3) from its own axes to the body's."""

    centre: np.ndarray
    axes: np.ndarray
    rotation: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the box around the ellipsoid."""
        reach = np.sqrt(((self.rotation * self.axes) ** 2).sum(1))
        return self.centre - reach, self.centre + reach

    def distance(self, points: Coordinates) -> np.ndarray:
        """Return the first-order signed distance."""
        x, y, z = (p - np.float32(c) for p, c in zip(points, self.centre, strict=True))
        norm, slope = np.float32(1e-6), np.float32(1e-9)
        for column, axis in zip(self.rotation.T.astype(np.float32), self.axes.astype(np.float32), strict=True):
            local = (column[0] * x + column[1] * y + column[2] * z) / axis
            square = local * local
            norm, slope = norm + square, slope + square / axis**2
        norm = np.sqrt(norm)
        return np.asarray(norm * (norm - np.float32(1)) / np.sqrt(slope), np.float32)


@dataclass(frozen=True)
class Limb:
    """A capsule whose radius changes linearly from ``start`` to ``end`` (3,)."""

    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the box around the capsule."""
        (r, s) = self.radii
        return np.minimum(self.start - r, self.end - s), np.maximum(self.start + r, self.end + s)

    def distance(self, points: Coordinates) -> np.ndarray:
        """Return the signed distance."""
        along = (self.end - self.start).astype(np.float32)
        offsets = [p - np.float32(c) for p, c in zip(points, self.start, strict=True)]
        length = np.float32(max(float(along @ along), 1e-6))
        share = np.clip((offsets[0] * along[0] + offsets[1] * along[1] + offsets[2] * along[2]) / length, 0, 1)
        apart = sum((o - share * a) ** 2 for o, a in zip(offsets, along, strict=True))
        r, s = map(np.float32, self.radii)
        return np.asarray(np.sqrt(apart) - (r + share * (s - r)), np.float32)


def tube(path: Any, radii: Any, *, pieces: int = 3) -> tuple[Limb, ...]:
    """Return a bent tube through ``path`` (n, 3) with ``radii`` (n,), mm: ``pieces`` limbs between two points."""
    at = np.arange(len(path))
    fine = np.linspace(0, len(path) - 1, pieces * (len(path) - 1) + 1)
    points = CubicSpline(at, np.asarray(path, float))(fine)
    widths = np.interp(fine, at, radii)
    return tuple(Limb(points[i], points[i + 1], (float(widths[i]), float(widths[i + 1]))) for i in range(len(fine) - 1))


def union(
    parts: Sequence[Part], points: "Points", *, holes: Sequence[Part] = (), blend: float = 0.0, margin: float = 2.0
) -> tuple[tuple[slice, ...], np.ndarray] | None:
    """Return where ``parts`` without ``holes`` lie: a box of the grid and the signed distance in it.

    ``blend``: mm over which parts melt into one another. ``margin``: mm outside of the parts up to which the distance
    is wanted; beyond it may be too large. ``None`` where the grid misses all parts.
    """
    # Two parts melt where both are nearer than the blend, and first-order distances fall short of the true ones.
    reach = 1.5 * margin + 1.25 * blend
    boxes = [(part, box) for part in parts if (box := points.box(*part.bounds(), reach)) is not None]
    if not boxes:
        return None
    hull = tuple(
        slice(min(b[i].start for _, b in boxes), max(b[i].stop for _, b in boxes)) for i in range(3)
    )  # fmt: skip
    distance = np.full([s.stop - s.start for s in hull], FAR, np.float32)
    for part, box in boxes:
        view = distance[_inside(box, hull)]
        other = part.distance(points.at(box))
        if blend:
            near = np.clip(np.float32(blend) - np.abs(view - other), 0, None)
            other = np.minimum(view, other) - near * near * np.float32(0.25 / blend)
        np.minimum(view, other, out=view)
    for part in holes:
        box = points.box(*part.bounds(), reach)
        overlap = box and tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, hull, strict=True)
        )
        if overlap and all(s.start < s.stop for s in overlap):
            view = distance[_inside(overlap, hull)]
            np.maximum(view, -part.distance(points.at(overlap)), out=view)
    return hull, distance


def _inside(box: tuple[slice, ...], hull: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(b.start - h.start, b.stop - h.start) for b, h in zip(box, hull, strict=True))


@dataclass(frozen=True)
class Points:
    """Grid points in the body's own coordinates: ``body`` (3, *S), for the scan's 1-D ``axes``.

    ``matrix`` and ``shift`` take the body's coordinates to the scan's; ``bend``: the largest displacement (mm) by which
    the warp departs from that.
    """

    axes: tuple[np.ndarray, ...]
    body: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray
    bend: float

    def at(self, box: tuple[slice, ...]) -> np.ndarray:
        """Return the body's coordinates (3, ...) in a box of the grid."""
        return self.body[(slice(None), *box)]

    def box(self, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[slice, ...] | None:
        """Return the box of the grid that surely holds the body's box from ``low`` to ``high``; ``None`` if empty."""
        middle, reach = (low + high) / 2, (high - low) / 2 + margin
        centre, half = self.matrix @ middle + self.shift, np.abs(self.matrix) @ reach + self.bend
        box = tuple(
            slice(int(np.searchsorted(axis, c - h)), int(np.searchsorted(axis, c + h)))
            for axis, c, h in zip(self.axes, centre, half, strict=True)
        )
        return box if all(s.start < s.stop for s in box) else None
