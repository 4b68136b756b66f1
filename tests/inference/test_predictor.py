"""Prediction end to end with a model that knows the answer: bright is foreground."""

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch import Tensor

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.plan import Normalisation, Plan
from semialign.inference.predictor import predict, predict_with

CODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]


def make_plan(dimensions: int = 3, **changes) -> Plan:
    fields = {
        "dimensions": dimensions,
        "spacing": None,
        "picture_size": None,
        "normalisation": (Normalisation("ct", mean=0, std=1),),
        "patch_size": (12,) * dimensions,
        "widths": (4,),
        "strides": ((1,) * dimensions,),
        "kernels": ((3,) * dimensions,),
        "mirror_axes": tuple(range(dimensions)),
        "batch_labelled": 2,
        "batch_unlabelled": 2,
        "made_for": "a test",
    }
    return Plan(**{**fields, **changes})


class Threshold:
    """Foreground is as probable as the intensity says: 0 at 0, 1 at 100."""

    def __init__(self, plan: Plan, classes: int = 2, shift: float = 0.0) -> None:
        self.plan = plan
        self.channel_names = tuple(f"channel {i}" for i in range(len(plan.normalisation)))
        self.class_names = ["background", *(f"class {i}" for i in range(1, classes))]
        self.device = torch.device("cpu")
        self.shift = shift
        self.calls = 0

    def probabilities(self, windows: Tensor) -> Tensor:
        self.calls += 1
        assert windows.shape[2:] == self.plan.patch_size
        bright = ((windows[:, 0] / 100) + self.shift).clamp(0, 1)
        rest = bright / (len(self.class_names) - 1)
        return torch.stack([1 - bright, *[rest] * (len(self.class_names) - 1)], 1)


def affine_of(codes: str, spacing: tuple[float, ...]) -> np.ndarray:
    turn = nibabel.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    for axis, (to, sign) in enumerate(turn):
        axes[int(to), axis] = sign * spacing[axis]
    angle = np.deg2rad(9)
    about = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about @ axes
    affine[:3, 3] = (-31, 12, 77)
    return affine


