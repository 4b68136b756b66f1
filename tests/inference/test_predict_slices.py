"""Volumes predicted slice by slice: each slice as a picture alone, the result on the input's own grid."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from semialign.common.errors import UserError
from semialign.data.plan import Normalisation, Plan
from semialign.inference.predictor import predict_with
from semialign.inference.sliding_window import Planes, predict_planes

CODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]


def make_plan(axis: int = 2, **changes: object) -> Plan:
    fields = {
        "dimensions": 2,
        "slice_axis": axis,
        "spacing": None,
        "picture_size": None,
        "normalisation": (Normalisation("ct", mean=0, std=1),),
        "patch_size": (12, 8),
        "widths": (4,),
        "strides": ((1, 1),),
        "kernels": ((3, 3),),
        "mirror_axes": (0, 1),
        "batch_labelled": 2,
        "batch_unlabelled": 2,
        "made_for": "a test",
    }
    return Plan(**{**fields, **changes})


class Threshold:
    """Foreground is as probable as the intensity says: 0 at 0, 1 at 100."""

    channel_names, class_names, device = ("MRI",), ["background", "organ"], torch.device("cpu")

    def __init__(self, plan: Plan, shift: float = 0.0) -> None:
        self.plan, self.shift = plan, shift
        self.sizes: list[int] = []

    def probabilities(self, windows: Tensor) -> Tensor:
        assert windows.shape[1:] == (1, *self.plan.patch_size)
        self.sizes.append(len(windows))
        bright = (windows[:, 0] / 100 + self.shift).clamp(0, 1)
        return torch.stack([1 - bright, bright], 1)


class SameInSlice(Threshold):
    """Refuses whatever is not of one slice, in volumes whose every slice is of one intensity."""

    def probabilities(self, windows: Tensor) -> Tensor:
        assert torch.equal(windows, windows[:, :, :1, :1].expand_as(windows))
        return super().probabilities(windows)


def write(path: Path, array: np.ndarray, codes: str = "RAS", spacing: tuple[float, ...] = (1, 1, 1)) -> Path:
    """A NIfTI file, tilted by nine degrees from ``codes``."""
    axes = np.zeros((3, 3))
    for axis, (to, sign) in enumerate(nibabel.orientations.axcodes2ornt(codes)):
        axes[int(to), axis] = sign * spacing[axis]
    angle = np.deg2rad(9)
    about = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = about @ axes, (-31, 12, 77)
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    nibabel.save(image, path)
    return path


def solid(shape: tuple[int, ...]) -> np.ndarray:
    """An object without any symmetry."""
    mask = np.zeros(shape, bool)
    a, b, c = (max(1, n // 4) for n in shape)
    mask[a : 3 * a, b : 2 * b, c : 2 * c] = True
    mask[a : 2 * a, b : 3 * b + 1, c : 2 * c] = True
    mask[a : 2 * a, b : 2 * b, c : 3 * c + 1] = True
    return mask


def image_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 100, 0).astype(np.int16)


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.integers(5, 26)] * 3),
    st.tuples(*[st.sampled_from([0.8, 1.0, 3.0])] * 3),
    st.sampled_from([None, (0.7, 1.1), (1.5, 0.9), "size"]),
    st.integers(0, 2),
    st.sampled_from([None, 1, 3]),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_prediction_lies_on_the_inputs_grid(
    tmp_path_factory: pytest.TempPathFactory,
    codes: str,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    target: tuple[float, ...] | str | None,
    axis: int,
    batch: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("case")
    mask = solid(shape)
    path = write(folder / "a.nii.gz", image_of(mask), codes, spacing)
    plan = make_plan(axis, picture_size=(17, 13)) if target == "size" else make_plan(axis, spacing=target)
    summary = predict_with([Threshold(plan)], [path], folder / "out", probabilities=True, batch=batch)
    assert summary.failed == {}
    source, result = nibabel.load(path), nibabel.load(summary.done[0])
    label = np.asarray(result.dataobj).astype(bool)
    assert label.shape == shape
    np.testing.assert_array_equal(result.affine, source.affine)
    for field in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_y"):
        np.testing.assert_array_equal(result.header[field], source.header[field])
    probabilities = np.load(folder / "out" / "a_probabilities.npy")
    assert probabilities.shape == (2, *shape)
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    own = int(np.flatnonzero(nibabel.orientations.io_orientation(source.affine)[:, 0] == axis)[0])
    assert (label.any(tuple(a for a in range(3) if a != own)) <= mask.any(tuple(a for a in range(3) if a != own))).all()
    if target is None:
        np.testing.assert_array_equal(label, mask)
    elif target != "size":
        # Voxels up to four of the input's are one of the network's; nothing goes beyond the slice.
        reach = np.ones([1 if a == own else 5 for a in range(3)], bool)
        assert not (label & ~binary_dilation(mask, reach)).any()
        assert label[binary_erosion(mask, reach, iterations=2)].all()


@pytest.mark.parametrize("codes", ["RAS", "SLP", "AIR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_network_sees_slices_across_the_axis(tmp_path: Path, codes: str, axis: int) -> None:
    affine = nibabel.load(write(tmp_path / "grid.nii.gz", np.zeros((13, 14, 15), np.int16), codes)).affine
    own = int(np.flatnonzero(nibabel.orientations.io_orientation(affine)[:, 0] == axis)[0])
    steps = np.arange((13, 14, 15)[own]).reshape([-1 if a == own else 1 for a in range(3)])
    array = np.broadcast_to(steps * 7, (13, 14, 15)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", array, codes)
    model = SameInSlice(make_plan(axis))
    done = predict_with([model], [path], tmp_path / "out", batch=4).done
    np.testing.assert_array_equal(np.asarray(nibabel.load(done[0]).dataobj), array > 50)
    assert max(model.sizes) == 4, "as many slices at a time as windows are asked for"
    wrong = SameInSlice(make_plan((axis + 1) % 3))
    assert list(predict_with([wrong], [path], tmp_path / "wrong").failed) == [path]


def position_aware(windows: Tensor) -> Tensor:
    """Probabilities that depend on intensity and on the place in the window."""
    ramp = torch.linspace(-1, 1, windows.shape[-1])
    tilt = torch.linspace(-2, 1, windows.shape[-2])[:, None]
    return torch.softmax(torch.stack([windows[:, 0], windows[:, 0] * ramp, tilt + windows[:, -1]], 1), 1)


def joined(planes: list[Planes]) -> Tensor:
    assert [p.start for p in planes] == list(np.cumsum([0, *(p.probabilities.shape[1 + p.axis] for p in planes)]))[:-1]
    return torch.cat([p.probabilities for p in planes], 1 + planes[0].axis)


@given(
    st.tuples(*[st.integers(1, 13)] * 3),
    st.tuples(*[st.integers(3, 9)] * 2),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 5),
)
def test_every_slice_is_predicted_as_a_picture(
    shape: tuple[int, ...], patch: tuple[int, int], axis: int, overlap: float, batch: int
) -> None:
    image = torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=(2, *shape)).astype(np.float32))
    settings = {"patch": patch, "overlap": overlap}
    copies = [
        Planes(p.axis, p.start, p.probabilities.clone())
        for p in predict_planes(image, position_aware, slice_axis=axis, batch=batch, **settings)
    ]
    assert {p.axis for p in copies} == {axis}
    found = joined(copies)
    for place in range(shape[axis]):
        parts = predict_planes(image.select(1 + axis, place), position_aware, **settings)
        alone = joined([Planes(p.axis, p.start, p.probabilities.clone()) for p in parts])
        torch.testing.assert_close(found.select(1 + axis, place), alone, atol=1e-5, rtol=0)


def test_only_a_few_slices_are_held() -> None:
    image = torch.zeros(1, 16, 16, 500)
    sizes = [
        p.probabilities.numel() for p in predict_planes(image, position_aware, patch=(8, 8), slice_axis=2, batch=3)
    ]
    assert max(sizes) == 3 * 3 * 16 * 16


def test_mirroring_is_within_the_slice(tmp_path: Path) -> None:
    class Sided(Threshold):
        def probabilities(self, windows: Tensor) -> Tensor:
            side = torch.linspace(0, 1, windows.shape[2])[:, None].expand(len(windows), *windows.shape[2:])
            return torch.stack([1 - side, side], 1)

    path = write(tmp_path / "a.nii.gz", np.zeros((12, 8, 5), np.int16))
    predict_with([Sided(make_plan(mirror_axes=(0,)))], [path], tmp_path / "out", mirror=True, probabilities=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_probabilities.npy"), 0.5, atol=1e-3)


def test_an_ensemble_needs_one_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", np.full((14, 14, 14), 40, np.int16))
    models = [Threshold(make_plan(), shift) for shift in (-0.1, 0.4)]
    predict_with(models, [path], tmp_path / "out", probabilities=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_probabilities.npy")[1], 0.55, atol=1e-3)
    for other, what in ((make_plan(1), "slice_axis"), (make_plan(2, spacing=(1.0, 1.0)), "spacing")):
        with pytest.raises(UserError, match=f"second: its plan's {what} is not that of first"):
            predict_with([models[0], Threshold(other)], [path], tmp_path / "out", names=["first", "second"])
