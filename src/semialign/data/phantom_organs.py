"""The phantom's anatomy: the organs of one random patient as implicit shapes with their CT numbers.

Body coordinates are mm in RAS+ about the middle of the body at the first lumbar vertebra: +x the patient's right,
+y the front, +z the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from semialign.data.importers.synapse import ORGANS
from semialign.data.phantom_shapes import Blob, Limb, Part, tube

# A subset takes these first, so that large, middle and small organs come early.
_FIRST = ("liver", "spleen", "gallbladder", "right kidney", "left kidney", "stomach", "aorta", "pancreas")
_ORDER = (*_FIRST, *(organ for organ in ORGANS if organ not in _FIRST))
# Typical CT numbers (HU) without contrast, in the late arterial, the portal venous and the delayed phase.
_ENHANCEMENT = {
    "spleen": (46, 112, 116, 92),
    "kidney": (33, 138, 158, 146),
    "medulla": (31, 62, 128, 152),
    "wall": (38, 78, 88, 68),
    "liver": (57, 72, 106, 90),
    "aorta": (40, 265, 150, 108),
    "veins": (39, 92, 146, 112),
    "cava": (38, 78, 128, 112),
    "pancreas": (40, 100, 92, 72),
    "adrenal": (32, 80, 74, 58),
    "muscle": (54, 58, 63, 62),
}
_SPREAD = {"liver": 11.0, "spleen": 7.0, "kidney": 10.0, "medulla": 10.0, "aorta": 15.0, "veins": 9.0, "cava": 12.0}


@dataclass(frozen=True)
class Tissue:
    """What fills a structure: ``core`` HU, in a ``wall`` of a ``thickness`` (mm); gas in front of ``gas`` (y)."""

    core: float
    wall: float | None = None
    thickness: float = 0.0
    gas: float | None = None
    texture: float = 5.0


@dataclass(frozen=True)
class Structure:
    """A structure and how it meets others: where two overlap, a point belongs to the one it lies deeper in.

    ``priority`` (mm) is added to the depth; ``lobes``: mm of surface relief; ``within``: only inside this label;
    ``anywhere``: may leave the abdominal cavity. ``label`` 0: a structure nobody labelled.
    """

    parts: tuple[Part, ...]
    tissue: Tissue
    label: int = 0
    holes: tuple[Part, ...] = ()
    blend: float = 0.0
    lobes: float = 0.5
    priority: float = 0.0
    within: int | None = None
    anywhere: bool = False


@dataclass(frozen=True)
class Move:
    """A similarity by which the parts of an organ move together."""

    centre: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    scale: float

    def path(self, points: Any) -> np.ndarray:
        """Return moved points (n, 3)."""
        return (np.asarray(points, float) - self.centre) @ self.rotation.T * self.scale + self.centre + self.shift

    def blob(self, centre: Any, axes: Sequence[float], turn: Sequence[float] = (0, 0, 0)) -> Blob:
        """Return a moved ellipsoid; ``turn``: degrees about x, y and z."""
        own = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
        return Blob(self.path([centre])[0], np.asarray(axes, float) * self.scale, self.rotation @ own)

    def tube(self, path: Any, radii: Any) -> tuple[Limb, ...]:
        """Return a moved tube through ``path`` (n, 3) with ``radii`` (n,)."""
        return tube(self.path(path), np.asarray(radii) * self.scale)


def organ_names(organs: int) -> tuple[str, ...]:
    """Return ``organs`` names of large, middle and small organs, in Synapse's order."""
    return tuple(organ for organ in ORGANS if organ in _ORDER[:organs])


def draw_move(
    rng: np.random.Generator, centre: Sequence[float], *, shift: float = 5.0, turn: float = 9.0, scale: float = 0.1
) -> Move:
    """Draw a :class:`Move`: standard deviations in mm, degrees and of the logarithm of the size."""
    # Cut at two deviations: no organ may leave the field of view.
    cut = [np.clip(rng.standard_normal(n), -2, 2) for n in (3, 3, 1)]
    rotation = Rotation.from_euler("xyz", turn * cut[1], degrees=True).as_matrix()
    return Move(np.asarray(centre, float), rotation, shift * cut[0], float(np.exp(scale * cut[2][0])))


def draw_contrast(rng: np.random.Generator) -> Callable[[str], float]:
    """Draw the contrast phase of a scan; the function returned gives the mean HU of a tissue in it."""
    phase = rng.choice([rng.uniform(0, 0.2), rng.uniform(0.9, 1.7), rng.uniform(1.7, 2.3), rng.uniform(2.3, 3)],
                       p=[0.12, 0.26, 0.42, 0.20])  # fmt: skip
    strength = float(np.exp(0.12 * rng.standard_normal()))
    spread = {name: _SPREAD.get(name, 5.0) * float(np.clip(rng.standard_normal(), -2, 2)) for name in _ENHANCEMENT}

    def value(name: str) -> float:
        plain = _ENHANCEMENT[name][0]
        return plain + strength * (float(np.interp(phase, range(4), _ENHANCEMENT[name])) - plain) + spread[name]

    return value


