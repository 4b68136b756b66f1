"""The symmetries of a picture: eight of a square, fewer of others, and what the loader makes of them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from semialign.data.loader import TwoStream
from semialign.data.symmetries import COUNT, symmetries_of, turned

PICTURE = torch.arange(12).reshape(1, 3, 4)


def test_the_square_has_eight_and_any_two_make_a_third() -> None:
    square = torch.arange(9).reshape(3, 3)
    every = {str(turned(square, s).tolist()) for s in range(COUNT)}
    assert len(every) == COUNT
    assert {str(turned(turned(square, a), b).tolist()) for a in range(COUNT) for b in range(COUNT)} == every
    assert {str(torch.rot90(square, k).tolist()) for k in range(4)} < every


def test_flips_and_exchange_by_hand() -> None:
    assert torch.equal(turned(PICTURE, 0), PICTURE)
    assert turned(PICTURE, 1)[0, 0].tolist() == [8, 9, 10, 11]
    assert turned(PICTURE, 2)[0, 0].tolist() == [3, 2, 1, 0]
    assert turned(PICTURE, 5)[0].tolist() == np.flip(PICTURE[0].numpy(), 0).T.tolist()


@pytest.mark.parametrize(
    ("size", "spacing", "mirror", "expected"),
    [
        ((8, 8), (1.0, 1.0), (0, 1), tuple(range(8))),
        ((8, 16), (1.0, 1.0), (0, 1), (0, 1, 2, 3)),
        ((8, 8), (1.0, 2.0), (1, 0), (0, 1, 2, 3)),
        ((8, 8), (1.0, 1.0), (0,), (0, 1)),
        ((8, 8), (1.0, 1.0), (1,), (0, 2)),
        ((8, 8), (1.0, 1.0), (), (0,)),
    ],
)
def test_only_what_the_plan_may_flip(size: Any, spacing: Any, mirror: Any, expected: tuple[int, ...]) -> None:
    assert symmetries_of(size, spacing, mirror) == expected


def _stream(tiny: Any, *, patch: tuple[int, int] = (48, 48), **options: Any) -> TwoStream:
    plan = dataclasses.replace(tiny.prepared.plan, patch_size=patch)
    split = tiny.prepared.split
    values = {"labelled": split.labelled, "unlabelled": split.unlabelled, "batch": (2, 2), "seed": 3} | options
    return TwoStream(tiny.prepared.store, plan, symmetries=True, **values)


def test_the_loader_turns_and_says_how(tiny_2d: Any) -> None:
    data, store, drawn = _stream(tiny_2d), tiny_2d.prepared.store, set()
    for step in range(12):
        batch = data[step]
        assert batch.symmetry_l is not None
        assert batch.symmetry_u is not None
        for image, label, case, s in zip(batch.image_l, batch.label_l, batch.index_l, batch.symmetry_l, strict=True):
            stored = torch.from_numpy(store.image(data.cases["labelled"][case])[:].astype(np.float32))
            of_label = torch.from_numpy(store.label(data.cases["labelled"][case])[:].astype(np.int64))
            assert torch.equal(image, turned(stored, int(s)))
            assert torch.equal(label, turned(of_label, int(s)))
        for image, case, s in zip(batch.image_u, batch.index_u, batch.symmetry_u, strict=True):
            stored = torch.from_numpy(store.image(data.cases["unlabelled"][case])[:].astype(np.float32))
            assert torch.equal(image, turned(stored, int(s)))
        drawn |= {*batch.symmetry_l.tolist(), *batch.symmetry_u.tolist()}
    assert drawn == set(range(8))


def test_other_stages_have_no_symmetries_and_see_what_they_saw(tiny_2d: Any) -> None:
    prepared = tiny_2d.prepared
    split = prepared.split
    data = TwoStream(
        prepared.store, prepared.plan, labelled=split.labelled, unlabelled=split.unlabelled, batch=(2, 2), seed=3
    )
    batch = data[0]
    assert batch.symmetry_l is None
    assert batch.symmetry_u is None


def test_no_augmentation_and_no_unlabelled_case(tiny_2d: Any) -> None:
    batch = _stream(tiny_2d, augmentation="none", unlabelled=())[1]
    assert batch.symmetry_l is not None
    assert batch.symmetry_l.tolist() == [0, 0]
    assert batch.symmetry_u is not None
    assert batch.symmetry_u.shape == (0,)
    assert batch.image_u.shape == (0, 3, 48, 48)


def test_fabric_moves_a_batch_without_symmetries(tiny_2d: Any) -> None:
    from lightning_fabric import Fabric

    batch = _stream(tiny_2d)[0]
    for one in (batch, batch._replace(symmetry_l=None, symmetry_u=None)):
        moved = Fabric(accelerator="cpu", devices=1).to_device(one)
        assert (moved.symmetry_l is None) == (one.symmetry_l is None)
