"""SemiGDA's step: what learns in each stage, each loss by hand, and that every setting changes what it should."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny_autoencoder import TinyAutoencoder
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Batch, Progress
from semialign.config import TrainingSettings, from_mapping
from semialign.losses.dice import soft_dice
from semialign.methods import semigda
from semialign.methods.semigda_settings import LEARNING, SemiGDASettings
from semialign.networks.autoencoders.base import freeze

Make = Callable[..., Any]
ALIGN, SEGMENT = Progress("align", 50, 100), Progress("segment", 50, 100)
NAMES = ("mapper", "encoder", "image_adapter", "mask_adapter", "stored")


class FourLevels(TinyAutoencoder):
    """The tiny one with as many levels as SemiGDA's encoder."""

    factor = 8
    feature_widths = (5, 6, 7, 4)
    decoder_widths = (8, 9, 10, 11)


def four_levels() -> FourLevels:
    """Return the one of seed 0, frozen."""
    torch.manual_seed(0)
    return freeze(FourLevels())


@pytest.fixture
def tiny_method(small_method: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Build the method over a tiny autoencoder of random weights that is not trained here."""
    monkeypatch.setattr(semigda, "load_autoencoder", lambda name, weights: four_levels())

    def make(**own: Any) -> Any:
        return small_method("semigda", **({"autoencoder": "taef2", "sampling": 0.0} | own))

    return make


@pytest.fixture
def batch(small_batch: Make) -> Batch:
    """Two labelled and three unlabelled pictures."""
    made: Batch = small_batch(unlabelled=3)
    return made


def _freeze(method: Any, stage: str) -> Any:
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name.startswith(method.stage_settings(stage).parameters))
    return method


def _wake(method: Any) -> Any:
    """Let the adapters do something; they start at zero."""
    torch.manual_seed(9)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not parameter.any() and "stored" not in name:
                parameter.normal_(0, 0.1)
    return method


def _terms(method: Any, batch: Batch, progress: Progress = SEGMENT, seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    terms: dict[str, Tensor] = method(batch, progress)[1]
    return terms


def _outputs(method: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return both decoded pictures, by the parts of the network alone."""
    net, picture = method.network, torch.cat([batch.image_l, batch.image_u]).clamp(-1, 1).expand(-1, 3, -1, -1)
    frozen, encoding = net.autoencoder.encode(picture), net.encoder(picture)
    mapped, encoded = net.mapper(frozen.mean), 0.5 * encoding.moments[:, :3]  # its scale, and three latent channels
    image = None if net.image_adapter is None else net.image_adapter(frozen.features)
    mask = None if net.mask_adapter is None else net.mask_adapter(encoding.features)
    return net.autoencoder.decode(mapped, image), net.autoencoder.decode(encoded, mask)


# --- Stages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["autoencoder", "align", "segment"])
@pytest.mark.parametrize("unlabelled", [3, 0])
def test_only_what_a_stage_trains_gets_a_gradient_and_moves(
    small_method: Make, small_batch: Make, stage: str, unlabelled: int
) -> None:
    method = _wake(_freeze(small_method("semigda"), stage))
    before = copy.deepcopy(method.state_dict())
    optimisers = method.optimisers(stage, TrainingSettings())
    for step in range(2):
        for optimiser in optimisers:
            optimiser.zero_grad()
        total, _ = method(small_batch(unlabelled=unlabelled, seed=step), Progress(stage, step, 4))
        assert total.isfinite()
        total.backward()
        for optimiser in optimisers:
            optimiser.step()
    expected = {"autoencoder": {"stored"}, "align": {"mapper", "encoder"}, "segment": set(NAMES) - {"stored"}}[stage]
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == (name.split(".")[1] in expected), name
    moved = {name.split(".")[1] for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == expected | ({"loss"} if stage == "segment" else set()), "the running losses of the fusion"


def test_an_autoencoder_from_elsewhere_stays_as_it_was(tiny_method: Make, batch: Batch) -> None:
    method = _freeze(tiny_method(), "segment")
    frozen = copy.deepcopy(method.network.autoencoder.state_dict())
    assert method.stages == ("align", "segment")
    assert not any("_kept" in name or "stored" in name for name in method.state_dict())
    for stage in method.stages:
        optimisers = method.optimisers(stage, TrainingSettings())
        method(batch, Progress(stage, 1, 2))[0].backward()
        for optimiser in optimisers:
            optimiser.step()
    assert all(torch.equal(v, frozen[n]) for n, v in method.network.autoencoder.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in method.network.autoencoder.parameters())


def test_each_stage_has_the_papers_optimisers(tiny_method: Make, small_method: Make) -> None:
    run = TrainingSettings(learning_rate=0.5, optimiser="sgd", weight_decay=0.3)

    def kinds(method: Any, stage: str) -> list[tuple[str, float, float, int]]:
        made = _freeze(method, stage).optimisers(stage, run)
        groups = [optimiser.param_groups[0] for optimiser in made]
        return [
            (type(o).__name__, g["lr"], g["weight_decay"], len(g["params"])) for o, g in zip(made, groups, strict=True)
        ]

    own = small_method("semigda")
    counts = {name: len(list(getattr(own.network, name).parameters())) for name in NAMES}
    learning = sum(counts[name] for name in NAMES[:4])
    assert kinds(own, "autoencoder") == [("AdamW", 0.002, 0.01, counts["stored"])]
    own = small_method("semigda")
    align = [("AdamW", 0.002, 0.01, counts["mapper"]), ("SGD", 0.01, 1e-4, counts["encoder"])]
    assert kinds(own, "align") == align
    own = small_method("semigda")
    assert kinds(own, "segment") == [("SGD", 0.5, 0.3, learning)]  # the run's
    own = small_method("semigda", segment_rate=0.01)
    assert kinds(own, "segment") == [("SGD", 0.01, 1e-4, learning)]
    bare = dict.fromkeys(("autoencoder_rate", "mapper_rate", "encoder_rate", "segment_rate"))
    method = small_method("semigda", **bare)
    assert kinds(method, "align") == [("SGD", 0.5, 0.3, counts["mapper"]), ("SGD", 0.5, 0.3, counts["encoder"])]
    assert kinds(method, "segment") == [("SGD", 0.5, 0.3, learning)]


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, {"autoencoder": 0.12, "align": 0.08, "segment": 0.8}),
        ({"dam": False}, {"autoencoder": 0.12, "segment": 0.88}),
        ({"autoencoder": "taef2"}, {"align": 0.08, "segment": 0.92}),
        ({"weights": "own.pt", "dam": False}, {"segment": 1.0}),
        ({"autoencoder_share": 0.5, "align_share": 0.1}, {"autoencoder": 0.5, "align": 0.1, "segment": 0.4}),
    ],
)
def test_shares_of_the_stages(settings: dict[str, Any], shares: dict[str, float]) -> None:
    made = SemiGDASettings(**settings)
    assert made.shares() == pytest.approx(shares)
    assert tuple(shares) == made.stages()
    assert set(shares) <= set(LEARNING)


