"""Figures of the published definitions, computed once with the papers' own released modules, and what we compute.

They lie in the folder that SEMIALIGN_GOLDEN names (default: ../shared/golden beside the project); without it these
tests are skipped. Every file of a form is tested, whatever its shapes.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

TOLERANCE = 1e-4


def _folder() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "golden"
    return Path(os.environ.get("SEMIALIGN_GOLDEN") or beside)


def _load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as figures:
        return {name: torch.from_numpy(figures[name]) for name in figures}


def _close(ours: Tensor, golden: Tensor) -> bool:
    """Whether the largest absolute difference is at most the tolerance times the largest absolute golden figure."""
    assert ours.shape == golden.shape
    difference = (ours.detach().double() - golden.double()).abs().max()
    return bool(difference <= TOLERANCE * golden.double().abs().max() + 1e-12)


def _params(pattern: str, figures: str) -> Iterator[Any]:
    """Yield (path, figure) for every figure of that form in files of that name; one to skip where there is none."""
    found = False
    for path in sorted(_folder().glob(pattern)):
        with np.load(path) as content:
            for name in content:
                if re.fullmatch(figures, name):
                    found = True
                    yield pytest.param(path, name, id=f"{path.stem}-{name}")
    if not found:
        yield pytest.param(None, "", marks=pytest.mark.skip(reason=f"no {pattern} in {_folder()}"), id="absent")


def test_closeness_can_fail() -> None:
    golden = torch.tensor([0.0, -2.0, 1.0])
    assert _close(golden + 1.9e-4, golden)
    assert not _close(golden + torch.tensor([2.1e-4, 0.0, 0.0]), golden)
    assert not _close(golden * float("nan"), golden)


# --- Gradient-aware losses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "figure"), _params("ga*.npz", r"ga_dice|ga_ce_k[\d.]+_g[\d.]+"))
def test_gradient_aware_losses(path: Path, figure: str) -> None:
    from semialign.losses.gradient_aware import ga_ce, ga_dice

    golden = _load(path)
    logits, labels = golden["logits"].requires_grad_(), golden["labels"].long()
    if figure == "ga_dice":
        loss = ga_dice(logits, labels)
    else:
        keep, gamma = (float(number) for number in re.findall(r"[\d.]+", figure))
        loss = ga_ce(logits, labels, keep=keep, gamma=gamma)
    loss.backward()
    assert logits.grad is not None
    assert _close(loss, golden[figure])
    if f"{figure}_grad" in golden:
        assert _close(logits.grad, golden[f"{figure}_grad"])


# --- DHC's weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "figure"), _params("dhc_weights*.npz", "distdw_initial|distdw|diffdw"))
def test_class_weights(path: Path, figure: str) -> None:
    from semialign.losses.class_weights import DifficultyWeights, DistributionWeights, class_counts

    golden = _load(path)
    classes = len(golden["label_voxel_counts"])
    rare, hard = DistributionWeights(classes), DifficultyWeights(classes)
    rare.seen(golden["label_voxel_counts"])
    if figure == "distdw_initial":
        assert _close(rare.weights, golden[figure])
        return
    ours = []
    for step in range(len(golden[figure])):
        if figure == "distdw":
            weights = rare.next(class_counts(golden["logits_unlabelled"][step].argmax(1), classes))
            rare.keep(weights)
        else:
            weights, state = hard.next(golden["logits_labelled"][step].argmax(1), golden["labels"][step])
            hard.keep(state)
        ours.append(weights)
    assert _close(torch.stack(ours), golden[figure])


# --- SCDL -------------------------------------------------------------------------------------------------------------


def _proxies(golden: dict[str, Tensor]) -> Any:
    from semialign.plugins.class_proxies import ClassProxies

    classes, width = golden["proxy_mean"].shape
    proxies = ClassProxies(
        golden["tokens"].shape[2],
        classes,
        embedding=width,
        samples=4,
        draws=golden["token_noise"].shape[2],
        temperature=0.2,
        dropout=0.0,
        paper_weights=False,
        salt=0,
    )
    state = {f"mlp.{i}.{part}": golden[f"mlp_{part[0]}{i}"] for i in range(3) for part in ("weight", "bias")}
    state |= {"mean": golden["proxy_mean"], "rho": golden["proxy_rho"], "token_sigma": golden["token_sigma"]}
    proxies.load_state_dict(state | {"eval_noise": proxies.eval_noise})
    return proxies


@pytest.mark.parametrize(("path", "figure"), _params("scdl*.npz", "assignment|centre_prior|sampled_tokens|sac"))
def test_class_proxies(path: Path, figure: str) -> None:
    from semialign.losses.proxy import class_anchors, mean_cosines, semantic_anchoring

    golden = _load(path)
    proxies = _proxies(golden)
    embeddings = proxies.embed(golden["tokens"])
    if figure == "assignment":
        ours = proxies.assign(embeddings)
    elif figure == "centre_prior":
        ours = proxies.priors(embeddings, mean_cosines(embeddings, proxies.directions()), ("centre",))
    elif figure == "sampled_tokens":
        ours = proxies.sampled(embeddings, golden["token_noise"])
    else:
        instances = proxies.embed(golden["class_tokens"].mean(1))
        anchors, there = class_anchors(instances, golden["class_token_class"].long(), len(proxies.mean))
        ours = semantic_anchoring(proxies.mean, anchors, there)
    assert _close(ours, golden[figure])


@pytest.mark.parametrize(("path", "figure"), _params("scdl*.npz", "labelled_p2e|unlabelled_p2e"))
def test_alignment_and_its_gradients(path: Path, figure: str) -> None:
    from semialign.losses import proxy

    golden, which = _load(path), figure.removesuffix("_p2e")
    proxies = _proxies(golden)
    embeddings = proxies.embed(golden["tokens"])
    directions = proxy.mean_directions(proxies.mean, proxies.sigma, golden["proxy_noise"])
    cosines = proxy.mean_cosines(embeddings, directions)
    weights = golden["token_class_distribution"]
    if which == "unlabelled":
        weights = proxy.sharpened(proxies.assign(embeddings))
    p2e, e2p = proxy.proxy_to_embedding(cosines, weights), proxy.embedding_to_proxy(cosines, weights)
    (p2e + 0.1 * e2p).backward()
    assert _close(p2e, golden[f"{which}_p2e"])
    assert _close(e2p, golden[f"{which}_e2p"])
    gradient = torch.cat([proxies.mean.grad, proxies.rho.grad], 1)
    assert _close(gradient, golden[f"{which}_grad_proxies"])
