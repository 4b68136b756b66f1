"""The phantom's unlabelled anatomy: body wall, lungs, spine, ribs, muscles, and bowel that looks like organs.

Body coordinates as in :mod:`semialign.data.phantom_organs`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from semialign.data.phantom_organs import Structure, Tissue, draw_move
from semialign.data.phantom_shapes import Blob, Points, tube

_AIR, _LUNG, _FAT, _SKIN, _BONE, _MARROW = -1000.0, -840.0, -102.0, 10.0, 420.0, 170.0
_CAVITY, _CAVITY_CENTRE = (112.0, 76.0), 8.0
_MUSCLE = (123.0, 90.0)


@dataclass(frozen=True)
class Habitus:
    """A patient's build: ``fat`` under the skin (mm), ``muscle`` HU, and the three domes of the diaphragm (x, y, z)."""

    fat: float
    muscle: float
    domes: tuple[tuple[float, float, float], ...]


def draw_habitus(rng: np.random.Generator, hu: Callable[[str], float]) -> Habitus:
    """Draw a build: lean to obese, breathed in or out."""
    breath = rng.uniform(-6, 6)
    sides = rng.uniform(-3, 3, 3)
    domes = ((58.0, 2.0, 80.0), (-58.0, -4.0, 76.0), (-4.0, 18.0, 72.0))
    return Habitus(
        rng.uniform(3, 24),
        hu("muscle"),
        tuple((x, y, z + breath + s) for (x, y, z), s in zip(domes, sides, strict=True)),
    )


def paint_body(points: Points, habitus: Habitus) -> tuple[np.ndarray, np.ndarray]:
    """Return the body without its inner organs, and the room for these.

    The first array (*S) holds HU, the second the signed distance (mm) to the abdominal cavity below the diaphragm.
    """
    x, y, z = points.body
    muscle = _oval(x, y + 1, *_MUSCLE)
    fat = habitus.fat * (1 + 0.25 * np.tanh(y / 40))
    # The back is flat: little fat over the spine.
    cavity = _oval(x, y - _CAVITY_CENTRE, *_CAVITY)
    hu = np.full(x.shape, _AIR, np.float32)
    np.copyto(hu, _SKIN, where=muscle < fat + 2)
    np.copyto(hu, _FAT, where=muscle < fat)
    np.copyto(hu, habitus.muscle, where=muscle < 0)
    # A sheet of fat parts the wall's muscles.
    np.copyto(hu, _FAT + 30, where=(np.abs(cavity - 5) < 0.8) & (y > -40))
    np.copyto(hu, _FAT, where=cavity < 0)
    dome = np.max([h - 44 * (((x - a) / 62) ** 2 + ((y - b) / 62) ** 2) for a, b, h in habitus.domes], axis=0)
    above = (z - dome) * np.float32(0.75)
    middle = (np.abs(x + 4) < 24) & (y > -90)
    np.copyto(hu, _LUNG, where=(cavity < 0) & (above > 3) & ~middle)
    np.copyto(hu, habitus.muscle, where=(cavity < 0) & (np.abs(above - 1.5) < 1.5))
    return hu, np.maximum(cavity, above)


def draw_surroundings(rng: np.random.Generator, hu: Callable[[str], float], habitus: Habitus) -> list[Structure]:
    """Return the unlabelled structures of one patient: bones, muscles, heart, bowel, vessels, nodes."""
    return [*_bones(rng, habitus), *_muscles(hu), *_bowel(rng, hu), *_vessels(rng, hu), *_nodes(rng, hu)]


def _oval(x: np.ndarray, y: np.ndarray, width: float, depth: float) -> np.ndarray:
    # Distance along the ray from the middle: near enough for walls, and cheap on every point of the scan.
    ratio = (np.abs(x / np.float32(width)) ** 2.3 + np.abs(y / np.float32(depth)) ** 2.3) ** np.float32(1 / 2.3)
    radius = np.sqrt(x * x + y * y)
    return np.asarray(radius - radius / np.maximum(ratio, 1e-3), np.float32)


def _bones(rng: np.random.Generator, habitus: Habitus) -> list[Structure]:
    density = rng.uniform(0.75, 1.25)
    bone = Tissue(_MARROW * density, _BONE * density, 2.5, texture=25)
    disc, cord = Tissue(85, texture=4), Tissue(28, texture=3)
    found = []
    level = rng.uniform(0, 34)
    for z in np.arange(-170, 171, 34) + level:
        upright = np.eye(3)
        body = tuple(Blob(np.array((0, -52, z + h)), np.array((21, 16.5, 13)), upright) for h in (-6, 6))
        arch = tube([(-9, -62, z - 4), (-11, -74, z - 4), (0, -85, z - 6), (11, -74, z - 4), (9, -62, z - 4)], [4] * 5)
        spine = tube([(0, -84, z - 6), (0, -98, z - 14)], [4, 3])
        wings = tube([(-38, -74, z), (-10, -70, z - 4), (10, -70, z - 4), (38, -74, z)], [2.5, 4, 4, 2.5])
        found.append(Structure((Blob(np.array((0, -52, z + 17)), np.array((19, 15, 7)), upright),), disc, priority=40))
        found.append(Structure(body, bone, blend=4, priority=42, anywhere=True))
        found.append(Structure((*arch, *spine, *wings), bone, priority=42, anywhere=True))
        for side in (-1, 1):
            turns = np.linspace(0.4, rng.uniform(1.8, 2.4), 7)
            fall = rng.uniform(35, 55)
            rib = [(side * 118 * np.sin(t), -84 * np.cos(t) + 2, z + 10 - fall * (t - 0.4)) for t in turns]
            if z > -20:
                found.append(Structure(tube(rib, [4.2] * 7, pieces=1), bone, priority=42, anywhere=True))
    canal = tube([(0, -74, -160), (0, -74, 160)], [7.5, 7.5], pieces=8)
    return [*found, Structure(canal, cord, priority=60, anywhere=True)]


