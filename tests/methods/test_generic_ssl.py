"""What is particular to A&D: three decoders on one encoder, where each one's loss comes from, and what follows what."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.class_weights import DifficultyWeights
from semialign.networks.diffusion import clean_map, noised_map, smooth

MIDDLE, EARLY = Progress("train", 60, 100), Progress("train", 10, 100)
Make = Callable[..., Any]


def _step(method: Any, batch: Any, progress: Progress = MIDDLE) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    total, terms = method(batch, progress)
    return total, terms


def test_unlabelled_patches_are_loaded_from_the_start_on(small_method: Make) -> None:
    method = small_method("generic-ssl")
    wanted = [step for step in range(100) if method.wants_unlabelled(Progress("train", step, 100))]
    assert wanted == list(range(30, 100))
    assert small_method("generic-ssl", start=0.0).wants_unlabelled(Progress("train", 0, 100))


def test_weights_of_another_run_begin_with_classes_of_their_own(small_method: Make, small_batch: Make) -> None:
    method = small_method("generic-ssl")
    fresh = method.difficulty.state.clone()
    _step(method, small_batch())
    method.after_step(MIDDLE)
    assert not torch.equal(method.difficulty.state, fresh)
    method.begin_stage("train", 3, None, None)  # a resumed run keeps what it knew
    assert not torch.equal(method.difficulty.state, fresh)
    method.begin_stage("train", 0, None, None)
    assert torch.equal(method.difficulty.state, fresh)


def _dice(logits: Tensor, label: Tensor) -> Tensor:
    seen, p = label >= 0, logits.softmax(1)
    scores = []
    for c in (1, 2):
        q, truth = p[:, c][seen], (label == c)[seen].float()
        scores.append((2 * (q * truth).sum() + 1) / (q.sum() + truth.sum() + 1))
    return 1 - torch.stack(scores).mean()


def _both(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> float:
    return float((F.cross_entropy(logits, label, weight=weight, ignore_index=-1) + _dice(logits, label)).detach())


@pytest.mark.parametrize("dims", [2, 3])
def test_by_hand(small_method: Make, small_batch: Make, dims: int) -> None:
    method = small_method("generic-ssl", dims, weight=0.7, rampup_steps=0, sampling_steps=1)
    batch = small_batch(dims)
    total, terms = _step(method, batch)
    torch.manual_seed(5)
    time, clean = torch.randint(1000, (2,)), clean_map(batch.label_l, 3)
    xi = method.xi(batch.image_l, noised_map(clean, time, torch.randn_like(clean)), time)
    assert terms["supervised diffusion"].item() == pytest.approx(_both(xi, batch.label_l), rel=1e-4)
    weights, _ = DifficultyWeights(3, scale=False).next(xi.argmax(1), batch.label_l)
    psi, theta = method.psi(batch.image_l).logits, method.theta(batch.image_u).logits
    assert terms["supervised weighted"].item() == pytest.approx(_both(psi, batch.label_l, weights), rel=1e-4)
    noise = torch.randn(2, 3, *batch.image_u.shape[2:])
    sampled = method.xi(batch.image_u, noise, torch.tensor([999, 999])).clamp(-1, 1)
    gumbel = -torch.empty_like(sampled).exponential_().log()  # as torch draws it
    votes = smooth((sampled + gumbel).softmax(1)) + method.psi(batch.image_u).logits.softmax(1)
    pseudo = votes.argmax(1)
    assert (pseudo != method.psi(batch.image_u).logits.argmax(1)).float().mean() > 0.02
    assert terms["theta"].item() == pytest.approx(0.7 * _both(theta, pseudo), rel=1e-4)
    assert total.item() == pytest.approx(sum(v.item() for n, v in terms.items() if n != "ramp"), rel=1e-5)


def test_a_perfect_denoiser_outvotes_an_unsure_decoder(small_method: Make, small_batch: Make) -> None:
    method, image = small_method("generic-ssl"), small_batch().image_u
    truth = torch.zeros(2, 16, 16, dtype=torch.int64)
    truth[:, 4:12, 4:12] = 2
    seen: list[int] = []

    class Perfect(nn.Module):
        def forward(self, image: Tensor, noised: Tensor, time: Tensor) -> Tensor:
            seen.append(int(time[0]))
            return clean_map(truth, 3)

    method.xi = Perfect()
    torch.manual_seed(0)
    pseudo = method.pseudo_labels(image, torch.zeros(2, 3, 16, 16))
    assert len(seen) == 10
    agreement = (pseudo == truth).float().mean().item()
    assert agreement > 0.7  # a map of +-1 is a class's logit by 2 under the Gumbel noise, then smoothed


def test_labels_alone_until_the_start(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("generic-ssl", start=0.3), small_batch()
    called: list[int] = []
    method.xi.register_forward_hook(lambda *_: called.append(1))
    _, terms = _step(method, batch, EARLY)
    assert len(called) == 1, "no map is sampled"
    assert "ramp" not in terms
    assert terms["theta"].item() == pytest.approx(_both(method.theta(batch.image_l).logits, batch.label_l), rel=1e-4)


def test_the_encoder_is_one_and_the_decoders_start_alike(small_method: Make) -> None:
    method = small_method("generic-ssl")
    assert method.psi.encoder is method.theta.encoder is method.xi.network.encoder
    for other in (method.psi, method.xi.network):
        ours, theirs = method.theta.state_dict(), other.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert other.classifier is not method.theta.classifier
    plugged = small_method("generic-ssl", plugin="scdl")
    assert plugged.psi.network.encoder is plugged.theta.network.encoder
    assert plugged.psi.scdl is not plugged.theta.scdl


def test_the_third_decoder_follows_the_mean_of_the_others(small_method: Make) -> None:
    method = small_method("generic-ssl", plugin="scdl", ema_decay=0.9)
    torch.manual_seed(0)
    with torch.no_grad():
        for network in (method.psi.network, method.xi.network, method.theta.network):
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
    before = copy.deepcopy(method)
    method.after_step(MIDDLE)
    psi, xi = dict(before.psi.network.named_parameters()), dict(before.xi.network.named_parameters())
    for name, parameter in before.theta.network.named_parameters():
        after = dict(method.theta.network.named_parameters())[name]
        expected = parameter if name.startswith("encoder") else 0.9 * parameter + 0.1 * (psi[name] + xi[name]) / 2
        torch.testing.assert_close(after, expected)
    for part in ("psi", "xi"):
        pairs = zip(getattr(method, part).parameters(), getattr(before, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_sampling_leaves_modes_and_statistics_alone(small_batch: Make) -> None:
    from semialign.methods.base import build_method
    from semialign.networks.vnet import VNet

    method: Any = build_method("generic-ssl", lambda: VNet(1, 3, dims=2, widths=(2, 4, 4, 4, 4), dropout=True), {}, {})
    image = torch.randn(2, 1, 32, 32)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.pseudo_labels(image, torch.zeros(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(module.training for module in method.modules())


@pytest.mark.parametrize("steps", [0, 1001])
def test_wrong_settings_are_one_line(small_method: Make, steps: int) -> None:
    with pytest.raises(UserError, match=f"sampling_steps {steps}: must be from 1 to 1000"):
        small_method("generic-ssl", sampling_steps=steps)