# --- Losses by hand ---------------------------------------------------------------------------------------------------


def test_align_by_hand(tiny_method: Make, batch: Batch) -> None:
    method = tiny_method(weight=0.3, rampup_steps=80)
    terms = _terms(method, batch, ALIGN)
    net, picture = method.network, torch.cat([batch.image_l, batch.image_u]).clamp(-1, 1).expand(-1, 3, -1, -1)
    z_v, z_r = net.mapper(net.autoencoder.encode(picture).mean), 0.5 * net.encoder(picture).moments[:, :3]
    grey = batch.label_l.clamp(min=0).float() - 1  # three classes: -1, 0, 1
    z_g = net.autoencoder.encode(grey[:, None].expand(-1, 3, -1, -1)).mean
    labelled = ((z_v[:2] - z_g) ** 2).mean() + ((z_r[:2] - z_g) ** 2).mean()
    unlabelled = 0.3 * sigmoid_rampup(50, 80) * 2 * ((z_v[2:] - z_r[2:]) ** 2).mean()
    assert set(terms) == {"align labelled", "align unlabelled", "ramp"}
    assert terms["align labelled"].item() == pytest.approx(labelled.item(), rel=1e-5)
    assert terms["align unlabelled"].item() == pytest.approx(unlabelled.item(), rel=1e-5)
    assert terms["ramp"].item() == pytest.approx(sigmoid_rampup(50, 80))