def _muscles(hu: Callable[[str], float]) -> list[Structure]:
    meat = Tissue(hu("muscle"), texture=8)
    psoas = [tube([(17 * s, -46, 30), (30 * s, -46, -40), (42 * s, -42, -150)], [6, 15, 22]) for s in (-1, 1)]
    crura = [tube([(9 * s, -34, -30), (14 * s, -36, 20), (20 * s, -34, 60)], [3.5, 4.5, 3]) for s in (-1, 1)]
    heart = Blob(np.array((-20.0, 30.0, 122.0)), np.array((46.0, 36.0, 40.0)), np.eye(3))
    return [
        *(Structure(part, meat, lobes=1, priority=6, anywhere=True) for part in (*psoas, *crura)),
        Structure((heart,), Tissue(hu("cava"), hu("muscle") + 30, 7), lobes=1, priority=8, anywhere=True),
    ]


def _content(rng: np.random.Generator) -> tuple[float, float | None]:
    kind = rng.choice(5, p=[0.25, 0.2, 0.2, 0.15, 0.2])
    value = (rng.uniform(5, 35), rng.uniform(40, 110), rng.uniform(120, 280), -700.0, rng.uniform(0, 60))[kind]
    return float(value), float(rng.uniform(20, 60)) if kind == 4 else None


def _bowel(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    def gut(path: Any, radii: list[float], wall: float, lobes: float) -> Structure:
        core, gas = _content(rng)
        return Structure(tube(path, radii), Tissue(core, hu("wall"), wall, gas, 12), lobes=lobes, priority=-2)

    move = draw_move(rng, (20, 10, -30), shift=5, turn=6, scale=0.06)
    duodenum = [(30, 34, 0), (46, 26, -8), (50, 10, -30), (38, 0, -50), (8, 4, -54), (-24, 10, -38)]
    found = [gut(move.path(duodenum), [9, 10, 10, 9.5, 9, 9], 2.5, 1)]
    girth = rng.uniform(0.7, 1.25)
    sag = rng.uniform(-30, 12)  # the transverse colon hangs low in some
    ways: list[list[tuple[float, float, float]]] = [
        [(88, -6, -150), (88, -4, -60), (78, 16, -34), (56, 44, -36)],
        [(56, 44, -36), (20, 66, -34 + sag), (-30, 66, -36 + sag), (-68, 46, -8), (-84, 14, 6)],
        [(-84, 14, 6), (-92, -10, -28), (-92, -14, -90), (-88, -14, -150)],
    ]
    for way in ways:
        wander = rng.normal(0, 4, (len(way), 3)) * [[0], *[[1]] * (len(way) - 2), [0]]
        bent = np.asarray(way) + wander
        found.append(gut(bent, [float(girth * rng.uniform(11, 17)) for _ in bent], 2, 3))
    for _ in range(rng.integers(6, 11)):
        start = rng.uniform((-60, 10, -110), (60, 50, -45))
        steps = rng.normal(0, 1, (4, 3)) * (28, 16, 16)
        path = np.clip(start + np.vstack([np.zeros(3), np.cumsum(steps, 0)]), (-72, -8, -125), (72, 62, -38))
        found.append(gut(path, [float(rng.uniform(7, 12))] * 5, 2.2, 1.2))
    return found


def _vessels(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    artery, vein = Tissue(hu("aorta"), texture=3), Tissue(hu("veins"), texture=3)
    way = draw_move(rng, (0, 0, 0), shift=3, turn=3, scale=0.03)
    arteries = [
        [(-9, -22, 2), (-6, 0, -14), (0, 16, -60), (2, 20, -110)],  # superior mesenteric
        [(-9, -22, 16), (-8, 0, 20), (12, 6, 22), (30, 8, 28)],  # hepatic
        [(-8, 0, 20), (-36, -4, 26), (-64, -16, 38)],  # splenic
        *([(-9, -26, z), (26 * s, -32, z - 6), (40 * s, -32, z - 8)] for s, z in ((1, -14), (-1, -4))),
    ]
    veins = [
        [(9, 9, 5), (12, 16, -20), (12, 24, -110)],
        *([(14, -24, z), (26 * s, -26, z - 4), (40 * s, -30, z - 6)] for s, z in ((1, -18), (-1, -6))),
    ]
    return [
        *(Structure(way.tube(p, [3.0] * len(p)), artery, lobes=0.3, priority=9) for p in arteries),
        *(Structure(way.tube(p, [4.2] * len(p)), vein, lobes=0.3, priority=9) for p in veins),
    ]


def _nodes(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    # Lumps with the spleen's or the adrenals' contrast in the wrong places: intensity alone must not decide.
    found = []
    for _ in range(rng.integers(3, 10)):
        centre = rng.uniform((-80, -40, -100), (80, 62, 50))
        size = rng.uniform(2.5, 8) * rng.uniform(0.7, 1.4, 3)
        kind = str(rng.choice(["spleen", "adrenal", "pancreas", "liver", "kidney"]))
        found.append(Structure((Blob(centre, size, np.eye(3)),), Tissue(hu(kind), texture=5), priority=-3))
    return found
