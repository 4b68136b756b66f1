"""SemiGDA's annotation conversion and reversion (ACR): label maps as pictures and back, without parameters."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semialign.common.errors import require_known


class LabelCode(nn.Module, ABC):
    """A picture in [-1, 1] for every label map, from which it can be read again exactly.

    Pictures are float32 (float64 stays), under autocast too, since half precision would blur neighbouring classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"{num_classes} classes: a code needs two")
        self.num_classes = num_classes

    @abstractmethod
    def encode(self, label: Tensor) -> Tensor:
        """Label (B, H, W) int64 to a picture (B, 3, H, W) in [-1, 1]; -1 (ignored) is shown as background."""

    @abstractmethod
    def decode(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W), within [-1, 1] or beyond, to the nearest label (B, H, W) int64."""

    @abstractmethod
    def memberships(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W) to soft classes (B, K, H, W) that sum to 1."""


class ScalarCode(LabelCode):
    """Class ``k`` as the grey ``2 k / (K - 1) - 1`` (SemiGDA, arXiv 2604.23274).

    The paper writes ``2 k / K - 1``, which wastes the brightest grey. With more than two classes their order matters:
    a border between the classes 0 and 2 runs through 1.
    """

    def encode(self, label: Tensor) -> Tensor:
        """Label (B, H, W) int64 to a grey picture (B, 3, H, W)."""
        value = label.clamp(min=0).float() * (2 / (self.num_classes - 1)) - 1
        return value[:, None].expand(-1, 3, -1, -1).contiguous()

    def decode(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W) to label (B, H, W): the class nearest to the mean over the channels."""
        return self._value(image)[:, 0].clamp(0, self.num_classes - 1).round().long()

    def memberships(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W) to ``max(0, 1 - |v - k|)`` (B, K, H, W) of its value ``v``, clamped to [0, K - 1].

        Beyond these ends only gradients that lead back inside pass, so that no pixel is lost there for ever (ours).
        """
        value = _ClampInwards.apply(self._value(image), 0.0, self.num_classes - 1.0)
        # Between two classes only these differ from 0. Written so, rather than with the absolute value, whose gradient
        # vanishes on every whole number, and so for each clamped pixel.
        low = value.detach().floor().clamp(max=self.num_classes - 2)
        share = value - low
        k = torch.arange(self.num_classes, device=image.device).view(1, -1, 1, 1)
        return torch.where(k == low, 1 - share, torch.where(k == low + 1, share, 0))

    def _value(self, image: Tensor) -> Tensor:
        """Return ``v`` (B, 1, H, W): class numbers as the picture has them, before any clamping."""
        return (_exact(image).mean(1, keepdim=True) + 1) * ((self.num_classes - 1) / 2)


class PaletteCode(LabelCode):
    """A colour for every class, far apart in the cube: no order of the classes (ours; the paper has two classes).

    ``temperature`` T of the memberships ``softmax(-|y - colour|^2 / T)``; by default a sixth of the smallest square
    distance of two colours, so that a class's own colour is a member of it by 0.95 or more, for every K up to 64.
    """

    colours: Tensor

    def __init__(self, num_classes: int, *, temperature: float | None = None) -> None:
        super().__init__(num_classes)
        self.register_buffer("colours", torch.from_numpy(palette(num_classes)).float(), persistent=False)
        self.temperature = temperature or float(torch.pdist(self.colours).min()) ** 2 / 6

    def encode(self, label: Tensor) -> Tensor:
        """Label (B, H, W) int64 to a picture (B, 3, H, W) of the classes' colours."""
        return self.colours[label.clamp(min=0)].movedim(-1, 1).contiguous()

    def decode(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W) to label (B, H, W): the class of the nearest colour."""
        return self._closeness(image).argmax(1)

    def memberships(self, image: Tensor) -> Tensor:
        """Picture (B, 3, H, W) to ``softmax_k(-|y - colour_k|^2 / T)`` (B, K, H, W)."""
        return (self._closeness(image) / self.temperature).softmax(1)

    def _closeness(self, image: Tensor) -> Tensor:
        """Return ``|y|^2 - |y - colour|^2`` (B, K, H, W); ``|y|^2``, the same for all classes, changes nothing."""
        with torch.autocast(image.device.type, enabled=False):
            image = _exact(image)
            colours = self.colours.to(image.dtype)
            return 2 * torch.einsum("bdhw,kd->bkhw", image, colours) - colours.square().sum(1).view(1, -1, 1, 1)


CODES: dict[str, type[LabelCode]] = {"scalar": ScalarCode, "palette": PaletteCode}


def label_code(name: str, num_classes: int) -> LabelCode:
    """Return the code called ``name`` for ``num_classes`` classes, background among them."""
    require_known(name, CODES, "label code")
    return CODES[name](num_classes)


def palette(num_classes: int) -> np.ndarray:
    """Return ``num_classes`` colours (K, 3) in [-1, 1], far apart, black first; always the same ones.

    The best of the cubic, face-centred and body-centred lattices of the cube, each taken farthest point first:
    distance at least 2 up to 8 colours, 1.41 up to 14, 1 up to 27, 0.66 up to 64.
    """
    best, spread = np.empty((0, 3)), -1.0
    for side in range(2, round((4 * num_classes) ** (1 / 3)) + 3):  # the sparsest lattice fills a quarter of its grid
        grid = np.indices((side,) * 3).reshape(3, -1).T
        face_centred, body_centred = grid.sum(1) % 2 == 0, (grid % 2 == grid[:, :1] % 2).all(1)
        for points in (grid, grid[face_centred], grid[body_centred]):
            if len(points) < num_classes:
                continue
            chosen, distance = _farthest_first(points, num_classes)
            if distance / (side - 1) ** 2 > spread:
                best, spread = chosen * (2 / (side - 1)) - 1, distance / (side - 1) ** 2
    return best


def _farthest_first(points: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Return ``count`` of ``points`` (N, 3), each as far as possible from all before, and the least square distance."""
    chosen, least = [0], 0
    distance = np.full(len(points), np.iinfo(np.int64).max)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
        least = int(distance[chosen[-1]])  # it never grows
    return points[chosen], least


class _ClampInwards(torch.autograd.Function):
    """Clamp; a gradient whose descent would lead further out of bounds is 0, any other passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.bounds = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        outwards = ((values < low) & (gradient > 0)) | ((values > high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None


def _exact(image: Tensor) -> Tensor:
    return image.to(torch.promote_types(image.dtype, torch.float32))
