"""The SCDL module on its own: priors, losses, what is drawn, and that each part does what it claims."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.errors import UserError
from semialign.losses.proxy import proxy_to_embedding, region_tokens
from semialign.plugins.scdl import SCDL
from semialign.plugins.scdl_settings import SCDLSettings

SMALL = SCDLSettings(embedding=16, samples=32, token_grid=4)


def _module(dims: int = 3, classes: int = 5, width: int = 12, **settings: Any) -> SCDL:
    torch.manual_seed(0)
    return SCDL(width, classes, dims, settings=dataclasses.replace(SMALL, **settings))


def _inputs(dims: int = 3, classes: int = 5, width: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, width, *(8,) * dims, generator=generator)
    label = torch.randint(0, classes - 1, (3, *(16,) * dims), generator=generator)  # the last class is never seen
    label[2] = -1
    return features, label


@pytest.mark.parametrize("dims", [2, 3])
def test_in_somebody_elses_code(dims: int) -> None:
    scdl = _module(dims)
    features, label = _inputs(dims)
    prior, losses = scdl(features.requires_grad_(), label)
    assert prior.shape == features.shape
    assert prior.eq(0).all(), "the host computes what it computed before"
    assert losses.keys() == {"p2e", "e2p", "sac"}
    total = torch.stack(list(losses.values())).sum() + prior.sum()
    total.backward()
    for name, parameter in scdl.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("label", [None, "unknown"])
def test_without_a_label_every_loss_is_finite(label: str | None) -> None:
    features, _ = _inputs()
    unknown = torch.full((3, 16, 16, 16), -1) if label else None
    for scdl in (_module(), _module(unlabelled=False), _module(weights="soft")):
        _, losses = scdl(features, unknown)
        torch.stack(list(losses.values())).sum().backward()
        assert all(value.isfinite() for value in losses.values())
        assert float(losses["sac"].detach()) == 0
        assert all(p.grad.isfinite().all() for p in scdl.parameters() if p.grad is not None)


def test_losses_are_float32_under_autocast() -> None:
    features, label = _inputs()
    scdl = _module()
    with torch.autocast("cpu", torch.bfloat16):
        tokens = scdl.tokens(features.bfloat16())
        losses = scdl.losses(tokens, label)
    assert tokens.embeddings.dtype == tokens.cosines.dtype == torch.float32
    assert tokens.prior is not None
    assert tokens.prior.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.testing.assert_close(tokens.prior.norm(dim=2)[..., None], torch.full((3, 64, 1), 3**0.5), atol=0.2, rtol=0)


def test_eval_draws_nothing_and_repeats() -> None:
    scdl = _module().eval()
    features, _ = _inputs()
    before = torch.get_rng_state()
    first, second = scdl.tokens(features), scdl.tokens(features)
    assert torch.equal(first.cosines, second.cosines)
    assert first.prior is not None
    assert second.prior is not None
    assert torch.equal(first.prior, second.prior)
    assert torch.equal(before, torch.get_rng_state())


def test_training_draws_anew_and_leaves_the_global_generator() -> None:
    scdl, (features, _) = _module(), _inputs()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = scdl.tokens(features), scdl.tokens(features)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first.cosines, second.cosines)
    torch.manual_seed(8)
    other = scdl.tokens(features)
    torch.manual_seed(7)
    again = scdl.tokens(features)
    assert torch.equal(first.cosines, again.cosines), "a step's numbers follow from its seed"
    assert not torch.equal(first.cosines, other.cosines)


def test_priors() -> None:
    scdl, (features, _) = _module(temperature=0.3).eval(), _inputs()
    tokens = scdl.tokens(features)
    z, m = tokens.embeddings, tokens.cosines
    mean = F.normalize(scdl.proxies.mean, dim=1)
    distribution = F.normalize((m / 0.3).softmax(2) @ mean, dim=2)
    centre = F.normalize((F.normalize(z, dim=2) @ mean.T / 0.3).softmax(2) @ mean, dim=2)
    assert tokens.prior is not None
    expected = torch.cat([distribution, centre, F.normalize(z, dim=2)], 2)
    torch.testing.assert_close(tokens.prior, expected, rtol=1e-4, atol=1e-5)
    paper = _module(distribution_weights="cosine", prior=("distribution",)).eval()
    its = paper.tokens(features)
    assert its.prior is not None
    torch.testing.assert_close(its.prior, F.normalize(its.cosines @ F.normalize(paper.proxies.mean, dim=1), dim=2))


@pytest.mark.parametrize(
    ("settings", "losses", "width"),
    [
        ({"cdba": False}, {"sac"}, 48),
        ({"sac": False}, {"p2e", "e2p"}, 48),
        ({"prior": ("centre",)}, {"p2e", "e2p", "sac"}, 16),
        ({"prior": ()}, {"p2e", "e2p", "sac"}, 0),
        ({"inject": "none"}, {"p2e", "e2p", "sac"}, 0),
    ],
)
def test_every_part_can_be_switched_off(settings: dict[str, Any], losses: set[str], width: int) -> None:
    scdl = _module(**settings)
    features, label = _inputs()
    prior, found = scdl(features, label)
    assert found.keys() == losses
    assert (scdl.injection.projection.in_features if scdl.injection else 0) == width
    (torch.stack(list(found.values())).sum() + prior.sum()).backward()
    for name, parameter in scdl.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_weights_are_factors() -> None:
    features, label = _inputs()
    plain, heavy = _module(e2p_weight=1.0).eval(), _module(align_weight=3.0, e2p_weight=0.5, sac_weight=7.0).eval()
    one, other = plain(features, label)[1], heavy(features, label)[1]
    for name, factor in (("p2e", 3.0), ("e2p", 1.5), ("sac", 7.0)):
        torch.testing.assert_close(other[name], factor * one[name])


def test_token_grid_never_finer_than_the_map() -> None:
    features = torch.randn(1, 12, 3, 8, 5)
    assert _module(token_grid=6).pool(features)[1] == (3, 6, 5)


def test_regions_are_weighted_means_of_tokens() -> None:
    values = torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[5.0, 5.0], [7.0, 7.0]]])
    shares = torch.tensor([[[0.75, 0.25, 0.0], [0.25, 0.0, 0.75]], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    means, classes = region_tokens(values, shares)
    assert classes.tolist() == [0, 1, 2, 1]
    torch.testing.assert_close(means, torch.tensor([[1.5, 0.5], [1.0, 0.0], [3.0, 2.0], [7.0, 7.0]]))


def test_unknown_choices_suggest() -> None:
    for settings in ({"prior": ("center",)}, {"inject": "stage"}, {"anchor": "imag"}, {"weights": "label"}):
        with pytest.raises(UserError, match="did you mean"):
            _module(**settings)


def test_proxies_start_as_wide_as_asked() -> None:
    narrow = _module(spread=0.06).proxies
    torch.testing.assert_close(narrow.sigma, torch.full_like(narrow.sigma, 0.06))
    assert float(_module().proxies.sigma.detach().mean()) == pytest.approx(0.7, abs=0.05), "as published"
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="must be above 0, or null for the published start"):
            _module(spread=wrong)


@pytest.mark.parametrize("weights", ["labels", "even", "soft"])
def test_weights_of_labelled_cells(weights: str) -> None:
    # One voxel of class 1 in a cell, among class 0 everywhere: evened, it has most of the cell.
    label = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
    label[0, 0, 0, 0] = 1
    module = _module(weights=weights, sac=False, prior=(), balanced=True).eval()
    tokens = module.tokens(torch.randn(1, 12, 4, 4, 4, generator=torch.Generator().manual_seed(0)))
    shares = torch.zeros(64, 5)
    shares[:, 0], shares[0, :2] = 1.0, torch.tensor([7 / 8, 1 / 8])
    if weights == "even":
        total = shares.sum(0)
        even = shares[0, :2] / total[:2]
        shares[0, :2] = even / even.sum()
        assert float(shares[0, 1]) > 0.98
    if weights == "soft":
        shares = module.proxies.assign(tokens.embeddings)[0]
    expected = proxy_to_embedding(tokens.cosines[0], shares, balanced=True)
    assert float(module.losses(tokens, label)["p2e"]) == pytest.approx(float(expected), rel=1e-5)


# --- What each part claims, where the answer is known -----------------------------------------------------------------


def _blobs(counts: list[int], dims: int = 32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return points around unit directions, their classes and the directions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.linalg.qr(torch.randn(dims, len(counts), generator=generator))[0].T
    classes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return centres[classes] + 0.03 * torch.randn(len(classes), dims, generator=generator), classes, centres


def _learn(known: Tensor | None, *, sac: bool, seed: int, balanced: bool = False) -> Tensor:
    """Train proxies alone on fixed embeddings; returns the cosines of proxies and true directions (C, C)."""
    from semialign.losses import proxy

    points, classes, centres = _blobs(COUNTS)
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(len(COUNTS), 32, generator=generator).mul_(0.1).requires_grad_()
    rho = torch.full_like(mean, -3.0).requires_grad_()
    optimiser = torch.optim.Adam([mean, rho], 0.02)
    one_hot = F.one_hot(classes, len(COUNTS)).float()[None]
    for _ in range(250):
        noise = torch.randn(16, 32, generator=generator)
        cosines = proxy.mean_cosines(points[None], proxy.mean_directions(mean, F.softplus(rho), noise))
        weights = proxy.sharpened(proxy.assignment(points[None], mean, 0.2))
        if known is not None:
            weights = torch.where(known[None, :, None], one_hot, weights)
        p2e = proxy.proxy_to_embedding(cosines, weights, balanced=balanced)
        loss = p2e + 0.1 * proxy.embedding_to_proxy(cosines, weights)
        if sac:
            anchors, there = proxy.class_anchors(points, classes, len(COUNTS))
            loss = loss + proxy.semantic_anchoring(mean, anchors, there)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return proxy.mean_cosines(mean.detach(), centres)


COUNTS = [2000, 200, 20, 2]
ALL = torch.ones(sum(COUNTS), dtype=torch.bool)


def test_anchored_proxies_find_the_rare_class() -> None:
    for seed in range(3):
        cosines = _learn(None, sac=True, seed=seed)
        assert cosines.argmax(1).tolist() == [0, 1, 2, 3]
        assert float(cosines.diagonal().min()) > 0.7, "a thousand times rarer than the commonest, and found"


def test_without_anchors_and_labels_proxies_swap() -> None:
    orders = [_learn(None, sac=False, seed=seed).argmax(1).tolist() for seed in range(4)]
    assert any(order != [0, 1, 2, 3] for order in orders)


def test_alignment_alone_drowns_the_rare_class_though_all_is_labelled() -> None:
    cosines = _learn(ALL, sac=False, seed=0)
    assert float(cosines[0, 0]) > 0.9
    assert float(cosines[3, 3]) < 0.1, "pushed from the common classes' tokens, hardly drawn to its own"
    assert float(cosines[3, 0]) < -0.9


def test_balanced_alignment_finds_the_rare_class() -> None:
    cosines = _learn(ALL, sac=False, seed=0, balanced=True)
    assert float(cosines.diagonal().min()) > 0.7