def solid(shape: tuple[int, ...]) -> np.ndarray:
    """An object without any symmetry: a bar along the first axis with a foot along the second near index 0."""
    mask = np.zeros(shape, bool)
    a, b, c = (max(1, n // 4) for n in shape)
    mask[a : 3 * a, b : 2 * b, c : 2 * c] = True
    mask[a : 2 * a, b : 3 * b + 1, c : 2 * c] = True
    mask[a : 2 * a, b : 2 * b, c : 3 * c + 1] = True
    return mask


def image_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 100, 0).astype(np.int16)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    nibabel.save(image, path)
    return path


def overlap_of(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_comes_back_as_it_was(tmp_path: Path, codes: str) -> None:
    mask = solid((17, 14, 11))
    path = write_nifti(tmp_path / "a.nii.gz", image_of(mask), affine_of(codes, (1.0, 1.5, 2.0)))
    summary = predict_with([Threshold(make_plan())], [path], tmp_path / "out")
    assert summary.failed == {}
    source, result = nibabel.load(path), nibabel.load(summary.done[0])
    np.testing.assert_array_equal(np.asarray(result.dataobj), mask)
    np.testing.assert_array_equal(result.affine, source.affine)
    for field in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_y"):
        np.testing.assert_array_equal(result.header[field], source.header[field])


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.integers(12, 28)] * 3),
    st.tuples(*[st.sampled_from([0.8, 1.0, 1.7])] * 3),
    st.tuples(*[st.sampled_from([0.6, 1.0, 1.4])] * 3),
    st.sampled_from([".nii.gz", ".nii", ".mha", ".nrrd"]),
    st.sampled_from([np.uint8, np.int16, np.float32]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_resampled_prediction_lies_in_place(
    tmp_path_factory: pytest.TempPathFactory,
    codes: str,
    shape: tuple,
    spacing: tuple,
    target: tuple,
    ending: str,
    dtype: type,
) -> None:
    folder = tmp_path_factory.mktemp("case")
    affine = affine_of(codes, spacing)
    mask = solid(shape)
    array = image_of(mask).astype(dtype)
    path = folder / f"a{ending}"
    if ending.startswith(".nii"):
        write_nifti(path, array, affine)
    else:
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
        lps = np.diag([-1, -1, 1, 1]) @ affine
        itk.SetSpacing([float(s) for s in spacing])
        itk.SetOrigin(lps[:3, 3].tolist())
        itk.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        SimpleITK.WriteImage(itk, str(path))
    summary = predict_with([Threshold(make_plan(spacing=target))], [path], folder / "out")
    assert summary.failed == {}
    if ending.startswith(".nii"):
        result = np.asarray(nibabel.load(summary.done[0]).dataobj)
        np.testing.assert_array_equal(nibabel.load(summary.done[0]).affine, nibabel.load(path).affine)
    else:
        back = SimpleITK.ReadImage(str(summary.done[0]))
        result = SimpleITK.GetArrayFromImage(back).T
        source = SimpleITK.ReadImage(str(path))
        assert back.GetOrigin() == source.GetOrigin()
        assert back.GetDirection() == source.GetDirection()
        assert back.GetSpacing() == source.GetSpacing()
    assert result.dtype == np.uint8
    assert result.shape == shape
    # One voxel of blur at most: nothing far away, and the inside is there.
    dilated, eroded = [np.asarray(f(mask)) for f in (_dilate, _erode)]
    assert not (result.astype(bool) & ~dilated).any()
    assert overlap_of(result.astype(bool), mask) > 0.4
    assert result[eroded].all()


def _dilate(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, np.ones((3, 3, 3)), iterations=1)


def _erode(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return binary_erosion(mask, np.ones((3, 3, 3)), iterations=2)


def test_smooth_object_survives_coarser_and_finer_grids(tmp_path: Path) -> None:
    index = np.stack(np.meshgrid(*map(np.arange, (40, 36, 30)), indexing="ij"), -1)
    mask = ((((index - [22, 14, 15]) / [12, 8, 9]) ** 2).sum(-1)) < 1
    path = write_nifti(tmp_path / "a.nii.gz", image_of(mask), affine_of("PSR", (1.0, 1.0, 1.0)))
    for spacing in [(2.0, 2.0, 2.0), (0.6, 0.7, 0.8), (1.0, 1.9, 0.5)]:
        model = Threshold(make_plan(spacing=spacing, patch_size=(16, 16, 16)))
        done = predict_with([model], [path], tmp_path / "out", overwrite=True).done
        assert overlap_of(np.asarray(nibabel.load(done[0]).dataobj) == 1, mask) > 0.93


@pytest.mark.parametrize("codes", ["RAS", "SLP", "ARI"])
def test_probabilities_lie_on_the_inputs_grid(tmp_path: Path, codes: str) -> None:
    mask = solid((26, 15, 19))
    path = write_nifti(tmp_path / "a.nii.gz", image_of(mask), affine_of(codes, (1.0, 1.3, 0.9)))
    model = Threshold(make_plan(spacing=(1.4, 0.7, 1.0)), classes=3)
    done = predict_with([model], [path], tmp_path / "out", probabilities=True).done
    values = np.load(tmp_path / "out" / "a_probabilities.npy")
    assert values.dtype == np.float16
    assert values.shape == (3, 26, 15, 19)
    np.testing.assert_allclose(values.astype(np.float32).sum(0), 1, atol=2e-3)
    label = np.asarray(nibabel.load(done[0]).dataobj)
    best = np.take_along_axis(values, label[None].astype(int), 0)[0]
    assert (best >= values.max(0) - np.float16(1e-3)).all()
    assert overlap_of(values[0] < 0.5, mask) > 0.5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", "a_probabilities.npy"]


def test_pictures_come_back_in_size_and_lossless(tmp_path: Path) -> None:
    mask = np.zeros((50, 70), bool)
    mask[10:30, 5:20] = True
    mask[30:38, 5:50] = True
    picture = Pillow.fromarray(np.where(mask, 100, 0).astype(np.uint8))
    for name in ("a.png", "b.jpg", "c.tif", "d.bmp"):
        picture.save(tmp_path / name)
    plan = make_plan(2, picture_size=(32, 48), patch_size=(32, 48))
    model = Threshold(plan)
    summary = predict_with([model], [tmp_path], tmp_path / "out")
    assert [p.name for p in summary.done] == ["a.png", "b.png", "c.tif", "d.png"]
    assert model.calls == 4
    for path in summary.done:
        result = np.asarray(Pillow.open(path))
        assert result.shape == (50, 70)
        assert set(np.unique(result)) == {0, 1}
        assert overlap_of(result == 1, mask) > 0.88
    windows = Threshold(make_plan(2, patch_size=(16, 16)))  # a picture larger than a patch
    done = predict_with([windows], [tmp_path / "a.png"], tmp_path / "large").done
    np.testing.assert_array_equal(np.asarray(Pillow.open(done[0])), mask)


def write_series(
    folder: Path, array: np.ndarray, direction: np.ndarray, spacing: np.ndarray, origin: np.ndarray
) -> None:
    """Write ``array`` (i, j, k) int16 as a DICOM file per k; direction and origin in LPS."""
    folder.mkdir(parents=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(array.shape[2]):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T)[None])
        image.SetSpacing(spacing.tolist())
        position = origin + direction[:, 2] * spacing[2] * k
        for tag, value in {
            "0008|0060": "CT",
            "0008|0018": f"1.2.3.4.{k + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{v:.10g}" for v in position),
            "0020|0037": "\\".join(f"{v:.10g}" for v in [*direction[:, 0], *direction[:, 1]]),
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"IM{(k * 5) % 31:02d}-{k}"))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(image)


