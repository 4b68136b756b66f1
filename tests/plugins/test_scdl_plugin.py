"""SCDL on hosts: they compute what they computed before, and know nothing of it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.types import Batch, Output, Progress, View
from semialign.methods import METHODS
from semialign.methods.base import build_method, method_class, require_network
from semialign.networks.unet import UNet
from semialign.plugins.scdl_network import SCDLNetwork
from semialign.plugins.scdl_plugin import SCDLPlugin
from semialign.plugins.scdl_settings import SCDLSettings

SMALL = {"embedding": 8, "samples": 16}
MIDDLE = Progress("train", 60, 100)
HOSTS = [name for name in METHODS if method_class(name).takes_plugins]


def _unet(dims: int = 2) -> UNet:
    strides = ((1,) * dims, (2,) * dims, (2,) * dims)
    return UNet(1, 4, widths=(4, 8, 8), strides=strides, kernels=((3,) * dims,) * 3)


def _batch(dims: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 1, *(16,) * dims, generator=generator)
    label = torch.randint(0, 3, (2, *(16,) * dims), generator=generator)
    return Batch(image[:2], label, image[2:], torch.arange(2), torch.arange(2))


def _hosted(host: str, plugins: dict[str, Any], dims: int = 2) -> Any:
    torch.manual_seed(0)
    own = {"ua-mt": {"passes": 2}, "mean-teacher": {"learnt": None}}.get(host, {})
    return build_method(host, lambda: _unet(dims), own, plugins)


@pytest.mark.parametrize("inject", ["stages", "bottleneck", "head"])
@pytest.mark.parametrize("host", HOSTS)
def test_at_step_0_the_host_computes_what_it_computed_before(host: str, inject: str) -> None:
    plain, plugged = _hosted(host, {}), _hosted(host, {"scdl": {**SMALL, "inject": inject}})
    steps, states = [], []
    for method in (plain, plugged):
        torch.manual_seed(3)
        steps.append(method.losses(_batch(), MIDDLE))
        states.append(torch.get_rng_state())
    assert torch.equal(*states), "the host's random numbers stay where they were"
    assert steps[0].losses.keys() == steps[1].losses.keys()
    for name, value in steps[0].losses.items():
        assert torch.equal(value, steps[1].losses[name]), name
    image = _batch().image_u
    assert torch.equal(plain.eval().predict(image), plugged.eval().predict(image))


def test_the_prior_reaches_every_stage_once_it_has_learned() -> None:
    network = SCDLPlugin(SCDLSettings(**SMALL)).wrap(_unet())
    require_network(network)
    assert isinstance(network, SCDLNetwork)
    seen: list[Any] = []
    network.network.decode = lambda pyramid, priors=None: seen.append(priors) or pyramid[0]  # type: ignore[func-returns-value]
    assert network.scdl.injection is not None
    nn.init.normal_(network.scdl.injection.projection.weight)
    outer = [torch.ones(2, 4, 16, 16), torch.ones(2, 8, 8, 8)]
    pyramid = network.encode(_batch().image_l)
    network.eval().decode(pyramid)
    network.decode(pyramid, outer)
    for own, both, other in zip(seen[0], seen[1], outer, strict=True):
        assert own.shape == other.shape
        assert own.std() > 0
        torch.testing.assert_close(both, own + other)


@pytest.mark.parametrize("settings", [{"features": "decoder", "inject": "head"}, {"level": 1}, {"level": 0}, {}])
def test_features_are_taken_where_asked(settings: dict[str, Any]) -> None:
    network: Any = SCDLPlugin(SCDLSettings(**SMALL, **settings)).wrap(_unet()).eval()  # type: ignore[attr-defined]
    output = network(_batch().image_l)
    of_decoder = settings.get("features") == "decoder"
    source = output.features if of_decoder else output.pyramid[settings.get("level", -1)]
    torch.testing.assert_close(output.tokens.values, network.scdl.pool(source)[0])


def test_an_output_a_host_put_together_is_embedded_again() -> None:
    network: Any = SCDLPlugin(SCDLSettings(**SMALL)).wrap(_unet()).eval()  # type: ignore[attr-defined]
    output = network(_batch().image_l)
    torch.testing.assert_close(network.tokens_of(Output(*output)).cosines, output.tokens.cosines)


class _Norms(UNet):
    """With running statistics, which passes over single classes must not touch."""

    def __init__(self) -> None:
        super().__init__(1, 4, widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2)
        self.norm = nn.BatchNorm2d(1)

    def encode(self, image: Tensor) -> list[Tensor]:
        return super().encode(self.norm(image))


def test_image_anchors_leave_statistics_and_modes_alone() -> None:
    network: Any = SCDLPlugin(SCDLSettings(**SMALL, anchor="image")).wrap(_Norms())
    network.network.encoder[0].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    label = torch.full((2, 16, 16), -1)
    label[0, :8], label[0, 8:] = 0, 2
    means, classes = network.single_class_tokens(_batch().image_l, label)
    assert classes.tolist() == [0, 2]
    assert means.shape == (2, 8)
    assert not means.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.network.norm.training
    assert not network.network.encoder[0].training


def test_image_anchors_are_of_images_of_one_class_alone() -> None:
    network: Any = SCDLPlugin(SCDLSettings(**SMALL, anchor="image")).wrap(_unet())
    image, label = _batch().image_l, _batch().label_l
    means, classes = network.single_class_tokens(image, label)
    assert classes.tolist() == [0, 1, 2, 0, 1, 2]
    alone = torch.where(label[1] == 2, image[1], 0.0)
    with torch.no_grad():
        expected = network.network.eval().encode(alone[None])[-1].flatten(2).mean(2)
    torch.testing.assert_close(means[5:], expected)
    assert network.single_class_tokens(image, torch.full_like(label, -1))[0].shape == (0, 8)


def test_losses_follow_the_ramp() -> None:
    plugin = SCDLPlugin(SCDLSettings(**SMALL, rampup_steps=10))
    network: Any = plugin.wrap(_unet()).eval()  # type: ignore[attr-defined]
    batch = _batch()
    view = View("one", network, batch.image_l, network(batch.image_l), batch.label_l)
    start, end = (plugin.losses(view, Progress("train", step, 100)) for step in (0, 10))
    assert start.keys() == {"scdl p2e", "scdl e2p", "scdl sac"}
    for name, value in end.items():
        assert float(start[name].detach() / value.detach()) == pytest.approx(0.0067, rel=0.01)


def test_the_ramp_goes_on_over_a_hosts_stages() -> None:
    by_share, by_steps = (SCDLPlugin(SCDLSettings(**SMALL, rampup_steps=steps)) for steps in (None, 30))  # type: ignore[arg-type]
    first, second = Progress("pretrain", 4, 20), Progress("train", 0, 80, 20)
    assert by_share.ramp(first) == pytest.approx(math.exp(-5 * 0.25))  # half of 0.4 of the stage
    assert [by_share.ramp(Progress("train", step, 80, 20)) for step in (0, 7, 79)] == [1.0] * 3
    assert [by_steps.ramp(at) for at in (first, second)] == pytest.approx(
        [math.exp(-5 * (1 - share) ** 2) for share in (4 / 30, 20 / 30)]
    )
    assert by_steps.ramp(Progress("train", 10, 80, 20)) == 1.0


def test_each_network_draws_its_own_numbers() -> None:
    method = _hosted("cps", {"scdl": SMALL})
    first, second = method.first.scdl.proxies, method.second.scdl.proxies
    assert not torch.equal(first.mean, second.mean)
    assert not torch.equal(first.eval_noise, second.eval_noise)
    drawn = [torch.randn(3, generator=p.generator(torch.device("cpu"))) for p in (first, second)]
    assert not torch.equal(*drawn)


def test_a_teacher_averages_the_proxies() -> None:
    method = _hosted("mean-teacher", {"scdl": SMALL})
    with torch.no_grad():
        method.network.scdl.proxies.mean.add_(1.0)
    before = method.teacher.scdl.proxies.mean.clone()
    method.after_step(Progress("train", 50, 100))
    assert not torch.equal(method.teacher.scdl.proxies.mean, before)
    assert not method.teacher.scdl.proxies.mean.requires_grad


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"level": 3}, "must be from -3 to 2, not 3"), ({"features": "decoder"}, "reach the head or none, not stages")],
)
def test_what_cannot_be_is_said(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SCDLPlugin(SCDLSettings(**SMALL, **settings)).wrap(_unet())


def test_what_was_learned_is_written_for_every_learning_network() -> None:
    from semialign.training.class_figures import class_figure_rows

    names = ["background", "a", "b", "c"]
    rows = list(class_figure_rows(_hosted("mean-teacher", {"scdl": SMALL}), names, 5))
    assert [(row["network"], row["class"], row["step"]) for row in rows] == [("network", name, 5) for name in names]
    assert float(rows[1]["cos a"]) == pytest.approx(1, abs=1e-3)
    assert rows[1]["cos b"] == rows[2]["cos a"]
    assert {row["network"] for row in class_figure_rows(_hosted("cps", {"scdl": SMALL}), names, 0)} == {
        "first",
        "second",
    }
    assert list(class_figure_rows(_hosted("cps", {}), names, 0)) == []


def test_shares_of_tokens() -> None:
    method = _hosted("supervised", {"scdl": SMALL})
    share = method.network.scdl.share
    assert share.sum() == pytest.approx(1)
    method(_batch(), MIDDLE)
    moved = method.network.scdl.share
    assert moved.sum() == pytest.approx(1)
    assert moved.max() > 0.25
