"""Planes streamed to files against the same work done on the whole image at once."""

import errno
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semialign.common.errors import UserError
from semialign.data.grid import Grid
from semialign.data.resample import resize
from semialign.inference import output
from semialign.inference.output import decided, most_probable, resampled, write_prediction
from semialign.inference.sliding_window import Planes


def stream(values: Tensor, axis: int, step: int) -> Iterator[Planes]:
    """Planes as the sliding window gives them: in memory that is used again."""
    for start in range(0, values.shape[1 + axis], step):
        part = values.narrow(1 + axis, start, min(step, values.shape[1 + axis] - start)).clone()
        yield Planes(axis, start, part)
        part.fill_(torch.nan)


@given(
    st.integers(2, 3).flatmap(lambda d: st.tuples(*[st.tuples(*[st.integers(1, 13)] * d)] * 2)),
    st.integers(0, 2),
    st.integers(1, 5),
    st.sampled_from([1, 100, 1 << 22]),
)
@settings(max_examples=60, deadline=None)
def test_streamed_resampling_is_that_of_the_whole(shapes: tuple, axis: int, step: int, chunk: int) -> None:
    size, shape = shapes
    axis %= len(size)
    values = torch.softmax(3 * torch.randn(3, *size, generator=torch.Generator().manual_seed(0)), 0)
    whole = resize(values.numpy(), shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "CHUNK", chunk)
        parts, expected = [], 0
        for part in resampled(stream(values, axis, step), size, shape):
            assert (part.axis, part.start) == (axis, expected)
            expected += part.probabilities.shape[1 + axis]
            parts.append(part.probabilities.clone())
    joined = torch.cat(parts, 1 + axis)
    assert tuple(joined.shape[1:]) == shape
    np.testing.assert_allclose(joined.numpy(), whole, atol=2e-5)
    np.testing.assert_allclose(joined.sum(0).numpy(), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "kind"), [(2, torch.uint8), (14, torch.uint8), (256, torch.uint8), (300, torch.int16)]
)
def test_most_probable_is_numpys_argmax(classes: int, kind: torch.dtype) -> None:
    values = torch.randint(0, classes // 2 + 1, (classes, 7, 6, 5))  # many ties: the first of equals
    result = most_probable(values)
    assert result.dtype == kind
    np.testing.assert_array_equal(result.numpy(), values.numpy().argmax(0))


@given(
    st.tuples(*[st.tuples(*[st.integers(1, 9)] * 3)] * 2),
    st.integers(0, 2),
    st.sampled_from([2, 14, 300]),
    st.floats(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_classes_left_out_change_no_label(shapes: tuple, axis: int, classes: int, sharpness: float) -> None:
    size, shape = shapes
    shape = (*shape[:axis], size[axis], *shape[axis + 1 :])  # across the planes all is done
    logits = sharpness * torch.randn(classes, *size, generator=torch.Generator().manual_seed(0))
    logits[classes // 2 :] -= sharpness  # some classes win nowhere
    values = torch.softmax(logits, 0)
    label = decided(values, axis, shape)
    whole = torch.from_numpy(resize(values.numpy(), shape))
    assert label.dtype == most_probable(whole).dtype
    chosen = whole.gather(0, label[None].long())[0]
    np.testing.assert_allclose(chosen.numpy(), whole.amax(0).numpy(), atol=2e-6)  # but for ties, by rounding


def test_a_class_that_wins_nowhere_costs_no_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    resized = []
    resize_axis = output.resize_axis
    monkeypatch.setattr(output, "resize_axis", lambda v, *a: resized.append(len(v)) or resize_axis(v, *a))
    values = torch.full((14, 3, 4, 4), 0.001)
    values[5] = 1 - 13 * 0.001
    values[9, 0, 0], values[5, 0, 0] = values[5, 0, 0].clone(), values[9, 0, 0].clone()
    label = decided(values, 0, (3, 8, 8))
    assert resized == [2, 2]
    assert sorted(label.unique().tolist()) == [5, 9]


def test_more_classes_than_a_byte_holds(tmp_path: Path) -> None:
    values = torch.zeros(300, 2, 2, 2)
    values[299] = 1
    grid = Grid((2, 2, 2), np.eye(4))
    write_prediction(stream(values, 0, 1), tmp_path / "a.nii.gz", grid=grid, size=(2, 2, 2), like=tmp_path / "none")
    assert (np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj) == 299).all()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / "a.nii.gz"
    grid = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(UserError, match="a file stands where a folder should be") as error:
        write_prediction(stream(torch.ones(2, 2, 2, 2), 0, 1), target, grid=grid, size=(2, 2, 2), like=target)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    grid = Grid((2, 2, 2), np.eye(4))
    planes = stream(torch.ones(2, 2, 2, 2), 0, 1)
    paths = {"like": tmp_path / "none", "probabilities_path": tmp_path / "a_probabilities.npy"}
    with pytest.raises(UserError, match=r"a_probabilities\.npy: the disk is full"):
        write_prediction(planes, tmp_path / "a.nii.gz", grid=grid, size=(2, 2, 2), **paths)
    assert list(tmp_path.iterdir()) == []
