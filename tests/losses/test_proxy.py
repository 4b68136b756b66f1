"""SCDL's losses against their definitions written out sample by sample, and what must not change them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.losses import proxy


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _straightforward(embeddings: Tensor, mean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Return the mean cosines by way of every sample: (B, C, L, S) cosines, then their mean."""
    samples = mean[:, None] + sigma[:, None] * noise
    return torch.einsum("bld,csd->bcls", F.normalize(embeddings, dim=-1), F.normalize(samples, dim=-1)).mean(3).mT


@pytest.mark.parametrize("shared", [False, True])
def test_the_shortcut_is_the_mean_over_samples(shared: bool) -> None:
    embeddings, mean, sigma = _random(2, 9, 16), _random(5, 16, seed=1), _random(5, 16, seed=2).exp()
    noise = _random(7, 16, seed=3) if shared else _random(5, 7, 16, seed=3)
    expected = _straightforward(embeddings, mean, sigma, noise.expand(5, 7, 16))
    ours = proxy.mean_cosines(embeddings, proxy.mean_directions(mean, sigma, noise))
    assert ours.shape == (2, 9, 5)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_its_gradients_are_those_of_the_mean_over_samples() -> None:
    def gradients(shortcut: bool) -> tuple[Tensor, ...]:
        embeddings = _random(1, 6, 8).requires_grad_()
        mean, sigma = _random(3, 8, seed=1).requires_grad_(), _random(3, 8, seed=2).exp().requires_grad_()
        noise, weights = _random(5, 8, seed=3), _random(1, 6, 3, seed=4).softmax(2)
        if shortcut:
            cosines = proxy.mean_cosines(embeddings, proxy.mean_directions(mean, sigma, noise))
        else:
            cosines = _straightforward(embeddings, mean, sigma, noise.expand(3, 5, 8))
        loss = proxy.proxy_to_embedding(cosines, weights) + proxy.embedding_to_proxy(cosines, weights)
        return torch.autograd.grad(loss, [embeddings, mean, sigma])

    for ours, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_numerical_gradients() -> None:
    double = torch.float64
    cosines = _random(1, 4, 3, dtype=double).tanh().requires_grad_()
    weights = _random(1, 4, 3, seed=1, dtype=double).softmax(2).requires_grad_()
    assert torch.autograd.gradcheck(proxy.proxy_to_embedding, (cosines, weights))
    assert torch.autograd.gradcheck(proxy.embedding_to_proxy, (cosines, weights))
    embeddings = _random(2, 3, 4, dtype=double).requires_grad_()
    mean, rho = (_random(3, 4, seed=n, dtype=double).requires_grad_() for n in (1, 2))
    noise = _random(5, 4, seed=3, dtype=double)

    def losses(embeddings: Tensor, mean: Tensor, rho: Tensor) -> Tensor:
        found = proxy.mean_cosines(embeddings, proxy.mean_directions(mean, rho.exp(), noise))
        return proxy.proxy_to_embedding(found, shares, balanced=True) + proxy.embedding_to_proxy(found, shares)

    shares = _random(2, 3, 3, seed=4, dtype=double).softmax(2)
    assert torch.autograd.gradcheck(losses, (embeddings, mean, rho))


def test_an_embedding_of_zeros_has_no_direction_and_a_finite_gradient() -> None:
    embeddings = torch.cat([torch.zeros(1, 4), _random(1, 4)]).requires_grad_()
    cosines = proxy.mean_cosines(embeddings, _random(3, 4, seed=1))
    assert not cosines[0].any()
    (gradient,) = torch.autograd.grad(cosines[1].sum(), embeddings)
    assert gradient.isfinite().all()
    assert not gradient[0].any()


def test_more_samples_converge() -> None:
    mean, sigma = _random(4, 32, seed=1), _random(4, 32, seed=2).exp()
    truth = proxy.mean_directions(mean, sigma, _random(200_000, 32, seed=3))
    errors = [
        torch.stack([(proxy.mean_directions(mean, sigma, _random(n, 32, seed=s)) - truth).norm() for s in range(8)])
        for n in (50, 1024)
    ]
    ratio = float(errors[0].mean() / errors[1].mean())
    assert ratio == pytest.approx(math.sqrt(1024 / 50), rel=0.3), "the error falls with the root of the number"


def test_hand_computed_losses() -> None:
    cosines, weights = torch.tensor([[0.5, -0.5]]), torch.tensor([[0.75, 0.25]])
    assert float(proxy.embedding_to_proxy(cosines, weights)) == pytest.approx(0.75 * 0.5 + 0.25 * 1.5)
    expected = (math.exp(-(0.75 * 0.5 - 0.25 * 0.5)) + math.exp(-(0.25 * -0.5 - 0.75 * -0.5))) / 2
    assert float(proxy.proxy_to_embedding(cosines, weights)) == pytest.approx(expected)


def test_balanced_by_hand() -> None:
    cosines, weights = torch.tensor([[[0.5], [0.2], [-0.4]]]), torch.tensor([[[1.0], [0.0], [0.0]]])
    expected = 0.5 * (math.exp(-0.5) + (math.exp(0.2) + math.exp(-0.4)) / 2)
    assert float(proxy.proxy_to_embedding(cosines, weights, balanced=True)) == pytest.approx(expected)
    shares = torch.tensor([[[0.25], [0.75], [0.0]]])
    own = 0.25 * math.exp(-0.5) + 0.75 * math.exp(-0.2)
    others = (0.75 * math.exp(0.5) + 0.25 * math.exp(0.2) + math.exp(-0.4)) / 2
    assert float(proxy.proxy_to_embedding(cosines, shares, balanced=True)) == pytest.approx(0.5 * (own + others))
    nobody = proxy.proxy_to_embedding(cosines, torch.zeros_like(weights), balanced=True)
    assert float(nobody) == pytest.approx(0.5 * (math.exp(0.5) + math.exp(0.2) + math.exp(-0.4)) / 3)


