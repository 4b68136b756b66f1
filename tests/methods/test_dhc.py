"""What is particular to DHC: each network's own weights, where they come from, and when they are kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.segmentation import dice_ce
from semialign.training.checkpoint import load_checkpoint

MIDDLE = Progress("train", 60, 100)
Make = Callable[..., Any]


def _step(method: Any, batch: Any, progress: Progress = MIDDLE) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    total, terms = method(batch, progress)
    return total, terms


class Counted:
    """Stands for a stream whose labels hold these voxels."""

    def label_voxels(self, num_classes: int) -> Tensor:
        return torch.tensor([900, 90, 9])


def _supervised(logits: Tensor, label: Tensor, weights: Tensor) -> float:
    """Weighted cross-entropy and ``1 -`` the mean weighted foreground Dice, class by class."""
    seen, p = label >= 0, logits.softmax(1)
    dices = []
    for c in (1, 2):
        q, truth = p[:, c][seen], (label == c)[seen].float()
        dices.append(weights[c] * (2 * (q * truth).sum() + 1) / (q.sum() + truth.sum() + 1))
    cross = F.cross_entropy(logits, label, weight=weights, ignore_index=-1)
    return (cross + 1 - sum(dices) / 2).item()


@pytest.mark.parametrize("dims", [2, 3])
def test_by_hand(small_method: Make, small_batch: Make, dims: int, tmp_path: Path) -> None:
    method, batch = small_method("dhc", dims, weight=0.3, rampup_steps=0), small_batch(dims)
    method.begin_stage("train", 0, Counted(), tmp_path)
    total, terms = _step(method, batch)
    image = torch.cat([batch.image_l, batch.image_u])
    logits = [method.first(image).logits, method.second(image).logits]
    guess, seen = logits[0][:2].argmax(1), batch.label_l >= 0
    hard = []
    for c in range(3):
        own, truth = (guess == c)[seen], (batch.label_l == c)[seen]
        dice = float(2 * (own & truth).sum() / (own.sum() + truth.sum()))
        learn = 0.02 * (dice - 1e-8) * math.log(dice / 1e-8)
        hard.append((1e-8 / (learn + 1e-8)) ** 0.2 * (0.98 + 0.02 * (1 - dice)))
    hard = torch.tensor(hard) * 3 / max(hard)
    pseudo = torch.bincount(logits[1][2:].argmax(1).flatten(), minlength=3)
    values = (pseudo.max().double() / pseudo).log()
    rare = (0.99 * torch.tensor([0, 1.5, 3.0]) + 0.01 * 3 * values / values.max()).float()
    for name, its, weights in zip(("first", "second"), logits, (hard, rare), strict=True):
        expected = _supervised(its[:2], batch.label_l, weights)
        assert terms[f"supervised {name}"].item() == pytest.approx(expected, rel=1e-4)
    # On labelled and unlabelled patches together, where they are annotated.
    masked = [torch.cat([torch.where(seen, its[:2].argmax(1), -1), its[2:].argmax(1)]) for its in logits]
    cross = F.cross_entropy(logits[0], masked[1], weight=hard, ignore_index=-1)
    cross = cross + F.cross_entropy(logits[1], masked[0], weight=rare, ignore_index=-1)
    assert terms["cross"].item() == pytest.approx(0.3 * cross.item(), rel=1e-4)
    assert total.item() == pytest.approx(sum(terms[n].item() for n in terms if n != "ramp"), rel=1e-5)


def test_weights_are_kept_after_the_step(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("dhc"), small_batch()
    before = method.difficulty.state.clone()
    _step(method, batch)
    assert torch.equal(method.difficulty.state, before)
    method.after_step(MIDDLE)
    assert not torch.equal(method.difficulty.state, before)
    assert method.distribution.started
    kept = {name: value.clone() for name, value in method.state_dict().items()}
    method.after_step(MIDDLE)
    assert all(torch.equal(value, kept[name]) for name, value in method.state_dict().items())


def test_learnt_watches_a_loss_of_a_common_scale(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("dhc", learnt=0.15), small_batch()
    # Weights above 1 would take the method's own loss below 0, and the labels for learnt.
    method.weights = (torch.full((3,), 5.0),) * 2
    logits = [method.first(batch.image_l).logits, method.second(batch.image_l).logits]
    own = torch.stack([method.supervised_loss(one, batch.label_l, which) for which, one in enumerate(logits)])
    expected = sum(dice_ce(one, batch.label_l) for one in logits) / 2
    torch.testing.assert_close(method.watched(logits, batch.label_l, list(own)), expected)
    assert abs(own.mean() - expected) > 0.1


def test_weights_of_another_run_begin_with_classes_of_their_own(
    small_method: Make, small_batch: Make, tmp_path: Path
) -> None:
    method = small_method("dhc")
    fresh = method.difficulty.state.clone()
    _step(method, small_batch())
    method.after_step(MIDDLE)
    method.begin_stage("train", 3, Counted(), tmp_path)  # a resumed run keeps what it knew
    assert not torch.equal(method.difficulty.state, fresh)
    method.begin_stage("train", 0, Counted(), tmp_path)
    assert torch.equal(method.difficulty.state, fresh)


def test_the_rare_weights_wait_for_pseudo_labels(small_method: Make, small_batch: Make, tmp_path: Path) -> None:
    method = small_method("dhc", start=0.5)
    method.begin_stage("train", 0, Counted(), tmp_path)
    _step(method, small_batch(), Progress("train", 10, 100))
    method.after_step(Progress("train", 10, 100))
    torch.testing.assert_close(method.distribution.weights, torch.tensor([0.0, 1.5, 3.0]))


def test_both_start_by_kaiming(small_method: Make) -> None:
    first, second = (getattr(small_method("dhc"), name).encoder[1][0][0].weight for name in ("first", "second"))
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(second.std().item(), rel=0.2)


def test_a_run_starts_from_the_labels_of_its_labelled_cases(
    small_train: Callable[..., Path], tiny_2d: Any, tmp_path: Path
) -> None:
    from semialign.losses.class_weights import rarity

    case = type("Case", (), {"method": "dhc", "plugin": None, "dims": 2})
    run = small_train(case, tmp_path / "run", steps=1, start=1.0, validations=0)
    prepared = tiny_2d.prepared
    voxels = torch.zeros(2)
    for name in prepared.split.labelled:
        label = torch.from_numpy(prepared.store.label(name)[:].astype(int))
        voxels += torch.stack([(label == c).sum() for c in range(2)])
    kept = load_checkpoint(run / "last.pt")["model"]["distribution.weights"]
    torch.testing.assert_close(kept, rarity(voxels.double()))


def test_its_networks_take_no_turns(small_method: Make) -> None:
    with pytest.raises(UserError, match="dhc: apart must be false"):
        small_method("dhc", apart=True)
