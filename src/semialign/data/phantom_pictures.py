"""The 2D phantom: colour photographs of one lesion each, like dermoscopy or endoscopy, with look-alikes beside it.

Positions are in shares of the picture's shorter side, about its middle, (row, column); another size is another
resolution of the same scene. Colours are RGB in 0..1 until the end.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import binary_fill_holes, gaussian_filter, label

from semialign.common.seeding import numpy_rng
from semialign.data.phantom_shapes import SplineField

_DRAWN = 4  # hairs and vessels are drawn this much finer than the picture


@dataclass(frozen=True)
class _Canvas:
    size: tuple[int, int]
    axes: tuple[np.ndarray, np.ndarray]

    @property
    def reach(self) -> tuple[float, float]:
        return max(self.size) / min(self.size) / 2 + 0.05, max(self.size) / min(self.size) / 2 + 0.05

    def field(self, rng: np.random.Generator, knot: float, smooth: float = 0.0) -> np.ndarray:
        return SplineField(rng, self.reach, knot=knot, smooth=smooth)(self.axes)


def picture(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Make case ``index`` of the picture phantom ``seed``: RGB (H, W, 3) uint8 and label (H, W) uint8 of 0 and 1.

    Depends on the arguments alone; ``size``: height and width.
    """
    rng = numpy_rng(seed, "phantom-2d", index)
    rows, columns = ((np.arange(n) + 0.5 - n / 2) / min(size) for n in size)
    canvas = _Canvas(size, (rows.astype(np.float32), columns.astype(np.float32)))
    skin = rng.random() < 0.5
    low, high = ((0.68, 0.46, 0.36), (0.95, 0.76, 0.68)) if skin else ((0.58, 0.24, 0.17), (0.88, 0.48, 0.40))
    base = rng.uniform(low, high)
    image = base + _texture(canvas, rng, skin)
    tint = _tint(rng, skin)
    for _ in range(rng.integers(1, 6)):
        image = _look_alike(image, canvas, rng, tint)
    if not skin:
        image = _folds(image, canvas, rng)
    image = _vessels(image, canvas, rng, base)
    image, distance = _lesion(image, canvas, rng, tint, skin)
    if skin and rng.random() < 0.6:
        image = _hairs(image, canvas, rng)
    if not skin or rng.random() < 0.3:
        image = _bubbles(image, canvas, rng)
    image = _shine(image, canvas, rng, distance, 0.9 if not skin else 0.35)
    return _expose(image, canvas, rng, numpy_rng(seed, "phantom-2d", index, "noise")), (distance < 0).astype(np.uint8)


def _tint(rng: np.random.Generator, skin: bool) -> np.ndarray:
    # Brown, red, blue-grey on skin; red, pale, dark on mucosa: from hardly visible to plain.
    ways = ((-0.55, -0.7, -0.6), (-0.1, -0.6, -0.45), (-0.6, -0.5, -0.25)) if skin else (
        (0.12, -0.5, -0.4), (0.3, 0.6, 0.5), (-0.6, -0.45, -0.3))  # fmt: skip
    tint = np.asarray(ways[rng.integers(3)]) + rng.normal(0, 0.08, 3)
    return np.asarray(tint * rng.uniform(0.16, 0.62))


def _texture(canvas: _Canvas, rng: np.random.Generator, skin: bool) -> np.ndarray:
    image = np.zeros((*canvas.size, 3))
    for knot, strength in ((0.35, 0.05), (0.12, 0.03), (0.035, 0.025 if skin else 0.015)):
        way = np.array((0.7, 1.0, 0.9)) + rng.normal(0, 0.25, 3)
        image += strength * rng.uniform(0.6, 1.4) * canvas.field(rng, knot)[..., None] * way
    return image


def _outline(
    canvas: _Canvas, rng: np.random.Generator, radius: float, *, ragged: float, edge: float = 0.3
) -> np.ndarray:
    reach = np.asarray(canvas.size) / min(canvas.size) * edge
    centre, turn, long = rng.uniform(-reach, reach), rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.45))
    y, x = canvas.axes[0][:, None] - centre[0], canvas.axes[1][None, :] - centre[1]
    u, v = (x * np.cos(turn) + y * np.sin(turn)) / long, (y * np.cos(turn) - x * np.sin(turn)) * long
    ripple = canvas.field(rng, 0.16) + 0.45 * canvas.field(rng, 0.06)
    return np.asarray(np.hypot(u, v) - radius + ragged * radius * ripple)


def _look_alike(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator, tint: np.ndarray) -> np.ndarray:
    """Add a blotch of about the lesion's colour, but smooth inside and out of focus: nobody labels it."""
    distance = _outline(canvas, rng, rng.uniform(0.03, 0.13), ragged=0.15, edge=0.48)
    cover = _soft(distance, rng.uniform(0.02, 0.06))[..., None]
    return image + cover * tint * rng.uniform(0.5, 1.15)