def test_segment_by_hand(tiny_method: Make, batch: Batch) -> None:
    method = _wake(tiny_method(weight=0.3))
    terms, ramp = _terms(method, batch), sigmoid_rampup(50, 100)
    v, r = (out.mean(1) + 1 for out in _outputs(method, batch))
    p, q = (torch.stack([(1 - (x.clamp(0, 2) - k).abs()).clamp(min=0) for k in range(3)], 1) for x in (v, r))
    for name, out in (("supervised mapped", p), ("supervised encoded", q)):
        dice = soft_dice(out[:2], batch.label_l, per_sample=True, background=False)
        assert terms[name].item() == pytest.approx(dice.item(), rel=1e-4)
    overlap, sums = (p[2:, 1:] * q[2:, 1:]).sum((2, 3)), (p + q)[2:, 1:].sum((2, 3))
    soft = 2 * (1 - (2 * overlap + 1e-5) / (sums + 1e-5)).mean()
    assert terms["agreement"].item() == pytest.approx(0.3 * ramp * soft.item(), rel=1e-4)
    assert terms["align labelled"].item() == pytest.approx(_terms(method, batch, ALIGN)["align labelled"].item())


@pytest.mark.parametrize(("fusion", "share"), [("fit", 0.2), ("mean", 0.5)])
def test_outputs_are_fused_by_their_fit(tiny_method: Make, batch: Batch, fusion: str, share: float) -> None:
    method = _wake(tiny_method(fusion=fusion)).eval()
    picture = torch.cat([batch.image_l, batch.image_u])
    with torch.no_grad():
        one, other = _outputs(method, batch)
        assert torch.allclose(method.predict(picture), method.code.memberships((one + other) / 2), atol=1e-6)
        for _ in range(1000):
            method.fusion.see(torch.tensor(0.2), torch.tensor(0.1))
        expected = method.code.memberships(share * one + (1 - share) * other)
        assert torch.allclose(method.predict(picture), expected, atol=1e-5)


def test_the_fusion_sees_the_losses_of_a_step(tiny_method: Make, batch: Batch) -> None:
    method = _wake(tiny_method())
    terms = _terms(method, batch)
    losses = torch.stack([terms["supervised mapped"], terms["supervised encoded"]])
    assert torch.allclose(method.fusion.loss, 0.98 + 0.02 * losses)
    share = method.fusion.share()
    assert (share < 0.5) == bool(losses[0] > losses[1])
    method.fusion.loss.zero_()
    assert method.fusion.share() == 0.5, "perfect outputs share"


