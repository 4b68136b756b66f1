"""What is particular to GA-CPS, and the supervised method with its losses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.gradient_aware import ga_ce, ga_dice, kept_at

MIDDLE = Progress("train", 60, 100)
Make = Callable[..., Any]


def _step(method: Any, batch: Any, progress: Progress = MIDDLE) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    total, terms = method(batch, progress)
    return total, terms


def _masked(pseudo: Tensor, label: Tensor) -> Tensor:
    """Pseudo-labels of labelled and unlabelled patches: nothing where a labelled one is not annotated."""
    return torch.cat([torch.where(label < 0, -1, pseudo[: len(label)]), pseudo[len(label) :]])


def test_defaults_are_the_papers(small_method: Make) -> None:
    own = small_method("ga-cps").settings
    assert (own.weight, own.on_labelled, own.strong) == (0.1, True, False)
    assert (own.keep_labelled, own.keep_pseudo, own.gamma) == (10.0, 100.0, 0.5)
    assert own.keep_start == 100.0, "ours: the worst voxels alone come last"
    assert own.start == small_method("cps").settings.start


@pytest.mark.parametrize("dims", [2, 3])
def test_by_hand(small_method: Make, small_batch: Make, dims: int) -> None:
    method = small_method("ga-cps", dims, weight=0.3, rampup_steps=0, keep_labelled=20, keep_pseudo=60, gamma=0.4)
    batch, keep = small_batch(dims), kept_at(MIDDLE, 100, 20)
    total, terms = _step(method, batch)
    image = torch.cat([batch.image_l, batch.image_u])
    first, second = method.first(image).logits, method.second(image).logits
    for name, logits in (("first", first), ("second", second)):
        expected = ga_ce(logits[:2], batch.label_l, keep=keep, gamma=0.4) + ga_dice(logits[:2], batch.label_l)
        assert terms[f"supervised {name}"].item() == pytest.approx(expected.item(), rel=1e-5)
    # One cross-entropy of labelled and unlabelled patches together: the worst voxels of all of them.
    pseudo = [_masked(logits.argmax(1), batch.label_l) for logits in (first, second)]
    own = ga_ce(first, pseudo[1], keep=60, gamma=0.4)
    cross = own + ga_ce(second, pseudo[0], keep=60, gamma=0.4)
    assert terms["cross"].item() == pytest.approx(0.3 * cross.item(), rel=1e-5)
    assert total.item() == pytest.approx(sum(terms[n].item() for n in terms if n != "ramp"), rel=1e-5)
    # Each network learns from its own half alone: the other's prediction is a hard label.
    total.backward()
    mine = 0.3 * own + ga_ce(first[:2], batch.label_l, keep=keep, gamma=0.4) + ga_dice(first[:2], batch.label_l)
    expected = torch.autograd.grad(mine, list(method.first.parameters()))
    for gradient, parameter in zip(expected, method.first.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_unlabelled_patches_alone_where_asked_for(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("ga-cps", on_labelled=False, rampup_steps=0), small_batch()
    _, terms = _step(method, batch)
    first, second = method.first(batch.image_u).logits, method.second(batch.image_u).logits
    cross = ga_ce(first, second.argmax(1), keep=100, gamma=0.5) + ga_ce(second, first.argmax(1), keep=100, gamma=0.5)
    assert terms["cross"].item() == pytest.approx(0.1 * cross.item(), rel=1e-5)
    assert "cross" not in _step(method, small_batch(unlabelled=0))[1]


def test_no_cross_supervision_before_the_start(small_method: Make, small_batch: Make) -> None:
    method = small_method("ga-cps", start=0.3)
    assert "cross" not in _step(method, small_batch(), Progress("train", 29, 100))[1]
    assert "cross" in _step(method, small_batch(), Progress("train", 30, 100))[1]


def test_networks_start_and_predict_as_those_of_cps(small_method: Make, small_batch: Make) -> None:
    plain, aware = small_method("cps"), small_method("ga-cps")
    ours, theirs = aware.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    image = small_batch().image_l
    assert torch.equal(plain.predict(image), aware.predict(image))


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("ga-cps", {"keep_labelled": 0}, "keep_labelled 0: must be a percentage above 0, at most 100"),
        ("ga-cps", {"keep_start": 0}, "keep_start 0: must be a percentage"),
        ("ga-cps", {"keep_pseudo": 120}, "keep_pseudo 120: must be a percentage"),
        ("ga-cps", {"gamma": -0.1}, "gamma -0.1: must be from 0 to 1"),
        ("ga-cps", {"keep": 10}, "ga-cps: unknown key 'keep'; did you mean 'keep_"),
        ("supervised", {"loss": "dice_ce"}, "unknown loss 'dice_ce'; did you mean 'dice-ce'?"),
        ("supervised", {"keep": 0}, "keep 0: must be a percentage"),
    ],
)
def test_wrong_settings_are_one_line(small_method: Make, method: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        small_method(method, **settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_supervised_with_the_gradient_aware_losses(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("supervised", loss="ga", keep=30, gamma=0.2), small_batch()
    total, terms = _step(method, batch)
    logits = method.network(batch.image_l).logits
    keep = kept_at(MIDDLE, 100, 30)
    expected = ga_ce(logits, batch.label_l, keep=keep, gamma=0.2) + ga_dice(logits, batch.label_l)
    assert set(terms) == {"supervised"}
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert total.item() != pytest.approx(_step(small_method("supervised"), batch)[0].item(), rel=0.05)