def _lesion(
    image: np.ndarray, canvas: _Canvas, rng: np.random.Generator, tint: np.ndarray, skin: bool
) -> tuple[np.ndarray, np.ndarray]:
    radius = float(np.exp(rng.uniform(np.log(0.11), np.log(0.34))))
    distance = _outline(canvas, rng, radius, ragged=rng.uniform(0.1, 0.28), edge=0.26)
    distance = _in_one_piece(distance)
    cover = _soft(distance, rng.uniform(0.006, 0.03))
    # Its own coarse grain and patches are what parts it from the look-alikes.
    inner = 1 + 0.28 * canvas.field(rng, 0.1) + 0.22 * canvas.field(rng, 0.022)
    image = image + (cover * inner)[..., None] * tint
    if not skin:
        # A polyp bulges: lit on the side of the lamp.
        height = np.sqrt(np.clip(1 - np.clip(distance / radius + 1, 0, 1) ** 2, 0, None))
        light = rng.uniform(0, 2 * np.pi)
        down, across = np.gradient(gaussian_filter(height, min(canvas.size) / 64), *canvas.axes)
        image = image * (1 + rng.uniform(0.01, 0.05) * (np.cos(light) * across + np.sin(light) * down))[..., None]
    return image, distance


def _in_one_piece(distance: np.ndarray) -> np.ndarray:
    islands, count = label(distance < 0)
    if not count:
        return distance
    largest = islands == 1 + np.argmax(np.bincount(islands.ravel())[1:])
    return np.where(binary_fill_holes(largest), -np.abs(distance), np.abs(distance))


def _folds(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    ridge = canvas.field(rng, rng.uniform(0.3, 0.6), smooth=0.4)
    depth = np.exp(-((ridge - rng.normal(0, 0.7)) ** 2) / rng.uniform(0.01, 0.06))
    return image * (1 - rng.uniform(0.1, 0.45) * depth)[..., None]


def _vessels(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    lines = [_curve(rng, rng.uniform(0.2, 0.5), wander=0.09) for _ in range(rng.integers(0, 9))]
    cover = _draw(canvas, lines, rng.uniform(0.006, 0.014))
    cover = gaussian_filter(cover, 0.006 * min(canvas.size)) * rng.uniform(0.15, 0.5)
    return image + cover[..., None] * (base * (0.75, 0.35, 0.4) - base)


def _hairs(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    lines = [_curve(rng, rng.uniform(0.4, 0.9), wander=0.04) for _ in range(rng.integers(2, 16))]
    cover = _draw(canvas, lines, rng.uniform(0.004, 0.011))[..., None] * rng.uniform(0.5, 0.95)
    return np.asarray(image * (1 - cover) + cover * rng.uniform(0.03, 0.3) * np.array((1, 0.8, 0.65)))


def _bubbles(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    for _ in range(rng.integers(0, 7)):
        radius = rng.uniform(0.012, 0.045)
        distance = _outline(canvas, rng, radius, ragged=0.02, edge=0.5)
        ring = np.exp(-((distance / (0.2 * radius)) ** 2)) - 0.3 * (distance < 0)
        image = image + (rng.uniform(0.06, 0.3) * ring)[..., None]
    return image


def _shine(
    image: np.ndarray, canvas: _Canvas, rng: np.random.Generator, distance: np.ndarray, chance: float
) -> np.ndarray:
    if rng.random() > chance:
        return image
    gloss = canvas.field(rng, 0.035) + 0.8 * canvas.field(rng, 0.2) + 0.5 * (distance < 0)
    cover = _soft(rng.uniform(2.3, 3.2) - gloss, 0.15)[..., None] * rng.uniform(0.6, 1)
    return np.asarray(image * (1 - cover) + cover)


def _expose(image: np.ndarray, canvas: _Canvas, rng: np.random.Generator, noise: np.random.Generator) -> np.ndarray:
    y, x = canvas.axes[0][:, None], canvas.axes[1][None, :]
    slope, turn = rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
    light = (1 + slope * (x * np.cos(turn) + y * np.sin(turn))) * (1 - rng.uniform(0, 0.9) * (x * x + y * y))
    if rng.random() < 0.3:  # the round field of a scope
        light = light * _soft(np.hypot(x, y) - rng.uniform(0.5, 0.68), 0.01)
    balance = rng.uniform(0.88, 1.1, 3) * rng.uniform(0.8, 1.1)
    image = np.clip(image * light[..., None] * balance, 0, 1) ** rng.uniform(0.8, 1.25)
    image = gaussian_filter(image, (*[min(canvas.size) / 128 * rng.uniform(0.2, 0.7)] * 2, 0))
    speckle = gaussian_filter(noise.standard_normal(image.shape), (0.5, 0.5, 0)) * rng.uniform(0.01, 0.04)
    return np.rint(255 * np.clip(image + speckle, 0, 1)).astype(np.uint8)


def _soft(distance: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(np.clip(distance / (width / 3), -30, 30))))


def _curve(rng: np.random.Generator, length: float, *, wander: float) -> np.ndarray:
    turn = rng.uniform(0, 2 * np.pi)
    path = np.linspace(-0.5, 0.5, 5)[:, None] * length * (np.sin(turn), np.cos(turn)) + rng.uniform(-0.5, 0.5, 2)
    return np.asarray(CubicSpline(range(5), path + rng.normal(0, wander, (5, 2)))(np.linspace(0, 4, 40)))


def _draw(canvas: _Canvas, lines: list[np.ndarray], width: float) -> np.ndarray:
    from PIL import Image, ImageDraw

    scale = min(canvas.size) * _DRAWN
    height, breadth = (n * _DRAWN for n in canvas.size)
    sheet = Image.new("L", (breadth, height))
    pen = ImageDraw.Draw(sheet)
    for line in lines:
        points = [(float(x) * scale + breadth / 2, float(y) * scale + height / 2) for y, x in line]
        pen.line(points, fill=255, width=max(1, round(width * scale)), joint="curve")
    small = sheet.resize((canvas.size[1], canvas.size[0]), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255