def test_dicom_in_nifti_out_at_the_same_place(tmp_path: Path) -> None:
    q, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    direction = q * np.sign(np.linalg.det(q))
    spacing, origin = np.array([0.9, 1.1, 2.5]), np.array([-20.0, 35, 4])
    mask = solid((20, 18, 12))
    write_series(tmp_path / "scans" / "patient", image_of(mask), direction, spacing, origin)
    expected = {tuple(np.round(origin + direction @ (spacing * i), 1)) for i in np.argwhere(mask)}
    for inputs in ([tmp_path / "scans" / "patient"], [tmp_path / "scans"]):
        summary = predict_with([Threshold(make_plan())], inputs, tmp_path / "out", overwrite=True)
        assert [p.name for p in summary.done] == ["patient.nii.gz"]
        result = nibabel.load(summary.done[0])
        at = np.argwhere(np.asarray(result.dataobj) == 1)
        world = nibabel.affines.apply_affine(result.affine, at) * [-1, -1, 1]
        found = np.array(sorted(map(tuple, np.round(world, 1))))
        np.testing.assert_allclose(found, np.array(sorted(expected)), atol=0.11)


def test_image_smaller_than_the_patch(tmp_path: Path) -> None:
    for shape in [(5, 20, 9), (3, 4, 5), (1, 1, 1), (30, 6, 6)]:
        mask = np.zeros(shape, bool)
        mask[0, 0, 0] = mask[-1, -1, :] = True
        path = write_nifti(tmp_path / "a.nii", image_of(mask), affine_of("LPS", (1, 1, 1)))
        done = predict_with([Threshold(make_plan())], [path], tmp_path / "out", overwrite=True).done
        np.testing.assert_array_equal(np.asarray(nibabel.load(done[0]).dataobj), mask)


def test_done_is_skipped_and_one_bad_file_stops_no_other(tmp_path: Path) -> None:
    mask = solid((12, 12, 12))
    for name in "abc":
        write_nifti(tmp_path / "in" / f"{name}.nii", image_of(mask), np.eye(4))
    bad = tmp_path / "in" / "b.nii"
    bad.write_bytes(bad.read_bytes()[:1000])
    Pillow.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "in" / "d.png")
    seen: list[tuple[str, int, int]] = []
    model = Threshold(make_plan())
    summary = predict_with([model], [tmp_path / "in"], tmp_path / "out", progress=lambda *a: seen.append(a))
    assert [p.name for p in summary.done] == ["a.nii", "c.nii"]
    assert list(summary.failed) == [bad, tmp_path / "in" / "d.png"]
    assert "truncated" in summary.failed[bad]
    assert summary.failed[tmp_path / "in" / "d.png"].startswith(f"{tmp_path / 'in' / 'd.png'}: a picture")
    assert all("\n" not in reason for reason in summary.failed.values())
    assert seen[-1] == ("cases", 4, 4)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii", "c.nii"]

    calls = model.calls
    again = predict_with([model], [tmp_path / "in" / "a.nii", tmp_path / "in" / "c.nii"], tmp_path / "out")
    assert (len(again.done), len(again.skipped), model.calls) == (0, 2, calls)
    more = predict_with([model], [tmp_path / "in" / "a.nii"], tmp_path / "out", probabilities=True)
    assert len(more.done) == 1  # the label was there, the probabilities were not