def test_ignored_pixels_have_no_dice(tiny_method: Make, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = _wake(tiny_method(dam=False)), []
    read = method.code.memberships

    def kept(image: Tensor) -> Tensor:
        image.retain_grad()
        seen.append(image)
        out: Tensor = read(image)
        return out

    monkeypatch.setattr(method.code, "memberships", kept)
    method(batch._replace(image_u=batch.image_u[:0]), SEGMENT)[0].backward()
    for image in seen:
        assert not image.grad.movedim(1, -1)[batch.label_l < 0].any()
        assert image.grad.movedim(1, -1)[batch.label_l >= 0].any()


@pytest.mark.parametrize("settings", [{}, {"pseudo": "hard"}], ids=str)
def test_the_order_of_unlabelled_pictures_changes_nothing(
    tiny_method: Make, batch: Batch, settings: dict[str, Any]
) -> None:
    seen = []
    order = torch.tensor([2, 0, 1])
    for one in (batch, batch._replace(image_u=batch.image_u[order], index_u=batch.index_u[order])):
        method = _freeze(_wake(tiny_method(**settings)), "segment")
        torch.manual_seed(5)
        total, terms = method(one, SEGMENT)
        total.backward()
        seen.append((terms, [p.grad for p in method.parameters() if p.requires_grad]))
    for name, value in seen[0][0].items():
        assert value.item() == pytest.approx(seen[1][0][name].item(), rel=1e-4), name
    for a, b in zip(seen[0][1], seen[1][1], strict=True):
        assert torch.allclose(a, b, atol=2e-3 * float(a.abs().max()) + 1e-5)


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_parts_can_be_left_out(tiny_method: Make, batch: Batch) -> None:
    whole = tiny_method()
    assert set(_terms(whole, batch)) == {
        *("align labelled", "align unlabelled", "supervised mapped", "supervised encoded", "agreement", "ramp")
    }
    without = tiny_method(dam=False)
    assert without.stages == ("segment",)
    assert not any(name.startswith("align") for name in _terms(without, batch))
    without = tiny_method(cdsa=False)
    assert without.network.image_adapter is None
    assert without.network.mask_adapter is None
    assert "agreement" not in _terms(without, batch)
    for name, other in (("image_adapter", "mask_adapter"), ("mask_adapter", "image_adapter")):
        without = tiny_method(**{name: False})
        assert getattr(without.network, name) is None
        assert getattr(without.network, other) is not None
        assert "agreement" in _terms(without, batch)
        _freeze(_wake(without), "segment")(batch, SEGMENT)[0].backward()
        assert all(p.grad is not None for p in without.parameters() if p.requires_grad)


def test_each_adapter_acts_on_its_own_output_alone(tiny_method: Make, batch: Batch) -> None:
    method = tiny_method()
    net, picture = method.network, batch.image_l.clamp(-1, 1).expand(-1, 3, -1, -1)
    for adapter, changed in ((net.image_adapter, 0), (net.mask_adapter, 1)):
        encoded = net.encode(picture)
        before = net.decode(net.latents(encoded.mean, picture), encoded.features)
        _wake(adapter)
        after = net.decode(net.latents(encoded.mean, picture), encoded.features)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [changed == 1, changed == 0]


def _same(tiny_method: Make, batch: Batch, progress: Progress = SEGMENT, **settings: Any) -> dict[str, bool]:
    """Return which terms a setting leaves as they were."""
    one, other = (_terms(_wake(tiny_method(**s)), batch, progress) for s in ({}, settings))
    return {name: torch.equal(value, other[name]) for name, value in one.items()}


def test_settings_change_the_terms_they_name(tiny_method: Make, batch: Batch) -> None:
    unlabelled = {"align unlabelled", "agreement"}

    def changed(**settings: Any) -> set[str]:
        return {name for name, same in _same(tiny_method, batch, **settings).items() if not same}

    assert changed(weight=0.2) == unlabelled
    assert changed(rampup_steps=0) == unlabelled | {"ramp"}
    assert changed(pseudo="hard") == {"agreement"}
    assert changed(code="palette") >= {"align labelled", "supervised mapped", "supervised encoded"}
    assert changed(sampling=1.0) >= {"align labelled", "supervised mapped"}
    assert "supervised encoded" not in changed(sampling=1.0), "the learnable encoder has no posterior"
    assert changed(pseudo="hard", mix=True) == unlabelled
    early = _same(tiny_method, batch, Progress("segment", 32, 100), pseudo="hard", mix=True)
    assert early["align unlabelled"], "nothing is mixed in the first third"


@pytest.mark.parametrize(("start", "first"), [(0.5, 50), (0.0, 0), (0.25, 25), (1.0, 100)])
def test_unlabelled_pictures_come_with_the_start(tiny_method: Make, start: float, first: int) -> None:
    method = tiny_method(start=start)
    wanted = [step for step in range(100) if method.wants_unlabelled(Progress("segment", step, 100))]
    assert wanted == list(range(first, 100))
    assert all(method.wants_unlabelled(Progress(stage, 0, 100)) for stage in ("autoencoder", "align"))


def test_lean_gives_up_half_of_the_labelled_pictures_in_the_last_stage(tiny_method: Make) -> None:
    lean, full = tiny_method(), tiny_method(lean=False)
    assert lean.joint_batch("segment", 4, 4) == (2, 2)
    assert lean.joint_batch("segment", 4, 1) == (3, 1)
    assert lean.joint_batch("segment", 1, 1) == (1, 1), "one labelled picture stays"
    assert lean.joint_batch("align", 4, 4) == full.joint_batch("segment", 4, 4) == (4, 4)


def test_a_step_on_labels_alone_has_no_unlabelled_loss(tiny_method: Make, batch: Batch) -> None:
    method = _wake(tiny_method())
    alone = _terms(method, batch._replace(image_u=batch.image_u[:0], index_u=batch.index_u[:0]))
    both = _terms(method, batch)
    assert alone["agreement"] == alone["align unlabelled"] == 0
    for name in ("supervised mapped", "supervised encoded", "align labelled"):
        assert alone[name].item() == pytest.approx(both[name].item(), rel=1e-4)


def test_sampling_is_the_share_of_the_steps(tiny_method: Make, batch: Batch) -> None:
    method = tiny_method(sampling=0.5)
    means = _terms(tiny_method(), batch)["align labelled"]
    drawn = [not torch.equal(_terms(method, batch, seed=s)["align labelled"], means) for s in range(24)]
    assert 6 <= sum(drawn) <= 18
    assert torch.equal(
        _terms(method, batch, ALIGN)["align labelled"], _terms(tiny_method(), batch, ALIGN)["align labelled"]
    )


def test_sizes(tiny_method: Make, tiny_2d: Any) -> None:
    def weights(**settings: Any) -> int:
        return sum(p.numel() for p in tiny_method(**settings).network.encoder.parameters())

    assert weights(size="paper") > 20 * weights(size="small")
    assert weights() == weights(size="small")


def _wrong() -> Iterator[Any]:
    yield {"mix": True}, "mix exchanges pseudo-labels"
    yield {"pseudo": "harder"}, "pseudo 'harder'"
    yield {"fusion": "sum"}, "fusion 'sum'"
    yield {"size": "large"}, "size 'large'"
    yield {"code": "grey"}, "label code 'grey'"
    yield {"autoencoder": "vae"}, "autoencoder 'vae'"
    yield {"autoencoder_share": 0.7, "align_share": 0.3}, "shares"
    yield {"segment_rate": 0.0}, "segment_rate must be more than 0"
    yield {"autoencoder": "taef2"}, "needs its weights"


@pytest.mark.parametrize(("settings", "message"), _wrong(), ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_what_cannot_be_is_one_line(small_method: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        small_method("semigda", **settings)
    assert "\n" not in str(error.value)


def test_plugins_are_refused(small_method: Make) -> None:
    with pytest.raises(UserError, match="plug-ins"):
        small_method("semigda", plugin="scdl")


def test_paths_are_written_out_in_full(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.safetensors").touch()
    for given, kept in (("here.safetensors", str(tmp_path / "here.safetensors")), ("owner/name", "owner/name")):
        assert from_mapping(SemiGDASettings, {"weights": given}, "semigda").weights == kept
