"""Augmentation: one affine resampling straight from the store's box, and intensity changes on whole batches.

Every random number comes from a generator that the caller seeds by step: a step is the same whoever computes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OUTSIDE = -1  # label beyond the image: no loss there


@dataclass(frozen=True)
class Strength:
    """How much an augmentation changes; probabilities are per sample."""

    rotate: float = 0.0
    """Largest angle, degrees."""
    scale: float = 0.0
    """Largest change of size, as a factor ``1 + scale`` up and down."""
    spatial: float = 0.0
    """Probability of rotating and scaling, and of the elastic deformation."""
    elastic: float = 0.0
    """Standard deviation of the elastic deformation at its control points, as a share of the patch's side."""
    intensity: float = 0.0
    """Probability of each intensity change."""
    contrast: float = 0.0
    """Largest change of contrast, brightness and gamma, as a factor up and down."""
    noise: float = 0.0
    """Largest standard deviation of added noise, in units of the normalised image."""
    blur: float = 0.0
    """Largest sigma of the blur, voxels."""


STRENGTHS = {
    "none": Strength(),
    "light": Strength(rotate=10, scale=0.1, spatial=0.5, intensity=0.3, contrast=0.1, noise=0.05),
    "default": Strength(
        rotate=20, scale=0.25, spatial=0.7, elastic=0.03, intensity=0.3, contrast=0.3, noise=0.1, blur=0.8
    ),
    "strong": Strength(intensity=0.6, contrast=0.5, noise=0.25, blur=1.2),
}


def random_matrix(
    rng: np.random.Generator,
    strength: Strength,
    spacing: Sequence[float],
    mirror_axes: Sequence[int],
    patch: Sequence[int] | None = None,
) -> np.ndarray:
    """Return a (d, d) matrix from output voxel offsets to input voxel offsets: rotation, size, flips.

    The rotation is one of the physical space, so it stays rigid where spacing differs between axes; axes more than
    three times coarser than the finest are left out of it, and those along which the ``patch`` is less than a third of
    its longest side: it would be turned out of what there is.
    """
    size = np.asarray(spacing, float)
    dims = len(size)
    extent = size * np.asarray(patch, float) if patch is not None else np.ones(dims)
    fixed = (size > 3 * size.min()) | (extent < extent.max() / 3)
    matrix = np.eye(dims)
    if rng.random() < strength.spatial:
        for a in range(dims):
            for b in range(a + 1, dims):
                angle = math.radians(rng.uniform(-strength.rotate, strength.rotate))
                if fixed[a] or fixed[b]:
                    continue
                turn = np.eye(dims)
                turn[a, a] = turn[b, b] = math.cos(angle)
                turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
                matrix = matrix @ turn
        bound = math.log1p(strength.scale)
        matrix = matrix * math.exp(rng.uniform(-bound, bound))
        matrix = matrix * size[None, :] / size[:, None]
    for axis in mirror_axes:
        if rng.random() < 0.5:
            matrix[:, axis] *= -1
    return matrix


def random_field(rng: np.random.Generator, strength: Strength, patch: Sequence[int]) -> np.ndarray | None:
    """Return displacements in voxels at a coarse grid of control points (d, *3 to 5), or ``None`` for no deformation.

    Neighbouring control points lie a quarter of the patch or more apart, so that a deformation of this size is smooth
    and folds nothing over; an axis shorter than 8 voxels stays as it is.
    """
    if not strength.elastic or rng.random() >= strength.spatial:
        return None
    sizes = np.asarray(patch, float)
    control = rng.standard_normal((len(sizes), *(int(n) for n in rng.integers(3, 6, len(sizes)))))
    limit = strength.elastic * np.where(sizes >= 8, sizes, 0.0)
    return np.clip(control, -2, 2) * limit.reshape(-1, *(1,) * len(sizes))