def test_assignment_and_sharpening() -> None:
    embeddings, mean = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    p = proxy.assignment(embeddings, mean, 0.5)
    high = math.exp(2) / (math.exp(2) + 1)
    torch.testing.assert_close(p, torch.tensor([[high, 1 - high], [1 - high, high]]))
    sharp = proxy.sharpened(p.requires_grad_())
    assert not sharp.requires_grad
    assert float(sharp[0, 0]) == pytest.approx(high**2 / (high**2 + (1 - high) ** 2), rel=1e-5)


def test_scale_of_embeddings_changes_nothing() -> None:
    embeddings, mean = _random(2, 5, 8), _random(3, 8, seed=1)
    directions = proxy.mean_directions(mean, torch.ones(3, 8), _random(6, 8, seed=2))
    torch.testing.assert_close(
        proxy.mean_cosines(embeddings, directions), proxy.mean_cosines(7 * embeddings, directions)
    )
    torch.testing.assert_close(proxy.assignment(embeddings, mean, 0.2), proxy.assignment(embeddings, 9 * mean, 0.2))


def test_permuting_classes_permutes_everything() -> None:
    order = torch.tensor([2, 0, 3, 1])
    embeddings, mean, sigma = _random(2, 5, 8), _random(4, 8, seed=1), _random(4, 8, seed=2).exp()
    noise, weights = _random(6, 8, seed=3), _random(2, 5, 4, seed=4).softmax(2)

    def run(classes: Tensor) -> tuple[Tensor, ...]:
        cosines = proxy.mean_cosines(embeddings, proxy.mean_directions(mean[classes], sigma[classes], noise))
        its = weights[..., classes]
        return cosines, proxy.proxy_to_embedding(cosines, its), proxy.embedding_to_proxy(cosines, its)

    plain, permuted = run(torch.arange(4)), run(order)
    torch.testing.assert_close(permuted[0], plain[0][..., order])
    torch.testing.assert_close(permuted[1:], plain[1:])


def test_anchors_are_means_of_unit_vectors() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, -2.0]])
    anchors, there = proxy.class_anchors(embeddings.requires_grad_(), torch.tensor([1, 1, 2]), 4)
    assert there.tolist() == [False, True, True, False]
    assert not anchors.requires_grad
    torch.testing.assert_close(anchors[1], torch.full((2,), math.sqrt(0.5)))
    torch.testing.assert_close(anchors[2], torch.tensor([0.0, -1.0]))
    mean = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 1.0]], requires_grad=True)
    sac = proxy.semantic_anchoring(mean, anchors, there)
    assert float(sac.detach()) == pytest.approx(((1 - math.sqrt(0.5)) + 2) / 2)
    sac.backward()
    assert mean.grad is not None
    assert mean.grad[[0, 3]].eq(0).all()


def test_no_class_at_all_is_zero_and_finite() -> None:
    anchors, there = proxy.class_anchors(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2)
    mean = _random(2, 3).requires_grad_()
    sac = proxy.semantic_anchoring(mean, anchors, there)
    sac.backward()
    assert float(sac.detach()) == 0
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_proportions_of_cells() -> None:
    label = torch.tensor([[[0, 1, 2, 2], [1, 1, 2, -1], [-1, -1, 0, 0], [-1, -1, 0, 1]]])
    share, known = proxy.label_proportions(label, (2, 2), 3)
    assert known.tolist() == [[True, True, False, True]]
    expected = [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.75, 0.25, 0.0]]
    torch.testing.assert_close(share[0], torch.tensor(expected))


def test_voxels_of_no_class_count_nowhere() -> None:
    label = torch.tensor([[[0, 255], [-1, -100]], [[3, 2], [2, 1]]])
    share, known = proxy.label_proportions(label, (1, 1), 3)
    assert known.all()
    torch.testing.assert_close(share[:, 0], torch.tensor([[1.0, 0.0, 0.0], [0.0, 1 / 3, 2 / 3]]))


def test_evened_proportions_are_those_of_equally_frequent_classes() -> None:
    # Class 1 has a hundredth of the first cell and nothing elsewhere: all of it lies there.
    shares = torch.tensor([[[0.99, 0.01], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    even = proxy.evened(shares)
    first = 0.99 / 2.99
    torch.testing.assert_close(even[0, 0], torch.tensor([first / (first + 1), 1 / (first + 1)]))
    assert even[0, 1:].tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert proxy.evened(torch.zeros(2, 3, 4)).tolist() == torch.zeros(2, 3, 4).tolist()


@pytest.mark.parametrize("size", [(6, 10, 12), (8, 10, 12), (7, 11, 13)])
def test_proportions_are_those_of_pooled_one_hot_volumes(size: tuple[int, ...]) -> None:
    label = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0))
    share, known = proxy.label_proportions(label, (3, 5, 4), 4)
    pooled = F.adaptive_avg_pool3d(F.one_hot(label, 4).movedim(-1, 1).float(), (3, 5, 4))
    torch.testing.assert_close(share, pooled.flatten(2).mT)
    assert known.all()