def draw_organs(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    """Return the labelled organs of one patient and what lies inside them; ``hu`` as :func:`draw_contrast` gives it."""
    return [*_liver(rng, hu), *_spleen_and_stomach(rng, hu), *_kidneys(rng, hu), *_vessels_and_pancreas(rng, hu)]


def _label(organ: str) -> int:
    return ORGANS.index(organ) + 1


def _liver(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    move = draw_move(rng, (40, 6, 34), shift=4, turn=6, scale=0.055)
    left = rng.uniform(0.75, 1.35)  # the left lobe differs most between people
    parts = (
        move.blob((63, -2, 26), (47 * rng.uniform(0.9, 1.1), 54, 51 * rng.uniform(0.85, 1.1)), (0, 12, 0)),
        move.blob((12 - 16 * left, 34, 46), (42 * left, 27, 26 * rng.uniform(0.8, 1.2)), (0, -8, -12)),
        move.blob((70, -4, -18), (24, 36, 34 * rng.uniform(0.7, 1.3))),
    )
    label, vein = _label("liver"), Tissue(hu("veins"), texture=3)
    branches = [
        ((34, 10, 30), (52, 4, 34), (74, 8, 30), (92, 0, 20)),
        ((18, -8, 74), (36, 4, 62), (60, 18, 50), (80, 26, 40)),
        ((14, -6, 74), (10, 18, 58), (-8, 36, 50)),
    ]
    found = [
        Structure(parts, Tissue(hu("liver"), texture=7), label, blend=14, lobes=1.5),
        *(Structure(move.tube(b, np.linspace(4.5, 1.5, len(b))), vein, label, within=label) for b in branches),
    ]
    for _ in range(rng.poisson(1.0)):  # cysts, metastases and haemangiomas count as liver
        size = rng.uniform(4, 16)
        at = parts[rng.integers(2)].centre + rng.uniform(-0.5, 0.5, 3) * (44, 46, 40)
        lesion = Tissue(rng.choice([8.0, hu("liver") - 40, hu("liver") + 35]), texture=4)
        found.append(Structure((Blob(at, size * rng.uniform(0.7, 1.3, 3), np.eye(3)),), lesion, label, within=label))
    full = rng.uniform(0.7, 1.25)
    own = draw_move(rng, (42, 34, 0), shift=4, turn=14, scale=0.08)
    bladder = own.tube(move.path([(46, 44, -14), (44, 40, -4), (38, 32, 8), (34, 24, 18)]),
                       [9.5 * full, 11 * full, 7.5 * full, 3.5])  # fmt: skip
    stone = Tissue(rng.choice([rng.uniform(4, 22), rng.uniform(20, 60)], p=[0.8, 0.2]), hu("wall"), 1.2, texture=3)
    found.append(Structure(bladder, stone, _label("gallbladder"), lobes=0.4, priority=16))
    return found


def _spleen_and_stomach(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    move = draw_move(rng, (-82, -22, 36), shift=5, turn=13, scale=0.13)
    spleen = (
        move.blob((-86, -18, 38), (21, 34, 39 * rng.uniform(0.85, 1.2)), (12, 14, 0)),
        move.blob((-78, -42, 36), (20, 20, 26), (0, 0, 30)),
    )
    hollow = move.blob((-56, -6, 32), (20, 22, 34), (12, 10, 0))
    wide = rng.uniform(0.7, 1.2)
    move = draw_move(rng, (-40, 20, 24), shift=6, turn=7, scale=0.08)
    path = [(-46, -8, 64), (-56, 8, 48), (-56, 28, 26), (-40, 46, 4), (-12, 52, -8), (14, 42, -4), (28, 34, 0)]
    stomach = move.tube(path, [w * wide for w in (23, 27, 23, 18, 15)] + [11, 8])
    content = rng.choice([rng.uniform(5, 45), rng.uniform(110, 260), rng.uniform(45, 80)], p=[0.5, 0.2, 0.3])
    gas = rng.uniform(18, 60) if rng.random() < 0.7 else None
    gullet = draw_move(rng, (-10, -14, 75), shift=3, turn=3, scale=0.08).tube(
        [(-2, -14, 130), (-3, -14, 100), (-5, -14, 84), (-12, -13, 70), (-26, -10, 62)], [7.5, 7.5, 7.5, 7.2, 6.5]
    )
    lumen = rng.choice([hu("wall") - 20, -400.0], p=[0.75, 0.25])
    return [
        Structure(spleen, Tissue(hu("spleen"), texture=5), _label("spleen"), (hollow,), blend=10, lobes=1.2),
        Structure(stomach, Tissue(content, hu("wall"), rng.uniform(3, 6), gas, 9), _label("stomach"), lobes=2),
        Structure(gullet, Tissue(lumen, hu("wall"), 4.5), _label("oesophagus"), lobes=0.7, priority=30, anywhere=True),
    ]


def _kidneys(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    found = []
    # The liver pushes the right kidney down.
    for side, name, height in ((1, "right", -24), (-1, "left", -8)):
        move = draw_move(rng, (53 * side, -36, height), shift=5, turn=10, scale=0.09)
        label = _label(f"{name} kidney")
        body = move.blob((53 * side, -36, height), (22, 19.5, 42), (8, -14 * side, -25 * side))
        sinus = move.blob((35 * side, -28, height), (12, 9, 15), (0, 0, -25 * side))
        tissue = Tissue(hu("medulla"), hu("kidney"), 6.5, texture=9)
        found.append(Structure((body,), tissue, label, (sinus,), lobes=1.4, priority=22))
        if rng.random() < 0.3:
            cyst = move.path([np.array((53 * side, -36, height)) + rng.uniform(-1, 1, 3) * (14, 10, 28)])[0]
            size = rng.uniform(4, 11) * np.ones(3)
            found.append(Structure((Blob(cyst, size, np.eye(3)),), Tissue(9, texture=3), label, within=label))
        top = move.path([(46 * side, -36, height + 40)])[0]
        gland = draw_move(rng, top, shift=2.5, turn=12, scale=0.09)
        base = (26 * side, -31, 27 if side > 0 else 28) + 0.4 * (top - (46 * side, -36, height + 40))
        plates = (
            gland.blob(base + np.array((2 * side, -5, 0)), (2.6, 9, 12), (0, 0, 12 * side)),
            gland.blob(base + np.array((7 * side, -5, -1)), (2.5, 9, 11), (0, 0, 48 * side)),
            gland.blob(base + np.array((0, 3, 1)), (3.4, 5, 11), (0, 0, 20 * side)),
        )
        gland_tissue = Tissue(hu("adrenal"), texture=3)
        found.append(Structure(plates, gland_tissue, _label(f"{name} adrenal gland"), blend=2, lobes=0.3, priority=38))
    return found


def _vessels_and_pancreas(rng: np.random.Generator, hu: Callable[[str], float]) -> list[Structure]:
    def own(centre: tuple[float, float, float], shift: float = 3) -> Move:
        return draw_move(rng, centre, shift=shift, turn=3, scale=0.1)

    aorta = own((-9, -26, 0)).tube([(-10, -24, 140), (-10, -26, 70), (-9, -26, 0), (-7, -25, -70), (-4, -25, -140)],
                                   [9, 9, 8, 7.5, 7])  # fmt: skip
    cava = own((17, -24, 0)).tube([(18, -2, 125), (20, -8, 96), (20, -18, 66), (18, -25, 10), (16, -25, -60),
                                   (14, -26, -140)], [9.5, 9.5, 9, 8.5, 8, 7.5])  # fmt: skip
    move = draw_move(rng, (-10, 6, 8), shift=5, turn=8, scale=0.06)
    vein = move.tube([(-64, -14, 34), (-42, -8, 20), (-16, 4, 10), (9, 9, 5), (24, 10, 18), (38, 9, 32)],
                     [3.6, 4.2, 4.6, 6, 6, 5])  # fmt: skip
    plump = rng.uniform(0.8, 1.2)
    pancreas = move.tube([(30, 8, -24), (25, 14, -10), (8, 20, 2), (-16, 14, 10), (-38, 2, 17), (-60, -8, 30)],
                         [r * plump for r in (11.5, 11.5, 7.5, 9, 9, 7.5)])  # fmt: skip
    labels = (_label(n) for n in ("aorta", "inferior vena cava", "portal and splenic vein", "pancreas"))
    a, c, v, p = labels
    return [
        Structure(aorta, Tissue(hu("aorta"), texture=3), a, lobes=0.4, priority=30, anywhere=True),
        Structure(cava, Tissue(hu("cava"), texture=7), c, lobes=0.8, priority=28, anywhere=True),
        Structure(vein, Tissue(hu("veins"), texture=4), v, lobes=0.4, priority=24),
        Structure(pancreas, Tissue(hu("pancreas"), texture=11), p, lobes=2.2, priority=10),
    ]
