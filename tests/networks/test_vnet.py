"""The V-Net: shapes, contract, priors, what it consists of, norms and dropout, and a plan that asks for it."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semialign.methods.base import require_network
from semialign.networks.contract import Network
from semialign.networks.vnet import VNet

WIDTHS = (2, 3, 4, 5, 6)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMS = ("batch", "instance", "none")


def _vnet(dims: int = 2, *, seed: int = 0, **more: Any) -> VNet:
    torch.manual_seed(seed)
    return VNet(2, 5, dims=dims, **{"widths": WIDTHS, **more})


def _image(dims: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(2, 2, 32, *(16,) * (dims - 2), 48, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_keeps_the_contract(dims: int, norm: str) -> None:
    network, image = _vnet(dims, norm=norm), _image(dims)
    assert isinstance(network, Network)
    require_network(network)
    assert (network.spatial_dims, network.num_classes, network.feature_width) == (dims, 5, WIDTHS[0])
    assert network.widths == WIDTHS
    assert network.strides == tuple((n,) * dims for n in (1, 2, 4, 8, 16))
    logits, features, pyramid = network(image)
    assert logits.shape == (2, 5, *image.shape[2:])
    assert features.shape == (2, WIDTHS[0], *image.shape[2:])
    for level, width, stride in zip(pyramid, network.widths, network.strides, strict=True):
        assert level.shape == (2, width, *(n // s for n, s in zip(image.shape[2:], stride, strict=True)))


def _wide(module: nn.Module, kernel: int, kinds: tuple[type[nn.Module], ...] = CONVOLUTIONS) -> int:
    found = [m for m in module.modules() if isinstance(m, kinds)]
    return sum(set(m.kernel_size) == {kernel} for m in found)


@pytest.mark.parametrize("dims", [2, 3])
def test_convolutions_of_every_level(dims: int) -> None:
    network = _vnet(dims)
    assert [_wide(level, 3) for level in network.encoder] == [1, 2, 3, 3, 3]
    assert [_wide(level, 3) for level in reversed(network.decoder)] == [3, 3, 2, 1]
    assert [_wide(level, 2) for level in network.encoder] == [0, 1, 1, 1, 1]
    assert _wide(network, 2, (nn.ConvTranspose2d, nn.ConvTranspose3d)) == 4
    assert _wide(network, 1) == 1
    blocks = (1 + 2 + 3 + 3 + 3) + (3 + 3 + 2 + 1) + 4 + 4
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == blocks
    assert sum(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in network.modules()) == blocks


def test_parameters_of_the_published_form_by_hand() -> None:
    levels = {16: 1, 32: 2, 64: 3, 128: 3, 256: 3}  # width: convolutions of the encoder's level
    encoder = 27 * (1 * 16 + 2 * 32**2 + 3 * 64**2 + 3 * 128**2 + 3 * 256**2)
    decoder = 27 * (3 * 128**2 + 3 * 64**2 + 2 * 32**2 + 16**2)
    between = 2 * 8 * (16 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    normed = sum(width * count for width, count in levels.items()) + (3 * 128 + 3 * 64 + 2 * 32 + 16)
    normed += (32 + 64 + 128 + 256) + (16 + 32 + 64 + 128)
    expected = encoder + decoder + between + 2 * normed + (16 * 14 + 14)
    for norm in ("batch", "instance"):
        assert sum(p.numel() for p in VNet(1, 14, norm=norm).parameters()) == expected
    # Without a norm, every convolution has a bias instead of the norm's weight and bias.
    assert sum(p.numel() for p in VNet(1, 14, norm="none").parameters()) == expected - normed


@pytest.mark.parametrize("dims", [2, 3])
def test_call_is_encode_decode_head(dims: int) -> None:
    network, image = _vnet(dims).eval(), _image(dims)
    output = network(image)
    features = network.decode(network.encode(image))
    assert torch.equal(output.features, features)
    assert torch.equal(output.logits, network.head(features))
    assert torch.equal(output.pyramid[-1], network.encode(image)[-1])


@pytest.mark.parametrize("dims", [2, 3])
def test_zero_priors_change_nothing_and_every_stages_prior_is_added_to_its_skip(dims: int) -> None:
    network = _vnet(dims, widths=(8,) * 5, norm="instance")
    pyramid = network.encode(_image(dims))
    plain = network.decode(pyramid)
    zeros = [torch.zeros_like(level) for level in pyramid[:-1]]
    assert torch.equal(network.decode(pyramid, zeros), plain)
    for stage in range(4):
        priors = [torch.randn_like(z) if i == stage else z for i, z in enumerate(zeros)]
        found = network.decode(pyramid, priors)
        assert not torch.allclose(found, plain, atol=1e-4), f"stage {stage}"
        added = [level + prior for level, prior in zip(pyramid, priors, strict=False)] + [pyramid[-1]]
        assert torch.equal(found, network.decode(added)), f"stage {stage}"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_reaches_every_parameter(dims: int, norm: str) -> None:
    network = _vnet(dims, norm=norm, widths=(8,) * 5)
    logits = network(_image(dims)).logits
    nn.functional.cross_entropy(logits, torch.randint(0, 5, logits.shape[:1] + logits.shape[2:])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_forward_does_not_write_into_its_input_or_pyramid() -> None:
    network, image = _vnet(norm="none"), _image()
    kept, pyramid = image.clone(), network.encode(image)
    copies = [level.clone() for level in pyramid]
    network.decode(pyramid, [torch.ones_like(level) for level in pyramid[:-1]])
    assert torch.equal(image, kept)
    assert all(torch.equal(a, b) for a, b in zip(pyramid, copies, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_in_training_mixes_samples(norm: str) -> None:
    network, image = _vnet(norm=norm), _image()
    for training in (True, False):
        network.train(training)
        both = network(image).logits
        alone = torch.cat([network(image[i : i + 1]).logits for i in range(2)])
        assert torch.allclose(both, alone, atol=1e-5) == (norm != "batch" or not training)


def _channels_off(seen: Tensor) -> Tensor:
    return (seen == 0).flatten(2).all(2).float()


@pytest.mark.parametrize("dims", [2, 3])
def test_dropout_takes_half_of_the_channels_at_bottleneck_and_head(dims: int) -> None:
    network, image = _vnet(dims, dropout=True, norm="none", widths=(64, 8, 8, 8, 64)), _image(dims)
    with torch.no_grad():
        for module in network.modules():  # no channel is off by itself
            if getattr(module, "bias", None) is not None:
                module.bias.fill_(1.0)
    seen: list[Tensor] = []
    for module in (network.upsample[-1], network.classifier):
        module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    output = network(image)
    for dropped, shown in zip(seen, (output.pyramid[-1], output.features), strict=True):
        assert 0.3 < _channels_off(dropped).mean() < 0.7
        assert _channels_off(shown).mean() < 0.2
        assert torch.equal(dropped, torch.where(dropped == 0, 0.0, 2 * shown))
    assert not torch.equal(network(image).logits, output.logits)


def test_dropout_is_off_in_eval_and_where_not_asked_for() -> None:
    image = _image()
    plain, dropping = (_vnet(dropout=dropout, norm="instance") for dropout in (False, True))
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    assert torch.equal(plain.train()(image).logits, plain.eval()(image).logits)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    plain.train()(image)
    assert torch.equal(torch.get_rng_state(), before), "no random numbers are drawn for nothing"
    assert torch.equal(dropping.eval()(image).logits, plain(image).logits)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="layer"):
        _vnet(norm="layer")
    with pytest.raises(ValueError, match="5 levels, not 3"):
        _vnet(widths=(4, 8, 16))


# --- By a plan --------------------------------------------------------------------------------------------------------


def _plan(tiny: Any, **more: Any) -> Any:
    dims = tiny.dims
    strides = ((1,) * dims, *((2,) * dims,) * 4)
    values = {"network": "vnet", "widths": WIDTHS, "strides": strides, "kernels": ((3,) * dims,) * 5}
    patch = (32, 32, 16)[:dims]
    return dataclasses.replace(tiny.prepared.plan, patch_size=patch, **values, **more)


@pytest.mark.parametrize("dims", [2, 3])
def test_network_of_a_plan(tiny: dict[int, Any], dims: int) -> None:
    from semialign.networks.build import network_of_plan

    plan = _plan(tiny[dims], norm="none", dropout=True)
    network = network_of_plan(plan, 3)
    assert isinstance(network, VNet)
    assert network.widths == WIDTHS
    assert isinstance(network.dropout, nn.Dropout2d if dims == 2 else nn.Dropout3d)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    image = torch.zeros(1, len(plan.normalisation), *plan.patch_size)
    assert network(image).logits.shape == (1, 3, *plan.patch_size)
    assert any(isinstance(m, nn.BatchNorm3d) for m in network_of_plan(_plan(tiny[3], norm="batch"), 3).modules())


@pytest.mark.parametrize(("method", "dims"), [("mean-teacher", 2), ("ga-cps", 3)])
def test_a_plan_trains_is_resumed_and_predicts(tiny: dict[int, Any], tmp_path: Path, method: str, dims: int) -> None:
    from semialign.data.plan import write_plan
    from semialign.inference.model import load_trained
    from semialign.training.train import train

    data, plan = tiny[dims], _plan(tiny[dims], norm="batch", dropout=True)
    write_plan(tmp_path / "prepared" / "plan.yaml", plan)
    settings = {"steps": 3, "start": 0.0, "validations": 1, "workers": 0, "optimiser": "sgd", "checkpoint_steps": 2}
    run = tmp_path / "run"
    for resume in (False, True):
        train(
            data.raw,
            method=method,
            split=data.split,
            prepared=tmp_path / "prepared",
            output=run,
            settings=settings,
            accelerator="cpu",
            report=False,
            resume=resume,
        )
    loaded = load_trained(run, checkpoint="last", accelerator="cpu")
    assert loaded.plan == plan
    network = next(m for m in loaded.method.modules() if isinstance(m, VNet))
    moved = copy.deepcopy(network.encoder[0][0][1].running_mean)
    windows = torch.randn(2, len(plan.normalisation), *plan.patch_size)
    first = loaded.probabilities(windows)
    assert torch.equal(loaded.probabilities(windows), first)
    assert moved.any(), "running statistics were learned"
    assert torch.equal(network.encoder[0][0][1].running_mean, moved), "and predicting leaves them alone"
