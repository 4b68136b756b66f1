"""One pass over windows: entropy, disagreement and pooled features against sums written out."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semialign.common.types import Output
from semialign.inference.sliding_window import predict_planes
from semialign.methods import METHODS
from semialign.suggestion.views import Pass, views_of, watched


class Network(nn.Module):
    """Class 1 is as probable as the first channel says; features: the image, twice it; deepest: every other voxel."""

    def forward(self, image: Tensor) -> Output:
        one = image[:, :1].clamp(1e-6, 1 - 1e-6)
        return Output(torch.cat([1 - one, one], 1).log(), torch.cat([image, 2 * image], 1), [image, image[..., ::2]])


class Model:
    """What a pass asks of a trained model; ``tilt`` makes the probability depend on the place in the window."""

    device = torch.device("cpu")

    def __init__(self, tilt: float = 0.0, *, shows: bool = True, shift: float = 0.0) -> None:
        self.method, self.tilt, self.shows, self.shift = nn.ModuleList([Network()]), tilt, shows, shift

    def probabilities(self, windows: Tensor) -> Tensor:
        if self.shows:
            self.method[0](windows)
        tilted = windows + self.shift + self.tilt * torch.linspace(-1, 1, windows.shape[-1])
        one = tilted[:, :1].clamp(1e-6, 1 - 1e-6)
        return torch.cat([1 - one, one], 1)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def apart(*views: np.ndarray) -> np.ndarray:
    """How far views disagree: the entropy of their mean less the mean of theirs."""
    return entropy(np.mean(views, axis=0)) - np.mean([entropy(view) for view in views], axis=0)


def plan(*mirror_axes: int) -> Any:
    return SimpleNamespace(mirror_axes=mirror_axes)


def with_mask(image: Tensor) -> Tensor:
    return torch.cat([image, torch.ones_like(image[:, :1])], 1)


def test_views_that_agree_disagree_by_nothing() -> None:
    image = torch.rand(2, 1, 4, 6) * 0.8 + 0.1
    answer = Pass([Model()], views_of(plan(0, 1)))(with_mask(image))
    torch.testing.assert_close(answer[:, 1:2], image)
    np.testing.assert_allclose(answer[:, 2], 0, atol=1e-5)


def test_a_model_that_sees_sides_disagrees_with_its_mirror_image() -> None:
    image = torch.full((1, 1, 3, 5), 0.5)
    answer = Pass([Model(0.3)], views_of(plan(1)))(with_mask(image))
    plain = 0.5 + 0.3 * np.linspace(-1, 1, 5)
    np.testing.assert_allclose(answer[0, 1, 0], (plain + plain[::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(answer[0, 2, 0], apart(plain, plain[::-1]), atol=1e-5)
    # Along the other axis nothing differs.
    other = Pass([Model(0.3)], views_of(plan(0)))(with_mask(image))
    np.testing.assert_allclose(other[0, 2, 0], 0, atol=1e-5)


def test_where_sides_count_contrasts_are_compared() -> None:
    views = views_of(plan())
    assert list(views) == ["as it is", "contrast times 0.8", "contrast times 1.25"]
    answer = Pass([Model()], views)(with_mask(torch.full((1, 1, 2, 2), 0.4)))
    np.testing.assert_allclose(answer[0, 1], np.mean([0.4, 0.32, 0.5]), atol=1e-6)
    np.testing.assert_allclose(answer[0, 2], apart(np.array(0.4), np.array(0.32), np.array(0.5)), atol=1e-5)


def test_runs_of_an_ensemble_are_compared_as_they_are() -> None:
    models: Any = [Model(0.3), Model(0.3, shift=0.1)]
    answer = Pass(models, views_of(plan(1)))(with_mask(torch.full((1, 1, 1, 3), 0.5)))
    first, second = 0.5 + 0.3 * np.linspace(-1, 1, 3), 0.6 + 0.3 * np.linspace(-1, 1, 3)
    np.testing.assert_allclose(answer[0, 1, 0], (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(answer[0, 2, 0], apart(first, second), atol=1e-5)


@pytest.mark.parametrize("shows", [True, False])
def test_features_are_pooled_by_class_and_padding_counts_for_nothing(shows: bool) -> None:
    image = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    one_pass = Pass([Model(shows=shows)], views_of(plan(0)))
    padded = torch.cat([image, torch.ones_like(image)], 0)
    # A window larger than the image: its padding is all zeros, in the mask too.
    (planes,) = predict_planes(padded, one_pass, patch=(6, 8))
    assert planes.probabilities.shape == (3, 3, 4)
    structure, whole = one_pass.described()
    flat = image[0].double().numpy()
    mean = float((flat * flat).sum() / flat.sum())
    np.testing.assert_allclose(structure, [mean, 2 * mean] if shows else [mean], rtol=1e-5)
    if not shows:
        np.testing.assert_allclose(whole, [(flat**2).mean()], rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_shows_its_features(small_method: Callable[..., Any], name: str) -> None:
    method = small_method(name).eval()
    with watched(SimpleNamespace(method=method)) as seen, torch.inference_mode():  # type: ignore[arg-type]
        method.predict(torch.randn(1, 1, 16, 16))
    assert seen
    finest = (8, 8) if name == "semigda" else (16, 16)  # its small encoder's stem halves the size
    assert all(fine.shape[2:] == finest and deep.shape[2:] in ((8, 8), (2, 2)) for fine, deep in seen)
    before = len(seen)
    method.predict(torch.randn(1, 1, 16, 16))
    assert len(seen) == before, "nothing is watched afterwards"