def test_a_failing_model_leaves_nothing_half_written(tmp_path: Path) -> None:
    class Failing(Threshold):
        def probabilities(self, windows: Tensor) -> Tensor:
            if self.calls > 10:
                raise RuntimeError("a broken\nkernel")
            return super().probabilities(windows)

    path = write_nifti(tmp_path / "a.nii.gz", image_of(solid((40, 20, 20))), np.eye(4))
    summary = predict_with([Failing(make_plan())], [path], tmp_path / "out", probabilities=True)
    assert summary.failed == {path: f"{path}: RuntimeError: a broken kernel"}
    assert list((tmp_path / "out").iterdir()) == []


def test_ensemble_is_the_mean(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.full((14, 14, 14), 40, np.int16), np.eye(4))
    plan = make_plan()
    models = [Threshold(plan, shift=-0.1), Threshold(plan, shift=0.4)]
    predict_with(models, [path], tmp_path / "out", probabilities=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_probabilities.npy")[1], 0.55, atol=1e-3)
    for other, what in [
        (Threshold(plan, classes=3), "class names"),
        (Threshold(make_plan(spacing=(1.0, 1.0, 1.0))), "spacing"),
        (Threshold(make_plan(patch_size=(8, 8, 8))), "patch_size"),
    ]:
        with pytest.raises(UserError, match=f"second: .*{what}"):
            predict_with([models[0], other], [path], tmp_path / "out", names=["first", "second"])


def test_mirror_averages_flips(tmp_path: Path) -> None:
    class Sided(Threshold):
        def probabilities(self, windows: Tensor) -> Tensor:
            side = torch.linspace(0, 1, windows.shape[2])[:, None, None].expand(len(windows), *windows.shape[2:])
            return torch.stack([1 - side, side], 1)

    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((12, 12, 12), np.int16), np.eye(4))
    model = Sided(make_plan(mirror_axes=(0,)))
    predict_with([model], [path], tmp_path / "out", mirror=True, probabilities=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a_probabilities.npy"), 0.5, atol=1e-3)
    with pytest.raises(UserError, match="without flips"):
        predict_with([Sided(make_plan(mirror_axes=()))], [path], tmp_path / "out", mirror=True)


def test_wrong_settings_are_told_before_any_work(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.int16), np.eye(4))
    model = Threshold(make_plan())
    for wrong, message in [({"overlap": 1.0}, "--overlap 1"), ({"batch": 0}, "--batch 0")]:
        with pytest.raises(UserError, match=message):
            predict_with([model], [path], tmp_path / "out", **wrong)
    with pytest.raises(UserError, match="is an input"):
        predict_with([model], [path], tmp_path)
    assert model.calls == 0


@pytest.fixture
def stub_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan], None]:
    """Make every run folder a model that thresholds."""

    def use(plan: Plan) -> None:
        monkeypatch.setattr("semialign.inference.model.load_trained", lambda *args, **kwargs: Threshold(plan))

    return use


def test_command_and_its_exit_codes(tmp_path: Path, stub_run: Callable, capsys: pytest.CaptureFixture) -> None:
    stub_run(make_plan())
    good = write_nifti(tmp_path / "a.nii.gz", image_of(solid((12, 12, 12))), np.eye(4))
    bad = tmp_path / "b.nii.gz"
    bad.write_bytes(b"")
    out = ["--output", str(tmp_path / "out")]
    assert main(["predict", "RUN", str(good), *out]) == 0
    assert "1 predicted" in capsys.readouterr().out
    assert main(["predict", "RUN", str(good), str(bad), *out, "--overwrite", "--probabilities"]) == 1
    captured = capsys.readouterr()
    assert f"error: {bad}: the file is empty" in captured.err
    assert "1 predicted, 1 failed" in captured.out
    assert main(["predict", "RUN", str(bad), *out]) == 2
    assert main(["predict", "RUN", str(tmp_path / "gone.nii"), *out]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_predict_loads_every_run(tmp_path: Path, stub_run: Callable) -> None:
    stub_run(make_plan())
    path = write_nifti(tmp_path / "a.nii.gz", image_of(solid((12, 12, 12))), np.eye(4))
    summary = predict([Path("one"), Path("two")], [path], tmp_path / "out", checkpoint="last", accelerator="cpu")
    assert [p.name for p in summary.done] == ["a.nii.gz"]