def source_box(
    matrix: np.ndarray, centre: np.ndarray, patch: Sequence[int], field: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest voxel (exclusive) of the input that a patch around ``centre`` draws from."""
    reach = np.abs(matrix) @ ((np.asarray(patch) - 1) / 2)
    if field is not None:
        reach = reach + np.abs(field).reshape(len(field), -1).max(1)
    return np.floor(centre - reach + 1e-6).astype(int), np.ceil(centre + reach - 1e-6).astype(int) + 1


def warp(
    box: Tensor,
    label: Tensor | None,
    matrix: np.ndarray,
    centre: np.ndarray,
    patch: Sequence[int],
    field: np.ndarray | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Resample a patch (C, *patch) from ``box`` (C, *box), image linearly and label (*box) by nearest voxel.

    ``centre`` is the patch's centre in voxels of the box; ``field`` comes from :func:`random_field`. A matrix of flips
    alone copies voxels and interpolates none.
    """
    if field is None and np.array_equal(np.abs(matrix), np.eye(len(matrix))) and tuple(box.shape[1:]) == tuple(patch):
        axes = [1 + a for a in range(len(matrix)) if matrix[a, a] < 0]
        return box.flip(axes), None if label is None else label.flip([a - 1 for a in axes])
    size = torch.tensor(box.shape[1:], dtype=torch.float32)
    axes_at = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*axes_at, indexing="ij"), -1)
    at = offsets @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.from_numpy(centre.astype(np.float32))
    if field is not None:
        mode = "bilinear" if len(patch) == 2 else "trilinear"
        control = torch.from_numpy(field.astype(np.float32))[None]
        at = at + F.interpolate(control, size=tuple(patch), mode=mode, align_corners=True)[0].movedim(0, -1)
    grid = (2 * at / (size - 1).clamp(min=1) - 1).flip(-1)[None]
    # "bilinear" is trilinear for volumes; the box was read wide enough that nothing lies beyond its border.
    image = F.grid_sample(box[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
    if label is None:
        return image, None
    where = F.grid_sample(label[None, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    return image, where[0, 0].to(torch.int64)


def intensities(image: Tensor, strength: Strength, generator: torch.Generator | None = None) -> Tensor:
    """Return ``image`` (B, C, *S) with random contrast, brightness, gamma, blur and noise, drawn per sample.

    ``generator`` (CPU): without it torch's global one, which the loop seeds every step.
    """
    if not strength.intensity or not len(image):
        return image
    return torch.stack([_change(sample, strength, generator) for sample in image])


def strong(image: Tensor) -> Tensor:
    """Return ``image`` (B, C, *S) under the strong intensity augmentation a student sees; voxels stay in place."""
    return intensities(image, STRENGTHS["strong"])


def random_cuboid(image: Tensor, share: float = 2 / 3) -> Tensor:
    """Return a boolean mask (*S) of a cuboid of ``share`` of each side of ``image`` (B, C, *S), at a random place."""
    inside = torch.zeros(image.shape[2:], dtype=torch.bool, device=image.device)
    sides = [max(1, round(n * share)) for n in inside.shape]
    starts = [int(torch.randint(0, n - side + 1, ())) for n, side in zip(inside.shape, sides, strict=True)]
    inside[tuple(slice(a, a + side) for a, side in zip(starts, sides, strict=True))] = True
    return inside


def _change(sample: Tensor, strength: Strength, generator: torch.Generator | None) -> Tensor:
    chance, amount = torch.rand(2, 6, generator=generator).tolist()
    dims = tuple(range(1, sample.ndim))
    bound = math.log1p(strength.contrast)

    def factor(i: int) -> float:
        return math.exp((2 * amount[i] - 1) * bound)

    if strength.blur and chance[0] < strength.intensity:
        sample = _blur(sample, 0.3 + amount[0] * strength.blur)
    if chance[1] < strength.intensity:
        middle = sample.mean(dims, keepdim=True)
        sample = (sample - middle) * factor(1) + middle
    if chance[2] < strength.intensity:
        # Each channel of a picture on its own: a change of colour.
        shift = (2 * torch.rand(len(sample), generator=generator) - 1) * strength.contrast
        sample = sample + shift.to(sample.device, sample.dtype).view(-1, *(1,) * len(dims))
    if chance[3] < strength.intensity:
        low, high = sample.amin(dims, keepdim=True), sample.amax(dims, keepdim=True)
        spread = (high - low).clamp(min=1e-6)
        sample = ((sample - low) / spread).clamp(0, 1) ** factor(3) * spread + low
    if chance[4] < strength.intensity:
        noise = torch.randn(sample.shape, generator=generator).to(sample.device, sample.dtype)
        sample = sample + noise * (amount[4] * strength.noise)
    return sample


def _blur(sample: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=sample.device) / sigma) ** 2).to(sample.dtype)
    taps = taps / taps.sum()
    dims = sample.ndim - 1
    convolve = F.conv2d if dims == 2 else F.conv3d
    x = sample[:, None]
    for axis in range(dims):
        if sample.shape[1 + axis] == 1:
            continue
        shape, pad = [1, 1] + [1] * dims, [0] * (2 * dims)
        shape[2 + axis] = len(taps)
        pad[2 * (dims - 1 - axis)] = pad[2 * (dims - 1 - axis) + 1] = radius
        with torch.autocast(x.device.type, enabled=False):  # a method's step is inside it, and images are not rounded
            x = convolve(F.pad(x, pad, mode="replicate"), taps.view(shape))
    return x[:, 0]
