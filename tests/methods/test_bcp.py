"""What is particular to BCP: which voxel comes from where, both regions' losses, and the change of stage."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semialign.common.components import largest_components
from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.training.checkpoint import load_checkpoint

MIDDLE, BEFORE = Progress("train", 60, 100), Progress("pretrain", 3, 20)
Make = Callable[..., Any]


def _seen(method: Any, batch: Any, progress: Progress) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """The view of a step, its total and its terms."""
    torch.manual_seed(5)
    step = method.losses(batch, progress)
    torch.manual_seed(5)
    total, terms = method(batch, progress)
    return step.views[0], total, terms


def _by_hand(logits: Tensor, target: Tensor, *, per_sample: bool) -> float:
    """``(CE + Dice) / 2`` where the target is not -1, by loops over samples and classes in float64."""
    p, g = logits.detach().double().softmax(1).numpy(), target.numpy()
    seen = g >= 0
    own = np.take_along_axis(p, np.maximum(g, 0)[:, None], 1)[:, 0]
    cross = -np.log(own[seen]).mean()
    samples = [[n] for n in range(len(g))] if per_sample else [list(range(len(g)))]
    scores = []
    for which in samples:
        for c in range(p.shape[1]):
            q, truth, inside = p[which, c], g[which] == c, seen[which]
            power, smooth = (1, 1e-5) if per_sample else (2, 1e-10)
            below = (q[inside] ** power).sum() + truth.sum()
            scores.append((2 * q[truth].sum() + smooth) / (below + smooth))
    return float(cross + 1 - np.mean(scores)) / 2


@pytest.mark.parametrize(("unlabelled", "asked"), [(1, 1), (2, 2), (6, 4)])
def test_no_patch_is_labelled_twice_nor_loaded_for_nothing(
    small_method: Make, small_batch: Make, unlabelled: int, asked: int
) -> None:
    method, seen = small_method("bcp"), list[int]()
    assert method.joint_batch("train", 3, unlabelled) == (3, asked)
    method.teacher.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    view, _, _ = _seen(method, small_batch(labelled=3, unlabelled=unlabelled), MIDDLE)
    assert seen == [min(unlabelled, 4)] * 2  # once for each of the two calls
    assert len(view.image) == 4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dice", ["per-sample", "batch"])
def test_both_ways_by_hand(small_method: Make, small_batch: Make, dims: int, dice: str) -> None:
    method, batch = small_method("bcp", dims, weight=0.3, dice=dice), small_batch(dims, labelled=4, unlabelled=4)
    view, total, terms = _seen(method, batch, MIDDLE)
    pseudo = largest_components(method.teacher(batch.image_u).logits.argmax(1), 3)
    logits = method.network(view.image).logits
    side = round(view.image.shape[-1] * 2 / 3)
    label, other = torch.full_like(batch.label_l, -1), torch.full_like(batch.label_l, -1)
    for k in range(4):
        own = (view.image[k] == batch.image_l[k]).all(0)
        assert torch.equal(view.image[k], torch.where(own, batch.image_l[k], batch.image_u[k]))
        # Labelled inside unlabelled in the first two, unlabelled inside labelled in the others.
        assert int(own.sum() if k < 2 else (~own).sum()) == side**dims
        label[k][own], other[k][~own] = batch.label_l[k][own], pseudo[k][~own]
    assert torch.equal(view.label, label)
    per_sample = dice == "per-sample"
    for name, factor, target in (("supervised", 1.0, label), ("pseudo", 0.3, other)):
        expected = sum(_by_hand(logits[h], target[h], per_sample=per_sample) for h in (slice(2), slice(2, None)))
        assert terms[name].item() == pytest.approx(factor * expected, rel=1e-5)
    assert total.item() == pytest.approx(terms["supervised"].item() + terms["pseudo"].item(), rel=1e-6)
    assert terms["foreground"].item() == pytest.approx((pseudo > 0).float().mean().item())


def test_the_first_stage_by_hand(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("bcp"), small_batch(labelled=3)
    view, total, terms = _seen(method, batch, BEFORE)
    for k in range(3):
        own = (view.image[k] == batch.image_l[k]).all(0)
        assert int((~own).sum()) == 11**2
        assert torch.equal(view.image[k], torch.where(own, batch.image_l[k], batch.image_l[k - 1]))
        assert torch.equal(view.label[k], torch.where(own, batch.label_l[k], batch.label_l[k - 1]))
    expected = _by_hand(method.network(view.image).logits, view.label, per_sample=True)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert set(terms) == {"supervised"}
    assert not method.stage_settings("pretrain").uses_unlabelled
    assert sum(method.stage_settings(stage).share for stage in method.stages) == pytest.approx(1)


@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (1, 3), (3, 1), (3, 2), (4, 1)])
def test_few_patches_of_a_kind(small_method: Make, small_batch: Make, labelled: int, unlabelled: int) -> None:
    batch = small_batch(labelled=labelled, unlabelled=unlabelled)
    view, total, _ = _seen(small_method("bcp"), batch, MIDDLE)
    assert total.isfinite()
    assert len(view.image) == 2 * math.ceil(labelled / 2)
    shown = {n for n in range(labelled) for mixed in view.image if (mixed == batch.image_l[n]).any()}
    assert shown == set(range(labelled)), "every labelled patch is used"


def test_only_the_largest_component_of_a_class_teaches() -> None:
    label = torch.zeros(2, 9, 9, dtype=torch.int64)
    label[0, :2, :2] = label[0, 5:, 5:] = 1
    label[0, 0, 8] = label[0, 2, 4:6] = 2
    label[1, 4, 4] = 2
    expected = label.clone()
    expected[0, :2, :2] = expected[0, 0, 8] = 0
    kept = label.clone()
    assert torch.equal(largest_components(label, 3), expected)
    assert torch.equal(label, kept)
    assert largest_components(label[:0], 3).shape == (0, 9, 9)


def test_the_teacher_is_the_student_until_the_second_stage(small_method: Make) -> None:
    method = small_method("bcp", ema_decay=0.9)
    with torch.no_grad():
        method.network.classifier.weight.add_(1.0)
    method.after_step(BEFORE)
    assert torch.equal(method.teacher.classifier.weight, method.network.classifier.weight)
    before = method.teacher.classifier.weight.clone()
    with torch.no_grad():
        method.network.classifier.weight.add_(1.0)
    method.after_step(MIDDLE)
    torch.testing.assert_close(method.teacher.classifier.weight, before + 0.1)


@pytest.mark.parametrize("settings", [{"pretrain": 1.0}, {"cuboid": 0}, {"dice": "la"}, {"predict_with": "both"}])
def test_wrong_settings_are_one_line(small_method: Make, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(settings)))):
        small_method("bcp", **settings)


@pytest.mark.parametrize("stop", [3, 4])
def test_resumes_across_the_change_of_stage(
    small_train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    from semialign.training.loop import Loop

    class Stopped(BaseException):
        pass

    case = type("Case", (), {"method": "bcp", "plugin": None, "dims": 2})
    steps = {"steps": 6, "pretrain": 0.5, "checkpoint_steps": 1, "log_steps": 1, "validations": 2}
    whole = load_checkpoint(small_train(case, tmp_path / "whole", **steps) / "last.pt")
    save = Loop._save

    def saved(self: Loop, name: str, *rest: Any) -> None:
        save(self, name, *rest)
        if name == "last.pt" and self.place.steps_done == stop:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save", saved)
        with pytest.raises(Stopped):
            small_train(case, tmp_path / "run", **steps)
    place = load_checkpoint(tmp_path / "run" / "last.pt")["place"]
    assert (place["stage"], place["step"]) == (("pretrain", 3) if stop == 3 else ("train", 1))
    again = load_checkpoint(small_train(case, tmp_path / "run", resume=True, **steps) / "last.pt")
    assert again["place"]["steps_done"] == whole["place"]["steps_done"] == 6
    assert all(torch.equal(value, whole["model"][name]) for name, value in again["model"].items())
    assert str(again["optimisers"]) == str(whole["optimisers"])
    rows = [(tmp_path / run / "validation.csv").read_text().splitlines() for run in ("whole", "run")]
    assert [line.split(",")[0] for line in rows[0]] == ["step", "3", "6"]
    assert [line.split(",")[2:] for line in rows[0]] == [line.split(",")[2:] for line in rows[1]]
