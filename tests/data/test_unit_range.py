"""Images back in the range of pretrained autoencoders."""

import dataclasses
from typing import Any

import pytest
import torch

from semialign.common.errors import UserError
from semialign.data.plan import Normalisation
from semialign.data.unit_range import UnitRange


def _range(tiny: Any, *channels: Normalisation) -> UnitRange:
    return UnitRange(dataclasses.replace(tiny.prepared.plan, normalisation=channels))


def test_colours_share_their_ends(tiny_2d: Any) -> None:
    # Usual values 60 to 120 and 90 to 150; the plan's windows are three times as wide.
    red = Normalisation("picture", low=0.0, high=180.0, mean=80.0, std=10.0)
    green = Normalisation("picture", low=30.0, high=210.0, mean=100.0, std=20.0)
    to_unit = _range(tiny_2d, red, green, red)
    raw = torch.tensor([60.0, 105.0, 150.0, 500.0])
    image = torch.stack([(raw - 80) / 10, (raw - 100) / 20, (raw - 80) / 10])[None, :, None]
    assert to_unit(image)[0, :, 0].T.tolist() == [pytest.approx([v] * 3, abs=1e-5) for v in (-1.0, 0.0, 1.0, 1.0)]


def test_grey_is_repeated(tiny_2d: Any) -> None:
    ct = Normalisation("ct", low=-200.0, high=300.0, mean=50.0, std=100.0)
    unit = _range(tiny_2d, ct)((torch.tensor([[[[-200.0, 50.0, 300.0]]]]) - 50) / 100)
    assert unit.shape == (1, 3, 1, 3)
    assert unit[0, :, 0].tolist() == [pytest.approx([-1.0, 0.0, 1.0])] * 3
    assert _range(tiny_2d, Normalisation("z-score"))(torch.full((1, 1, 1, 1), 1.5)).unique().item() == pytest.approx(
        0.5
    )


def test_without_a_plan_images_stay(tiny_2d: Any) -> None:
    image = torch.tensor([[[[-2.0, -0.5, 0.5, 2.0]]]])
    assert UnitRange(None)(image)[0, 0, 0].tolist() == [-1.0, -0.5, 0.5, 1.0]


def test_two_channels_are_refused(tiny_2d: Any) -> None:
    with pytest.raises(UserError, match="grey or RGB images, not 2 channels"):
        _range(tiny_2d, Normalisation("z-score"), Normalisation("z-score"))
