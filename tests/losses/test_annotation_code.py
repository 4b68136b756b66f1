"""Labels as pictures: exact round trips, memberships by hand, colours far apart, gradients that lead back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semialign.common.errors import UserError
from semialign.losses.annotation_code import CODES, LabelCode, PaletteCode, ScalarCode, label_code, palette
from semialign.losses.dice import soft_dice

NAMES = list(CODES)


def _grey(*values: float) -> Tensor:
    """One picture of one row: greys."""
    return torch.tensor(values).expand(1, 3, 1, -1)


@given(
    name=st.sampled_from(NAMES),
    classes=st.integers(2, 64),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 1000),
)
def test_round_trip_is_exact(name: str, classes: int, shape: tuple[int, int, int], seed: int) -> None:
    code = label_code(name, classes)
    label = torch.randint(-1, classes, shape, generator=torch.Generator().manual_seed(seed))
    image = code.encode(label)
    assert image.shape == (shape[0], 3, *shape[1:])
    assert image.dtype == torch.float32
    assert (image.abs() <= 1).all()
    back = code.decode(image)
    assert back.dtype == torch.int64
    assert torch.equal(back, label.clamp(min=0))
    members = code.memberships(image)
    assert members.shape == (shape[0], classes, *shape[1:])
    assert torch.equal(members.argmax(1), label.clamp(min=0))


@pytest.mark.parametrize("classes", [2, 3, 10, 64])
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_survives_noise_of_almost_half_the_distance(name: str, classes: int) -> None:
    code = label_code(name, classes)
    label = torch.arange(classes).repeat(20).view(1, 20, classes)
    colours = code.encode(torch.arange(classes).view(1, 1, -1))[0, :, 0].T
    noise = torch.randn(1, 3, 20, classes, generator=torch.Generator().manual_seed(0))
    length = 0.49 * torch.pdist(colours).min()
    noise = noise / noise.norm(dim=1, keepdim=True) * length
    assert torch.equal(code.decode(code.encode(label) + noise), label)


def test_scalar_by_hand() -> None:
    code = ScalarCode(5)
    label = torch.tensor([[[-1, 0, 1, 2, 3, 4]]])
    assert code.encode(label)[0, :, 0].tolist() == [[-1, -1, -0.5, 0, 0.5, 1]] * 3
    # The mean over the channels is what counts: (-1 - 0.5 + 0.9) / 3 = -0.2, that is class (0.8 / 2) 4 = 1.6.
    image = torch.tensor([-1.0, -0.5, 0.9]).view(1, 3, 1, 1)
    assert code.decode(image).item() == 2
    assert code.memberships(image).flatten().tolist() == pytest.approx([0, 0.4, 0.6, 0, 0], abs=1e-6)
    assert code.decode(_grey(-7, 7)).tolist() == [[[0, 4]]]


def test_scalar_memberships_of_two_classes_by_hand() -> None:
    members = ScalarCode(2).memberships(_grey(-3, -1, -0.5, 0.25, 1, 1.5))[0, :, 0]
    assert members.tolist() == [
        pytest.approx([1, 1, 0.75, 0.375, 0, 0]),
        pytest.approx([0, 0, 0.25, 0.625, 1, 1]),
    ]


@given(classes=st.integers(2, 12), value=st.floats(-1.5, 1.5, width=32))
def test_scalar_memberships_are_the_tents_of_the_definition(classes: int, value: float) -> None:
    v = min(max((value + 1) / 2 * (classes - 1), 0), classes - 1)
    expected = [max(0.0, 1 - abs(v - k)) for k in range(classes)]
    members = ScalarCode(classes).memberships(_grey(value)).flatten()
    assert members.tolist() == pytest.approx(expected, abs=1e-5)
    assert members.sum().item() == pytest.approx(1, abs=1e-6)


def _slopes(code: LabelCode, grey: float, k: int) -> float:
    """Return the derivative of the membership of class ``k`` by a grey, all channels together."""
    value = torch.tensor(grey, requires_grad=True)
    code.memberships(value.expand(1, 3, 1, 1))[0, k].sum().backward()
    assert value.grad is not None
    return value.grad.item()


def test_scalar_gradient_leads_back_inside_and_never_further_out() -> None:
    code = ScalarCode(2)
    # d membership / d grey is 1/2 of two classes. Descent goes against the gradient, so what leads up is negative.
    for grey, k, slope in [(-0.5, 1, 0.5), (-1.0, 1, 0.5), (1.0, 1, 0.5), (0.3, 0, -0.5)]:
        assert _slopes(code, grey, k) == pytest.approx(slope)
    assert _slopes(code, -2.0, 0) == pytest.approx(-0.5)  # less of class 0: the grey goes up, back inside
    assert _slopes(code, -2.0, 1) == 0  # less of class 1: it would go further down
    assert _slopes(code, 2.0, 1) == pytest.approx(0.5)
    assert _slopes(code, 2.0, 0) == 0


@pytest.mark.parametrize(("name", "strength"), [("scalar", 1.0), ("palette", 0.5)])
def test_a_wrong_picture_learns_its_label(name: str, strength: float) -> None:
    # Far beyond a colour the palette's softmax is flat, so it starts nearer.
    code = label_code(name, 2)
    label = torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    row = strength * torch.tensor([-1.6, 1.4, -1.3, 0.1, 1.8, -0.2])
    image = row.expand(1, 3, 1, -1).clone().requires_grad_()
    for _ in range(300):
        loss = soft_dice(code.memberships(image), label)
        image.data -= 2 * torch.autograd.grad(loss, image)[0]
    assert torch.equal(code.decode(image.detach()), label)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    code = label_code(name, 4)
    image = (0.6 * torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1))).double().requires_grad_()
    assert torch.autograd.gradcheck(code.memberships, image, eps=1e-6, atol=1e-4)


def test_palette_memberships_by_hand() -> None:
    code = PaletteCode(2, temperature=4.0)
    assert code.colours.tolist() == [[-1, -1, -1], [1, 1, 1]]
    # Square distances of (0.5, 0, 0): 2.25 + 1 + 1 = 4.25 to black, 0.25 + 1 + 1 = 2.25 to white.
    members = code.memberships(torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    black = 1 / (1 + torch.tensor((4.25 - 2.25) / 4.0).exp().item())
    assert members.tolist() == pytest.approx([black, 1 - black], rel=1e-6)


@given(classes=st.integers(2, 20), seed=st.integers(0, 1000))
def test_palette_memberships_are_a_softmax_of_square_distances(classes: int, seed: int) -> None:
    code = PaletteCode(classes)
    image = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    square = torch.cdist(image.movedim(1, -1).double(), code.colours.double()[None]).square()
    expected = (-square / code.temperature).softmax(-1).movedim(-1, 1)
    assert torch.allclose(code.memberships(image), expected.float(), atol=1e-5)
    assert torch.equal(code.decode(image), square.argmin(-1))


@pytest.mark.parametrize("classes", range(2, 65))
def test_colours_are_far_apart_and_sure_of_themselves(classes: int) -> None:
    colours = torch.from_numpy(palette(classes))
    assert colours.shape == (classes, 3)
    assert colours.abs().max() == 1
    assert colours[0].tolist() == [-1, -1, -1]
    floors = [(2, 3.46), (4, 2.82), (8, 2.0), (9, 1.73), (14, 1.41), (27, 1.0), (35, 0.86), (63, 0.70), (64, 0.66)]
    assert torch.pdist(colours).min() >= next(floor for most, floor in floors if classes <= most)
    code = PaletteCode(classes)
    own = code.memberships(code.encode(torch.arange(classes).view(1, 1, -1)))[0, :, 0].diagonal()
    assert own.min() > 0.95  # so that p^10 >= 0.5, which asks for 0.933, can be met by every class


def test_renaming_the_colours_renames_the_memberships() -> None:
    code, renamed = PaletteCode(5), PaletteCode(5)
    order = torch.tensor([3, 1, 4, 0, 2])
    renamed.colours = code.colours[order]
    image = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(renamed.memberships(image), code.memberships(image)[:, order], atol=1e-6)
    label = torch.randint(0, 5, (2, 4, 4), generator=torch.Generator().manual_seed(3))
    assert torch.equal(renamed.encode(label), code.encode(order[label]))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_and_half_precision_change_no_class(name: str) -> None:
    code = label_code(name, 7)
    label = torch.arange(7).view(1, 1, 7)
    image = code.encode(label) + 0.1
    expected = code.memberships(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(code.memberships(image), expected)
        assert torch.equal(code.decode(code.encode(label).bfloat16()), label)
        half = code.memberships(image.bfloat16())
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_code_has_nothing_to_learn_or_keep(name: str) -> None:
    code = label_code(name, 3)
    assert not list(code.parameters())
    assert not code.state_dict()


def test_unknown_code_and_too_few_classes_are_told() -> None:
    with pytest.raises(UserError, match="did you mean 'palette'"):
        label_code("pallette", 3)
    with pytest.raises(ValueError, match="1 classes"):
        label_code("scalar", 1)
