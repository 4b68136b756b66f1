"""What is particular to MagicNet and GA-MagicNet: three views of a scan, cubes' places, blended pseudo-labels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.cubes import exchanged, padded, random_order, to_cubes
from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.dice import soft_dice
from semialign.losses.gradient_aware import ga_ce, ga_dice
from semialign.losses.segmentation import cross_entropy

LATE = Progress("train", 120, 200)
Make = Callable[..., Any]


def _step(method: Any, batch: Any, progress: Progress = LATE) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    total, terms = method(batch, progress)
    return total, terms


def _dice(logits: Tensor, label: Tensor) -> Tensor:
    return soft_dice(logits.softmax(1), label, squared=True, smooth=1e-10)


def _ga_ce(logits: Tensor, label: Tensor) -> Tensor:
    return ga_ce(logits, label, keep=20.0, gamma=0.4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["magicnet", "ga-magicnet"])
def test_by_hand(small_method: Make, small_batch: Make, name: str, dims: int) -> None:
    own = {"keep_labelled": 20, "keep_start": 20, "gamma": 0.4} if name == "ga-magicnet" else {}
    settings = {"weight": 0.7, "rampup_steps": 0, "location_weight": 0.3, "noise": 0.0}
    method, batch = small_method(name, dims, **settings, **own), small_batch(dims)
    overlap, entropy = (ga_dice, _ga_ce) if own else (_dice, cross_entropy)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.2)
    method.frequency = torch.tensor([1.0, 0.3, 0.6])
    total, terms = _step(method, batch)
    image, net, counts = torch.cat([batch.image_l, batch.image_u]), method.network, (2,) * dims
    half = image.shape[-1] // 2

    def alone(corner: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        part = image[(slice(None), slice(None), *(slice(c, c + half) for c in corner))]
        pyramid = net.encode(part)
        return net.decode(pyramid), pyramid[-1]

    corners = torch.cartesian_prod(*[torch.tensor([0, half])] * dims).tolist()
    features, deep = torch.zeros(4, net.feature_width, *image.shape[2:]), []
    for corner in corners:
        seen, bottom = alone(corner)
        features[(slice(None), slice(None), *(slice(c, c + half) for c in corner))] = seen
        deep.append(bottom)
    within = net.head(features)
    torch.manual_seed(5)
    order = random_order(4, 2**dims, image.device)
    mixed = net.decode(net.encode(exchanged(image, counts, order)))
    recovered = net.head(exchanged(mixed, counts, order.argsort(0)))
    whole, label = net(image).logits, batch.label_l
    parts = [entropy(whole[:2], label), *(overlap(logits[:2], label) for logits in (whole, recovered, within))]
    assert terms["supervised"].item() == pytest.approx(sum(p.item() for p in parts) / 4, rel=1e-4)
    teacher = method.teacher(batch.image_u).logits
    share = torch.tensor([1.0, 0.3, 0.6])[teacher.argmax(1)][:, None]
    # Cubes of the same unlabelled images: the last two.
    pseudo = ((1 - share) * teacher + share * within[2:]).argmax(1)
    assert not torch.equal(pseudo, teacher.argmax(1))
    assert not torch.equal(pseudo, ((1 - share) * teacher + share * within[:2]).argmax(1))
    assert terms["pseudo"].item() == pytest.approx(0.7 * overlap(recovered[2:], pseudo).item(), rel=1e-4)
    assert terms["blended"].item() == pytest.approx(share.mean().item(), rel=1e-5)
    # Rows sample by sample, cube by cube.
    pool = F.adaptive_avg_pool2d if dims == 2 else F.adaptive_avg_pool3d
    rows = torch.stack([pool(bottom, 2).flatten(1) for bottom in deep], 1).flatten(0, 1)
    places = torch.tensor([*range(2**dims)] * 4)
    told = F.cross_entropy(method.location(rows), places)
    assert terms["location"].item() == pytest.approx(0.3 * told.item(), rel=1e-4)
    assert total.item() == pytest.approx(sum(terms[n].item() for n in ("supervised", "location", "pseudo")), rel=1e-5)


def test_a_pointwise_network_is_recovered_exactly(small_method: Make, small_batch: Make) -> None:
    method = small_method("magicnet")
    point = nn.Conv2d(1, 4, 1)
    method.network.encode, method.network.decode = lambda image: [image], lambda pyramid, priors=None: point(pyramid[0])
    image = small_batch().image_l
    expected = method.network.head(point(image))
    torch.testing.assert_close(method.across(image, (2, 2)), expected)


def test_blended_pseudo_labels_see_no_labelled_image(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("magicnet", noise=0.0), small_batch()
    method.frequency = torch.ones(3)
    seen = []
    for images in (batch.image_l, batch.image_l + 3):
        torch.manual_seed(0)
        method(batch._replace(image_l=images), LATE)
        seen.append(method._seen)
    assert torch.equal(*seen)
    method(batch._replace(image_u=batch.image_u + 3), LATE)
    assert not torch.equal(method._seen, seen[0])


def test_unlabelled_patches_pass_whole_for_a_plug_in_alone(small_method: Make, small_batch: Make) -> None:
    for plugin, whole in ((None, 2), ("scdl", 5)):
        method, seen = small_method("magicnet", plugin=plugin), list[int]()
        method.network.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(len(args[0])))
        step = method.losses(small_batch(labelled=2, unlabelled=3), LATE)
        assert seen == [whole]
        assert len(step.views[0].image) == len(step.views[0].label) == whole


def test_nothing_is_blended_at_first(small_method: Make, small_batch: Make) -> None:
    for settings, step, blended in (({}, 99, False), ({}, 100, True), ({"blend": False}, 150, False)):
        method = small_method("magicnet", **settings)
        method.frequency = torch.ones(3)
        assert bool(_step(method, small_batch(), Progress("train", step, 200))[1]["blended"] > 0) is blended


def test_frequencies_are_those_of_the_last_window(small_method: Make) -> None:
    method = small_method("magicnet", window=2)
    for step, seen in enumerate([[9, 1, 0], [3, 1, 0], [8, 4, 4], None]):
        method._seen = None if seen is None else torch.tensor(seen, dtype=torch.float32)
        method.after_step(Progress("train", step, 10))
        if step == 1:
            torch.testing.assert_close(method.frequency, torch.tensor([1, 2 / 12, 0]))
    torch.testing.assert_close(method.frequency, torch.tensor([1.0, 0.5, 0.5]))
    assert not method.counts.any()


@pytest.mark.parametrize("side", [6, 8, 16])
def test_cubes_that_the_strides_do_not_divide(small_method: Make, small_batch: Make, side: int) -> None:
    method, batch = small_method("magicnet"), small_batch()
    names = ("image_l", "label_l", "image_u")
    small = batch._replace(**{name: getattr(batch, name)[..., :2, :side] for name in names})
    total, _ = _step(method, small)
    total.backward()
    assert total.isfinite()
    cubes = to_cubes(small.image_l, (2, 3 if side == 6 else 2))
    assert min(n % 2 for n in padded(cubes.flatten(0, 1), (2, 2)).shape[2:]) == 0


def test_patches_that_cannot_be_cut_are_refused_in_one_line(small_method: Make, small_batch: Make) -> None:
    batch = small_batch()
    odd = batch._replace(image_l=batch.image_l[..., :7, :5], label_l=batch.label_l[..., :7, :5])
    with pytest.raises(UserError, match="cannot be cut into at most 3 cubes"):
        small_method("magicnet")(odd._replace(image_u=batch.image_u[:0, ..., :7, :5]), LATE)


@pytest.mark.parametrize("settings", [{"cubes": 1}, {"window": 0}, {"predict_with": "both"}])
def test_wrong_settings_are_one_line(small_method: Make, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(settings)))):
        small_method("magicnet", **settings)
