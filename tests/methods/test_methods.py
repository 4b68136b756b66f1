"""What every method must keep, whatever it does, over the registry; and each one's formula worked out by hand."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import build_method, make_optimiser, method_class, plugin_class, require_network
from semialign.methods.mean_teacher import noisy
from semialign.training.checkpoint import load_checkpoint

MIDDLE = Progress("train", 60, 100)
CLASSIC = {"consistency": "squared-error", "start": 0.0, "mix": 0.0}
Make = Callable[..., Any]


def _method(case: Any, small_method: Make, **settings: Any) -> Any:
    """Return the method in its last stage, where what the stage does not train is frozen, as the loop does it."""
    method = small_method(case.method, case.dims, plugin=case.plugin, **settings)
    learning = method.stage_settings(method.stages[-1]).parameters
    for name, parameter in method.named_parameters():
        if learning is not None and not name.startswith(learning):
            parameter.requires_grad_(False)
    return method


def _step(method: Any, batch: Any, progress: Progress = MIDDLE, seed: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    total, terms = method(batch, progress._replace(stage=method.stages[-1]))
    return total, terms


def _learning(method: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


# --- Every method -----------------------------------------------------------------------------------------------------


def test_total_is_the_sum_of_the_terms(case: Any, small_method: Make, small_batch: Make) -> None:
    method, batch = _method(case, small_method), small_batch(case.dims)
    torch.manual_seed(5)
    step = method.losses(batch, MIDDLE._replace(stage=method.stages[-1]))
    total, terms = _step(method, batch)
    assert total.shape == ()
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert set(step.losses) | set(step.log) <= set(terms)
    assert all(value.shape == () and not value.requires_grad for value in terms.values())
    logged = sum(float(value) for name, value in terms.items() if name not in step.log)
    assert total.item() == pytest.approx(logged, rel=1e-5)


def test_every_learning_weight_gets_a_gradient_and_no_other(case: Any, small_method: Make, small_batch: Make) -> None:
    # Plain data-parallel training waits for ever for a weight that gets none.
    for unlabelled in (2, 0):
        method = _method(case, small_method)
        _step(method, small_batch(case.dims, unlabelled=unlabelled))[0].backward()
        for name, parameter in method.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_a_step_is_deterministic(case: Any, small_method: Make, small_batch: Make) -> None:
    seen = []
    for _ in range(2):
        method = _method(case, small_method)
        total, _ = _step(method, small_batch(case.dims))
        total.backward()
        seen.append([total, *(p.grad for p in _learning(method).values())])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_a_step_changes_what_learns_and_nothing_else(case: Any, small_method: Make, small_batch: Make) -> None:
    from semialign.config import TrainingSettings

    method = _method(case, small_method)
    with torch.no_grad():
        for parameter in _learning(method).values():
            if not case.plugin and not parameter.any():
                parameter.add_(0.01)  # a layer that starts at zero stops the gradient of all that lies before it
    before = copy.deepcopy(method.state_dict())
    (optimiser,) = method.optimisers(method.stages[-1], TrainingSettings(learning_rate=0.1, optimiser="sgd"))
    _step(method, small_batch(case.dims))[0].backward()
    optimiser.step()
    learning = _learning(method)
    networks = {name.split(".")[0] for name in learning}
    learns = {id(parameter) for parameter in learning.values()}  # networks may share weights under several names
    statistics = {name for name, _ in method.named_buffers() if name.split(".")[0] in networks}  # these may move
    statistics |= {"fusion.loss"}  # how well SemiGDA's outputs fit the labels so far, of which the prediction is mixed
    for name, value in method.state_dict(keep_vars=True).items():
        if name not in statistics:
            assert torch.equal(value, before[name]) == (id(value) not in learns), name


def test_zero_unlabelled(case: Any, small_method: Make, small_batch: Make) -> None:
    method = _method(case, small_method)
    total, _ = _step(method, small_batch(case.dims, unlabelled=0))
    assert total.isfinite()
    total.backward()
    method.after_step(MIDDLE)
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_nothing_annotated_stays_finite(case: Any, small_method: Make, small_batch: Make) -> None:
    method, batch = _method(case, small_method), small_batch(case.dims)
    total, _ = _step(method, batch._replace(label_l=torch.full_like(batch.label_l, -1)))
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in _learning(method).values())


def test_ignored_voxels_teach_nothing(case: Any, small_method: Make, small_batch: Make) -> None:
    if case.plugin:
        pytest.skip("a plug-in's loss looks at tokens, not voxels; its own tests cover it")
    if case.method == "semigda":
        pytest.skip("has no classifier, and losses of latents, which have no voxels; its own tests cover its Dice")
    method, batch = _method(case, small_method), small_batch(case.dims, unlabelled=0)
    logits: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            logits.append(output)

    for module in method.modules():
        if hasattr(module, "classifier"):
            module.classifier.register_forward_hook(keep)
    step = method.losses(batch, MIDDLE)
    sum(step.losses.values()).backward()
    label = step.views[0].label  # a method may mix labelled patches with one another
    assert logits
    for output in logits:
        assert output.grad is not None
        gradient = output.grad.movedim(1, -1)
        assert not gradient[label < 0].any()
        assert gradient[label >= 0].any(-1).all()


def test_views_are_what_plugins_need(case: Any, small_method: Make, small_batch: Make) -> None:
    method, batch = _method(case, small_method), small_batch(case.dims)
    views = method.losses(batch, MIDDLE._replace(stage=method.stages[-1])).views
    assert bool(views) == method.takes_plugins
    assert len({view.name for view in views}) == len(views)
    for view in views:
        require_network(view.network)
        assert view.label.shape == (len(view.image), *view.image.shape[2:])
        assert view.label.dtype == torch.int64
        assert view.output.logits.shape == (len(view.image), 3, *view.image.shape[2:])
        assert view.output.logits.requires_grad
        assert torch.allclose(view.network(view.image).logits, view.output.logits, atol=1e-5)
        assert (view.label[len(batch.image_l) :] == -1).all(), "no label of an unlabelled patch is shown"


def test_predicts_probabilities_that_repeat(case: Any, small_method: Make, small_batch: Make) -> None:
    method = _method(case, small_method).eval()
    image = small_batch(case.dims).image_l
    kept = image.clone()
    with torch.inference_mode():
        first = method.predict(image)
        torch.rand(5)
        again = method.predict(image)
        alone = torch.cat([method.predict(image[i : i + 1]) for i in range(2)])
    assert first.shape == (2, 3, *image.shape[2:])
    assert torch.allclose(first.sum(1), torch.ones_like(first[:, 0]), atol=1e-5)
    assert (first >= 0).all()
    assert torch.equal(first, again)
    assert torch.allclose(first, alone, atol=1e-5)
    assert torch.equal(image, kept)


def test_all_state_is_in_the_state_dict(case: Any, small_method: Make, small_batch: Make) -> None:
    from semialign.config import TrainingSettings

    method, batch = _method(case, small_method), small_batch(case.dims)
    (optimiser,) = method.optimisers(method.stages[-1], TrainingSettings(learning_rate=0.1, optimiser="sgd"))
    for step in range(3):
        progress = Progress("train", step, 10)
        optimiser.zero_grad()
        _step(method, batch, progress, seed=10 + step)[0].backward()  # a seed that nothing else here has, as in a run
        optimiser.step()
        method.after_step(progress)
    other = _method(case, small_method, seed=1)
    assert not torch.equal(other.predict(batch.image_l), method.predict(batch.image_l))
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predict(batch.image_l), method.predict(batch.image_l))
    assert torch.equal(_step(other, batch)[0], _step(method, batch)[0])


def test_autocast_reaches_the_convolutions(case: Any, small_method: Make, small_batch: Make) -> None:
    # A method's step called by any other name than the module itself would train in float32 without a word.
    from lightning_fabric import Fabric

    from semialign.config import TrainingSettings

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    method = _method(case, small_method)
    optimisers = method.optimisers(method.stages[-1], TrainingSettings(learning_rate=0.1))
    wrapped, *_ = fabric.setup(method, *optimisers)
    seen: dict[str, torch.dtype] = {}
    for name, module in method.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    total, terms = _step(wrapped, small_batch(case.dims))
    assert seen
    assert set(seen.values()) == {torch.bfloat16}
    assert total.dtype == torch.float32
    assert all(value.isfinite().all() for value in (total, *terms.values()))
    fabric.backward(total)
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in _learning(method).values())
    exact, _ = _step(_method(case, small_method), small_batch(case.dims))
    assert total.item() == pytest.approx(exact.item(), rel=0.05)


def test_unknown_names_are_one_line(small_method: Make) -> None:
    with pytest.raises(UserError, match="method 'mean-techer'; did you mean 'mean-teacher'"):
        method_class("mean-techer")
    with pytest.raises(UserError, match="plug-in 'sdcl'"):
        plugin_class("sdcl")
    with pytest.raises(UserError, match="cps: unknown key 'wieght'; did you mean 'weight'"):
        build_method("cps", nn.Identity, {"wieght": 1}, {})


def test_optimisers_are_as_asked() -> None:
    from semialign.config import TrainingSettings

    weights = [nn.Parameter(torch.ones(2))]
    sgd = make_optimiser(weights, TrainingSettings(optimiser="sgd", momentum=0.8, weight_decay=0.1, learning_rate=0.5))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.5, 0.8, 0.1, True)
    plain = make_optimiser(weights, TrainingSettings(optimiser="sgd", momentum=0.0))
    assert not plain.param_groups[0]["nesterov"]
    adam = make_optimiser(weights, TrainingSettings(optimiser="adamw", weight_decay=0.2))
    assert isinstance(adam, torch.optim.AdamW)
    assert adam.param_groups[0]["weight_decay"] == 0.2
    with pytest.raises(UserError, match="optimiser 'adam'"):
        make_optimiser(weights, TrainingSettings(optimiser="adam"))


# --- Each method's formula --------------------------------------------------------------------------------------------


def _apart(method: Any) -> Any:
    """Move a teacher away from its student, so that they disagree."""
    torch.manual_seed(77)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return method


def test_supervised_is_half_of_cross_entropy_and_dice(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("supervised"), small_batch()
    assert not method.stage_settings("train").uses_unlabelled
    total, terms = _step(method, batch)
    assert torch.equal(total, dice_ce(method.network(batch.image_l).logits, batch.label_l))
    assert set(terms) == {"supervised"}


@pytest.mark.parametrize("dims", [2, 3])
def test_mean_teacher_by_hand(small_method: Make, small_batch: Make, dims: int) -> None:
    method = _apart(small_method("mean-teacher", dims, strong=False, noise=0.0, weight=0.7, rampup_steps=50, **CLASSIC))
    batch = small_batch(dims)
    _, terms = _step(method, batch, Progress("train", 20, 1000))
    student = method.network(torch.cat([batch.image_l, batch.image_u])).logits
    teacher = method.teacher(batch.image_u).logits.softmax(1)
    error = (student[2:].softmax(1) - teacher) ** 2
    ramp = math.exp(-5 * (1 - 20 / 50) ** 2)
    assert terms["consistency"].item() == pytest.approx(0.7 * ramp * error.mean().item(), rel=1e-5)
    assert terms["supervised"].item() == pytest.approx(dice_ce(student[:2], batch.label_l).item(), rel=1e-6)
    assert terms["ramp"].item() == pytest.approx(ramp)


def test_mean_teacher_agrees_with_itself_at_the_start(small_method: Make, small_batch: Make) -> None:
    method = small_method("mean-teacher", strong=False, noise=0.0, **CLASSIC)
    assert _step(method, small_batch())[1]["consistency"].item() < 1e-12
    noisy_method = small_method("mean-teacher", strong=False, noise=0.1, **CLASSIC)
    assert _step(noisy_method, small_batch())[1]["consistency"].item() > 1e-8


def test_ramp_up_takes_two_fifths_of_the_run_unless_told(small_method: Make, small_batch: Make) -> None:
    for name in ("mean-teacher", "ua-mt", "cps"):
        for rampup, step, expected in (
            (None, 40, 1.0),
            (None, 20, math.exp(-1.25)),
            (0, 0, 1.0),
            (200, 100, 0.2865048),
        ):
            method = small_method(name, rampup_steps=rampup, start=0.0)
            _, terms = _step(method, small_batch(), Progress("train", step, 100))
            assert terms["ramp"].item() == pytest.approx(expected, rel=1e-5), name


def test_teacher_sees_weak_images_with_noise_and_the_student_strong_ones(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("mean-teacher", noise=0.1, strong=True, mix=0.0), small_batch(unlabelled=8)
    inputs: dict[str, Tensor] = {}
    for name in ("network", "teacher"):
        getattr(method, name).register_forward_pre_hook(lambda m, args, name=name: inputs.update({name: args[0]}))
    _step(method, batch)
    apart = (inputs["teacher"] - batch.image_u).abs()
    assert 0 < apart.max() <= 0.2 + 1e-6
    assert torch.equal(inputs["network"][:2], batch.image_l)
    assert (inputs["network"][2:] - batch.image_u).abs().max() > 0.25


def test_a_teacher_that_sees_flipped_images_answers_in_the_students_frame(
    small_method: Make, small_batch: Make
) -> None:
    method = _apart(
        small_method("mean-teacher", strong=False, noise=0.0, weight=0.7, rampup_steps=0, flips=True, **CLASSIC)
    )
    method.plan, batch = SimpleNamespace(mirror_axes=[1]), small_batch()  # width, the batch's last dimension
    student = method.network(torch.cat([batch.image_l, batch.image_u])).logits[2:].softmax(1)
    answers = [method.teacher(batch.image_u.flip(dims)).logits.softmax(1).flip(dims) for dims in ([], [3])]
    expected = [0.7 * (student - teacher).square().mean().item() for teacher in answers]
    terms = [_step(method, batch, seed=seed)[1]["consistency"].item() for seed in range(12)]
    which = {min((0, 1), key=lambda i: abs(expected[i] - term)) for term in terms}
    assert which == {0, 1}, "flipped in some steps alone"
    assert all(min(abs(e - term) / e for e in expected) < 1e-4 for term in terms)
    assert abs(expected[0] - expected[1]) > 1e-3 * expected[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_volumes_alone_are_lean_and_flipped_unless_told(small_method: Make, dims: int) -> None:
    plan = SimpleNamespace(patch_size=[8] * dims, mirror_axes=[0])
    for setting in (None, False, True):
        method = small_method("mean-teacher", dims, lean=setting, flips=setting)
        method.plan, expected = plan, dims == 3 if setting is None else setting
        assert method.joint_batch("train", 4, 4) == ((2, 2) if expected else (4, 4))
        assert any(method.flipped_dims() == [2] for _ in range(30)) == expected
    published = small_method("ua-mt", dims)
    published.plan = plan
    assert published.joint_batch("train", 4, 4) == (4, 4)
    assert not any(published.flipped_dims() for _ in range(30))


def test_labels_alone_until_the_start(small_method: Make, small_batch: Make) -> None:
    for name, term in (("mean-teacher", "consistency"), ("cps", "cross")):
        method = small_method(name, start=0.3)
        assert term not in _step(method, small_batch(), Progress("train", 29, 100))[1]
        _, terms = _step(method, small_batch(), Progress("train", 30, 100))
        assert term in terms
        assert terms["ramp"].item() == pytest.approx(math.exp(-5))
        assert _step(method, small_batch(), Progress("train", 58, 100))[1]["ramp"].item() == 1.0  # 30 + 0.4 * 70


def test_labels_alone_until_they_are_learnt(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("mean-teacher", start=0.3, learnt=0.5, rampup_steps=10), small_batch()
    for step in (0, 60):
        terms = _step(method, batch, Progress("train", step, 100))[1]
        assert terms["supervised"].item() > 0.5
        assert "consistency" not in terms
    method.learnt.see(lambda: torch.tensor(-100.0), Progress("train", 60, 100))
    assert _step(method, batch, Progress("train", 61, 100))[1]["ramp"].item() == pytest.approx(math.exp(-5))
    assert _step(method, batch, Progress("train", 71, 100))[1]["ramp"].item() == 1.0


@pytest.mark.parametrize("name", ["cps", "ga-cps"])
def test_two_networks_wait_for_their_labels_too_and_take_turns(
    small_method: Make, small_batch: Make, name: str
) -> None:
    method, batch = small_method(name, start=0.3, learnt=0.5, rampup_steps=10), small_batch()
    seen: dict[str, Tensor] = {}
    for network in ("first", "second"):
        getattr(method, network).register_forward_pre_hook(lambda m, args, n=network: seen.update({n: args[0]}))
    watched = []
    for step, network in ((0, "first"), (1, "second"), (60, "first"), (61, "second")):
        seen.clear()
        method.zero_grad()
        total, terms = _step(method, batch, Progress("train", step, 100))
        total.backward()
        assert terms.keys() == {f"supervised {network}"}
        assert seen.keys() == {network}, "the other one rests"
        assert torch.equal(seen[network], batch.image_l)
        assert {n.split(".")[0] for n, p in method.named_parameters() if p.grad is not None} == {network}
        # What is watched has the scale of CE and Dice, also where the loss is another.
        watched.append(dice_ce(getattr(method, network)(batch.image_l).logits, batch.label_l).detach())
        if step == 1:
            torch.testing.assert_close(method.learnt.mean, torch.stack(watched).mean(), rtol=1e-4, atol=1e-5)
    method.learnt.see(lambda: torch.tensor(-100.0), Progress("train", 61, 100))
    assert _step(method, batch, Progress("train", 62, 100))[1]["ramp"].item() == pytest.approx(math.exp(-5))
    for network in ("first", "second"):
        assert torch.equal(seen[network], torch.cat([batch.image_l, batch.image_u]))


def test_a_network_that_rests_keeps_its_weights(small_train: Make, any_case: Any, tmp_path: Path) -> None:
    run = small_train(any_case._replace(method="cps"), tmp_path / "run", steps=1, learnt=0.0)
    trained = load_checkpoint(run / "last.pt")
    states = trained["optimisers"][0]["state"].values()
    moved = sum(any(isinstance(value, Tensor) for value in state.values()) for state in states)
    assert moved == sum(name.startswith("first.") for name in trained["model"]), "the first network alone"


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_pseudo_labels_by_hand(small_method: Make, small_batch: Make, mix: float) -> None:
    method = _apart(small_method("mean-teacher", strong=False, noise=0.0, weight=0.7, confidence=0.5, mix=mix))
    seen: list[Tensor] = []
    method.network.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    batch = small_batch()
    _, terms = _step(method, batch, Progress("train", 99, 100))
    student = method.network(seen[0]).logits[2:]
    target = method.teacher(batch.image_u).logits.softmax(1)
    # Where a voxel of the student's image is the other patch's, its target is the other patch's too.
    own = (seen[0][2:] == batch.image_u).all(1, keepdim=True)
    assert torch.equal(torch.where(own, batch.image_u, batch.image_u.roll(1, 0)), seen[0][2:])
    assert own.float().mean().item() == pytest.approx(1 - mix * (11 / 16) ** 2)  # two thirds of 16, rounded
    target = torch.where(own, target, target.roll(1, 0))
    label = torch.where(target.amax(1) >= 0.5, target.argmax(1), -1)
    assert 0.05 < (label >= 0).float().mean() < 0.999, "the confidence must matter here"
    assert terms["consistency"].item() == pytest.approx(0.7 * dice_ce(student, label).item(), rel=1e-4)
    assert terms["sure"].item() == pytest.approx((label >= 0).float().mean().item())


def test_the_default_memory_follows_the_length_of_the_run(small_method: Make) -> None:
    for steps, decay in ((100, 0.9), (250, 0.9), (1000, 0.975), (10_000, 0.9975), (10**6, 0.999)):
        method = _apart(small_method("mean-teacher"))
        before = copy.deepcopy(method.teacher.state_dict())
        method.after_step(Progress("train", 5000, steps))
        for key, value in method.teacher.state_dict().items():
            expected = decay * before[key] + (1 - decay) * method.network.state_dict()[key]
            assert torch.allclose(value, expected, atol=1e-6)


def test_noise_has_the_stated_spread_and_bounds() -> None:
    torch.manual_seed(0)
    added = noisy(torch.zeros(200_000), 0.1)
    assert added.abs().max().item() == pytest.approx(0.2)
    assert added.std().item() == pytest.approx(0.1 * 0.9594, rel=0.01)  # a normal number clamped at two deviations
    assert added.mean().abs() < 1e-3


def test_teacher_moves_by_the_stated_decay(small_method: Make) -> None:
    for name in ("mean-teacher", "ua-mt"):
        for step, decay in ((0, 0.5), (1, 2 / 3), (8, 0.9), (98, 0.99), (5000, 0.99)):
            method = _apart(small_method(name, ema_decay=0.99))
            before = copy.deepcopy(method.teacher.state_dict())
            method.after_step(Progress("train", step, 10_000))
            student = method.network.state_dict()
            for key, value in method.teacher.state_dict().items():
                assert torch.allclose(value, decay * before[key] + (1 - decay) * student[key], atol=1e-6)


def test_teacher_takes_no_gradient_and_starts_as_the_student(small_method: Make, small_batch: Make) -> None:
    for name in ("mean-teacher", "ua-mt"):
        method = small_method(name)
        pairs = zip(method.network.state_dict().values(), method.teacher.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        _step(method, small_batch())[0].backward()
        assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())


def test_predicts_with_teacher_or_student(small_method: Make, small_batch: Make) -> None:
    image = small_batch().image_l
    for who in ("teacher", "student"):
        method = _apart(small_method("mean-teacher", predict_with=who))
        network = method.teacher if who == "teacher" else method.network
        assert torch.equal(method.predict(image), network(image).logits.softmax(1))
    with pytest.raises(UserError, match="predict_with"):
        small_method("mean-teacher", predict_with="techer")


@pytest.mark.parametrize("step", [0, 50, 100])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_ua_mt_by_hand(small_method: Make, small_batch: Make, step: int, noise: float) -> None:
    settings = {"strong": False, "noise": noise, "weight": 0.7, "rampup_steps": 0, "passes": 4}
    method, batch = _apart(small_method("ua-mt", **settings)), small_batch()
    with torch.no_grad():
        method.teacher.classifier.weight.mul_(3)  # so that it is sure somewhere and unsure elsewhere
    _, terms = _step(method, batch, Progress("train", step, 100))
    student = method.network(torch.cat([batch.image_l, batch.image_u])).logits[2:].softmax(1)
    torch.manual_seed(5)
    passes = [method.teacher(noisy(batch.image_u, noise)).logits.softmax(1) for _ in range(5)]
    mean = sum(passes[:4]) / 4
    entropy = -(mean * mean.log()).sum(1)
    limit = (0.75 + 0.25 * math.exp(-5 * (1 - step / 100) ** 2)) * math.log(3)
    total, sure = 0.0, 0
    error = ((student - passes[4]) ** 2).sum(1)
    for sample in range(2):
        for row in range(16):
            for column in range(16):
                if entropy[sample, row, column] < limit:
                    total += error[sample, row, column].item()
                    sure += 1
    assert step == 100 or 50 < sure < 2 * 256 - 20, "the mask must matter here"
    assert terms["consistency"].item() == pytest.approx(0.7 * total / (3 * sure), rel=1e-4)


def test_ua_mt_of_an_unsure_teacher_teaches_nothing(small_method: Make, small_batch: Make) -> None:
    method = small_method("ua-mt")
    with torch.no_grad():
        method.teacher.classifier.weight.zero_()
        method.teacher.classifier.bias.zero_()
    total, terms = _step(method, small_batch(), Progress("train", 0, 100))
    total.backward()
    assert terms["consistency"].item() == 0
    assert all(p.grad.isfinite().all() for p in _learning(method).values())


@pytest.mark.parametrize("on_labelled", [False, True])
def test_cps_by_hand(small_method: Make, small_batch: Make, on_labelled: bool) -> None:
    method = small_method("cps", strong=False, weight=0.3, rampup_steps=0, on_labelled=on_labelled)
    batch = small_batch()
    total, terms = _step(method, batch)
    image = torch.cat([batch.image_l, batch.image_u])
    first, second = method.first(image).logits, method.second(image).logits
    part = slice(0 if on_labelled else 2, None)
    cross = F.cross_entropy(first[part], second[part].argmax(1)) + F.cross_entropy(second[part], first[part].argmax(1))
    assert terms["cross"].item() == pytest.approx(0.3 * cross.item(), rel=1e-5)
    for name, logits in (("first", first), ("second", second)):
        assert terms[f"supervised {name}"].item() == pytest.approx(dice_ce(logits[:2], batch.label_l).item(), rel=1e-5)
    # Each network learns from its own half alone: the other's prediction is a hard label.
    total.backward()
    own = 0.3 * F.cross_entropy(first[part], second[part].argmax(1)) + dice_ce(first[:2], batch.label_l)
    expected = torch.autograd.grad(own, list(method.first.parameters()))
    for gradient, parameter in zip(expected, method.first.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6)


def test_cps_networks_start_differently_and_predict_together(small_method: Make, small_batch: Make) -> None:
    method, image = small_method("cps"), small_batch().image_l
    first, second = method.first(image).logits, method.second(image).logits
    assert not torch.allclose(first, second, atol=0.01)
    assert torch.allclose(method.predict(image), ((first + second) / 2).softmax(1), atol=1e-6)


def test_cps_networks_see_the_same_strong_image(small_method: Make, small_batch: Make) -> None:
    method, batch = small_method("cps", strong=True), small_batch(unlabelled=6)
    seen: list[Tensor] = []
    for network in (method.first, method.second):
        network.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    _step(method, batch)
    assert torch.equal(*seen)
    assert torch.equal(seen[0][:2], batch.image_l)
    assert not torch.equal(seen[0][2:], batch.image_u)
