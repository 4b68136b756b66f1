"""The network keeps its contract: shapes, pyramid, priors, gradients, in 2D and 3D, on anisotropic grids."""

import pytest
import torch
from torch import nn

from semialign.methods.base import require_network
from semialign.networks.contract import Network
from semialign.networks.initialise import initialise
from semialign.networks.normalisation import InstanceNorm
from semialign.networks.unet import UNet

SHAPES = {
    "2d": {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3},
    "2d anisotropic": {"strides": ((1, 1), (1, 2), (2, 2)), "kernels": ((1, 3), (3, 3), (3, 3))},
    "3d": {"strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "kernels": ((3, 3, 3),) * 3},
    "3d anisotropic": {"strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)), "kernels": ((3, 3, 1), (3, 3, 1), (3, 3, 3))},
}
WIDTHS = (4, 6, 8)


def _unet(shape: str, channels: int = 2, classes: int = 5, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(channels, classes, widths=WIDTHS, **SHAPES[shape])  # type: ignore[arg-type]


def _image(network: UNet, channels: int = 2, seed: int = 1) -> torch.Tensor:
    size = [4 * s for s in network.strides[-1]]
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_keeps_the_contract(shape: str) -> None:
    network = _unet(shape)
    assert isinstance(network, Network)
    require_network(network)
    dims = int(shape[0])
    assert (network.spatial_dims, network.num_classes, network.feature_width) == (dims, 5, WIDTHS[0])
    assert network.widths == WIDTHS
    assert len(network.strides) == len(WIDTHS)
    assert network.strides[0] == (1,) * dims


def test_another_module_does_not_keep_the_contract() -> None:
    with pytest.raises(TypeError, match="Linear"):
        require_network(nn.Linear(1, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_as_the_contract_says(shape: str) -> None:
    network = _unet(shape)
    image = _image(network)
    size = image.shape[2:]
    logits, features, pyramid = network(image)
    assert logits.shape == (2, 5, *size)
    assert features.shape == (2, network.feature_width, *size)
    for level, width, stride in zip(pyramid, network.widths, network.strides, strict=True):
        assert level.shape == (2, width, *(n // s for n, s in zip(size, stride, strict=True)))


def test_strides_are_cumulative() -> None:
    assert _unet("3d anisotropic").strides == ((1, 1, 1), (2, 2, 1), (4, 4, 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_call_is_encode_decode_head(shape: str) -> None:
    network = _unet(shape).eval()
    image = _image(network)
    output = network(image)
    features = network.decode(network.encode(image))
    assert torch.equal(output.features, features)
    assert torch.equal(output.logits, network.head(features))
    assert torch.equal(output.pyramid[-1], network.encode(image)[-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_priors_change_nothing_and_every_stages_prior_changes_the_output(shape: str) -> None:
    network = _unet(shape)
    pyramid = network.encode(_image(network))
    plain = network.decode(pyramid)
    zeros = [torch.zeros_like(level) for level in pyramid[:-1]]
    assert torch.equal(network.decode(pyramid, zeros), plain)
    for stage in range(len(zeros)):
        priors = [torch.randn_like(z) if i == stage else z for i, z in enumerate(zeros)]
        assert not torch.allclose(network.decode(pyramid, priors), plain, atol=1e-3), f"stage {stage}"


def test_priors_are_added_to_the_skip_and_take_gradient() -> None:
    network = _unet("2d")
    pyramid = network.encode(_image(network))
    priors = [torch.randn_like(level).requires_grad_() for level in pyramid[:-1]]
    added = [level + prior for level, prior in zip(pyramid, priors, strict=False)] + [pyramid[-1]]
    assert torch.allclose(network.decode(pyramid, priors), network.decode(added), atol=1e-6)
    (network.decode(pyramid, priors) * torch.randn(1, network.feature_width, 1, 1)).square().sum().backward()
    assert all(prior.grad is not None and prior.grad.any() for prior in priors)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_reaches_every_parameter(shape: str) -> None:
    network = _unet(shape)
    logits = network(_image(network)).logits
    nn.functional.cross_entropy(logits, torch.randint(0, 5, logits.shape[:1] + logits.shape[2:])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_samples_do_not_see_each_other() -> None:
    network = _unet("2d")
    image = _image(network)
    both = network(image).logits
    alone = torch.cat([network(image[i : i + 1]).logits for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-5)


def test_train_and_eval_agree() -> None:
    # A teacher and a prediction must see what training saw: no running statistics, no dropout.
    network = _unet("3d")
    image = _image(network)
    assert torch.equal(network.train()(image).logits, network.eval()(image).logits)


def test_forward_does_not_write_into_its_input_or_pyramid() -> None:
    network = _unet("2d")
    image = _image(network)
    kept = image.clone()
    pyramid = network.encode(image)
    copies = [level.clone() for level in pyramid]
    network.decode(pyramid, [torch.ones_like(level) for level in pyramid[:-1]])
    assert torch.equal(image, kept)
    assert all(torch.equal(a, b) for a, b in zip(pyramid, copies, strict=True))


def test_shifting_the_image_by_the_stride_shifts_the_output() -> None:
    network = _unet("2d").eval()
    for module in network.modules():  # its statistics are of the whole image, so leave them out
        if isinstance(module, InstanceNorm):
            module.forward = lambda x: x  # type: ignore[method-assign]
    image = torch.zeros(1, 2, 96, 96)
    image[..., 44:52, 44:52] = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    moved = network(image.roll((4, 4), (2, 3))).logits
    assert torch.allclose(
        moved[..., 32:72, 32:72], network(image).logits.roll((4, 4), (2, 3))[..., 32:72, 32:72], atol=1e-4
    )


@pytest.mark.parametrize("start", ["kaiming", "xavier"])
def test_starts_have_the_stated_spread_and_zero_biases(start: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(8, 32, 3), nn.ConvTranspose3d(32, 16, 2), nn.InstanceNorm3d(16, affine=True))
    assert initialise(network, start) is network
    convolution = network[0]
    fan_in, fan_out = 8 * 27, 32 * 27
    expected = (2 / (1 + 0.01**2) / fan_in) ** 0.5 if start == "kaiming" else (2 / (fan_in + fan_out)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert not convolution.bias.any()
    assert not network[1].bias.any()
    assert torch.equal(network[2].weight, torch.ones(16))


def test_starts_follow_the_seed_and_differ_from_each_other() -> None:
    weights = []
    for start, seed in (("kaiming", 0), ("kaiming", 0), ("kaiming", 1), ("xavier", 0)):
        network = _unet("2d", seed=5)
        torch.manual_seed(seed)
        weights.append(initialise(network, start).state_dict()["encoder.1.0.0.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_unknown_start() -> None:
    with pytest.raises(ValueError, match="zeros"):
        initialise(nn.Linear(1, 1), "zeros")


def test_network_of_a_plan(tiny: dict) -> None:
    from semialign.networks.build import network_of_plan

    for dims in (2, 3):
        plan = tiny[dims].prepared.plan
        network = network_of_plan(plan, 3)
        image = torch.zeros(1, len(plan.normalisation), *plan.patch_size)
        assert network(image).logits.shape == (1, 3, *plan.patch_size)
        kernels = [tuple(stage[0][0].kernel_size) for stage in network.encoder]
        assert kernels == [tuple(k) for k in plan.kernels]
