"""Readers and writers against nibabel, SimpleITK and Pillow used directly, and against damaged and foreign files."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image as Pillow

from semialign.common.errors import UserError
from semialign.data.formats import ending_of, output_ending
from semialign.data.grid import Grid, difference
from semialign.data.image_io import read_grid, read_image, read_label, write_label
from semialign.data.itk_io import dicom_series

RNG = np.random.default_rng(0)
OBLIQUE = np.array([[1.5, 0.2, -0.1, 7], [-0.3, 0.8, 0.2, -40], [0.1, -0.1, 2.5, 3.25], [0, 0, 0, 1]])
LPS = np.diag([-1.0, -1, 1, 1])


def rotation(seed: int) -> np.ndarray:
    """A right-handed rotation matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def write_series(
    folder: Path, array: np.ndarray, direction: np.ndarray, spacing, origin, *, uid: str = "1.2.3.4", step=None
) -> None:
    """Write ``array`` (i, j, k) int16 as one DICOM file per slice k, shuffled names; LPS direction and origin.

    ``step``: from one slice to the next, where it is not their normal (a tilted gantry).
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(array.shape[2]):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T)[None])
        image.SetSpacing([float(s) for s in spacing])
        position = np.asarray(origin, float) + (direction[:, 2] * spacing[2] if step is None else np.array(step)) * k
        image.SetOrigin([float(v) for v in position])
        image.SetDirection(direction.ravel().tolist())
        for tag, value in {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0052": "1.2.9",
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{v:.10g}" for v in position),
            "0020|0037": "\\".join(f"{v:.10g}" for v in [*direction[:, 0], *direction[:, 1]]),
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{(k * 7) % 97:02d}-{k}.dcm"))
        writer.Execute(image)


def world(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ [*index, 1])[:3]


def check_one_line(error: pytest.ExceptionInfo, path: Path) -> None:
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 2), (0, 0)], ids=["qform", "sform", "both", "neither"])
def test_nifti_is_read_and_its_header_comes_back(
    tmp_path: Path, endian: str, ending: str, codes: tuple[int, int]
) -> None:
    array = RNG.integers(-1000, 3000, (5, 6, 7)).astype(np.int16)
    rigid = np.eye(4)
    rigid[:3, :3] = rotation(1) * [1.5, 0.7, 3]
    rigid[:3, 3] = -20, 4, 9.5
    header = nibabel.Nifti1Header(endianness=endian)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"a scan"
    image = nibabel.Nifti1Image(array, None, header)
    image.set_qform(rigid if codes[0] else None, code=codes[0])
    image.set_sform(OBLIQUE if codes[1] else None, code=codes[1])
    path = tmp_path / f"case{ending}"
    nibabel.save(image, path)
    assert nibabel.load(path).header.endianness == endian

    read = read_image(path)
    np.testing.assert_array_equal(read.array[0], array)
    assert read.array.dtype == np.int16
    assert read.array.dtype.isnative
    np.testing.assert_allclose(read.grid.affine, nibabel.load(path).affine)
    assert difference(read_grid(path), read.grid) is None

    label = RNG.integers(0, 3, array.shape)
    write_label(tmp_path / f"out{ending}", label, read.grid, like=path)
    back, source = nibabel.load(tmp_path / f"out{ending}"), nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), label)
    assert back.get_data_dtype() == np.uint8
    assert back.header.endianness == endian
    for field in (
        "qform_code",
        "sform_code",
        "quatern_b",
        "qoffset_x",
        "srow_x",
        "srow_z",
        "pixdim",
        "xyzt_units",
        "descrip",
    ):
        np.testing.assert_array_equal(back.header[field], source.header[field])
    np.testing.assert_array_equal(back.affine, source.affine)


def test_scaled_nifti_gives_true_values_and_plain_labels(tmp_path: Path) -> None:
    raw = RNG.integers(0, 1000, (4, 4, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    image = nibabel.Nifti1Image(raw * 0.5 - 1024.0, np.eye(4), image.header)
    path = tmp_path / "a.nii.gz"
    nibabel.save(image, path)
    read = read_image(path)
    assert read.array.dtype == np.float32
    np.testing.assert_allclose(read.array[0], nibabel.load(path).get_fdata(), atol=0.1)
    write_label(tmp_path / "b.nii.gz", raw % 4, read.grid, like=path)
    np.testing.assert_array_equal(read_label(tmp_path / "b.nii.gz")[0], raw % 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_nifti_types(tmp_path: Path, dtype: type) -> None:
    array = RNG.integers(0, 200, (3, 4, 5)).astype(dtype)
    nibabel.save(nibabel.Nifti2Image(array, np.eye(4)), tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii").array
    np.testing.assert_array_equal(read[0], array)
    assert read.dtype == (dtype if np.issubdtype(dtype, np.integer) else np.float32)
    write_label(tmp_path / "b.nii", array.astype(int), Grid((3, 4, 5), np.eye(4)), like=tmp_path / "a.nii")
    assert isinstance(nibabel.load(tmp_path / "b.nii"), nibabel.Nifti2Image)


def test_nifti_axes_of_length_one(tmp_path: Path) -> None:
    for shape, seen in [((4, 5), (4, 5, 1)), ((4, 5, 6, 1), (4, 5, 6)), ((4, 5, 6, 1, 1), (4, 5, 6))]:
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
        assert read_image(tmp_path / "a.nii.gz").array.shape == (1, *seen)
        assert read_grid(tmp_path / "a.nii.gz").shape == seen
        write_label(tmp_path / "b.nii.gz", np.ones(seen, int), Grid(seen, np.eye(4)), like=tmp_path / "a.nii.gz")
        assert nibabel.load(tmp_path / "b.nii.gz").shape == shape
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="4 dimensions") as error:
        read_image(tmp_path / "a.nii.gz")
    check_one_line(error, tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".mhd"])
def test_itk_formats_keep_origin_and_direction(tmp_path: Path, ending: str) -> None:
    array = RNG.integers(-5, 99, (4, 5, 6)).astype(np.int16)
    direction = rotation(3)
    itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    itk.SetDirection(direction.ravel().tolist())
    itk.SetSpacing([0.7, 1.3, 2.9])
    itk.SetOrigin([-11, 22, 33.5])
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(itk, str(path))
    read = read_image(path)
    np.testing.assert_array_equal(read.array[0], array)
    for index in [(0, 0, 0), (3, 1, 5), (1, 4, 2)]:
        lps = itk.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(world(read.grid.affine, index), np.array([-1, -1, 1]) * lps, atol=1e-6)
    assert difference(read_grid(path), read.grid) is None
    out = tmp_path / f"out{output_ending(ending)}"
    write_label(out, array * 0 + np.arange(6), read.grid, like=path)
    back = SimpleITK.ReadImage(str(out))
    assert back.GetOrigin() == pytest.approx(itk.GetOrigin())
    assert back.GetDirection() == pytest.approx(itk.GetDirection())
    assert back.GetSpacing() == pytest.approx(itk.GetSpacing())
    assert back.GetPixel(3, 2, 5) == 5
    write_label(out, array * 0 + np.arange(6), read.grid)  # without the file: from the grid alone
    again = SimpleITK.ReadImage(str(out))
    assert again.GetDirection() == pytest.approx(itk.GetDirection(), abs=1e-6)
    assert again.GetOrigin() == pytest.approx(itk.GetOrigin())


def test_mha_of_two_and_four_dimensions(tmp_path: Path) -> None:
    flat = SimpleITK.GetImageFromArray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    flat.SetSpacing([2, 3])
    SimpleITK.WriteImage(flat, str(tmp_path / "a.mha"))
    read = read_image(tmp_path / "a.mha")
    assert read.array.shape == (1, 4, 3, 1)
    assert read.grid.spacing == (2, 3, 1)
    write_label(tmp_path / "b.mha", read.array[0], read.grid, like=tmp_path / "a.mha")
    assert SimpleITK.ReadImage(str(tmp_path / "b.mha")).GetSize() == (4, 3)

    series = SimpleITK.JoinSeries([SimpleITK.Image(3, 4, 5, SimpleITK.sitkUInt8)] * 1)
    series.SetOrigin([1, 2, 3, 99])
    SimpleITK.WriteImage(series, str(tmp_path / "c.mha"))
    read = read_image(tmp_path / "c.mha")
    assert read.grid.shape == (3, 4, 5)
    np.testing.assert_allclose(read.grid.affine[:3, 3], [-1, -2, 3])
    write_label(tmp_path / "d.mha", np.arange(60).reshape(3, 4, 5) % 7, read.grid, like=tmp_path / "c.mha")
    back, grid = read_label(tmp_path / "d.mha")
    np.testing.assert_array_equal(back, np.arange(60).reshape(3, 4, 5) % 7)
    np.testing.assert_allclose(grid.affine, read.grid.affine)
    SimpleITK.WriteImage(SimpleITK.Image([3, 4, 5], SimpleITK.sitkVectorUInt8, 2), str(tmp_path / "v.mha"))
    with pytest.raises(UserError, match="several values"):
        read_image(tmp_path / "v.mha")


@pytest.mark.parametrize(
    "direction", [np.eye(3), rotation(5), np.diag([1.0, -1, -1])], ids=["axial", "oblique", "feet"]
)
def test_dicom_series_lies_where_its_tags_say(tmp_path: Path, direction: np.ndarray) -> None:
    array = RNG.integers(-1000, 1000, (6, 5, 7)).astype(np.int16)
    spacing, origin = np.array([0.8, 1.25, 2.5]), np.array([-30.0, 12, 5])
    write_series(tmp_path / "scan", array, direction, spacing, origin)
    assert ending_of(tmp_path / "scan") == "dicom"
    read = read_image(tmp_path / "scan")
    assert read.ending == "dicom"
    assert read.array.shape == (1, 6, 5, 7)
    inverse = np.linalg.inv(read.grid.affine)
    for index in [(0, 0, 0), (5, 0, 3), (2, 4, 6)]:
        lps = origin + direction @ (spacing * index)
        where = inverse @ [*(lps * [-1, -1, 1]), 1]
        np.testing.assert_allclose(where[:3], np.rint(where[:3]), atol=1e-3)
        assert read.array[0][tuple(np.rint(where[:3]).astype(int))] == array[index]

    write_label(tmp_path / f"scan{output_ending('dicom')}", np.arange(210).reshape(6, 5, 7) % 5, read.grid)
    written = nibabel.load(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(written.get_qform(coded=True)[0], read.grid.affine, atol=1e-4)
    np.testing.assert_allclose(written.get_sform(coded=True)[0], read.grid.affine, atol=1e-4)


def test_a_tilted_gantry_shears_the_grid(tmp_path: Path) -> None:
    array = RNG.integers(-1000, 1000, (6, 5, 30)).astype(np.int16)
    step, origin = np.array([0.0, 1.0, 5.0]), np.array([10.0, 20, -3])
    write_series(tmp_path / "scan", array, np.eye(3), (0.8, 1.25, 5), origin, step=step)
    read = read_image(tmp_path / "scan")
    for index in [(0, 0, 0), (5, 0, 3), (2, 4, 29)]:
        lps = origin + [0.8 * index[0], 1.25 * index[1], 0] + step * index[2]
        np.testing.assert_allclose(world(read.grid.affine, index), lps * [-1, -1, 1], atol=1e-3)
        assert read.array[0][index] == array[index]
    write_label(tmp_path / "scan.nii.gz", array[..., :] % 3, read.grid)
    _, grid = read_label(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(grid.affine, read.grid.affine, atol=1e-4)


def test_slices_that_lie_askew_are_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 4, 6), np.int16)
    write_series(tmp_path / "scan", array[..., :3], np.eye(3), (1, 1, 2), (0, 0, 0), step=(0, 1.2, 1.6))
    # As long a step as the others, but straight on.
    write_series(tmp_path / "more", array, np.eye(3), (1, 1, 2), (0, 2.4, 3.2))
    for path in (tmp_path / "more").glob("*-[123].dcm"):
        path.rename(tmp_path / "scan" / f"x{path.name}")
    with pytest.raises(UserError, match="DICOM slices lie 2 to 2 mm apart"):
        read_image(tmp_path / "scan")


@pytest.mark.parametrize("kept", [0, 100, 300])
def test_an_end_of_a_dicom_series_that_is_damaged_is_named(tmp_path: Path, kept: int) -> None:
    write_series(tmp_path / "scan", np.zeros((4, 4, 5), np.int16), np.eye(3), (1, 1, 2), (0, 0, 0))
    (tmp_path / "scan" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "scan" / "readme.txt").write_text("a note")
    assert read_image(tmp_path / "scan").array.shape == (1, 4, 4, 5)
    last = next((tmp_path / "scan").glob("*-4.dcm"))
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(UserError) as error:
        read_image(tmp_path / "scan")
    check_one_line(error, last)


def test_dicom_folder_that_is_no_single_whole_series(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    array = np.zeros((4, 4, 6), np.int16)
    write_series(tmp_path / "gap", array, np.eye(3), (1, 1, 2), (0, 0, 0))
    next((tmp_path / "gap").glob("*-3.dcm")).unlink()
    with pytest.raises(UserError, match="slices lie 2 to 4 mm apart") as error:
        read_image(tmp_path / "gap")
    check_one_line(error, tmp_path / "gap")
    write_series(tmp_path / "two", array, np.eye(3), (1, 1, 2), (0, 0, 0))
    for path in list((tmp_path / "two").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    write_series(tmp_path / "two", array, np.eye(3), (1, 1, 2), (0, 0, 0), uid="1.2.3.5")
    assert len(dicom_series(tmp_path / "two")) == 2
    with pytest.raises(UserError, match="2 DICOM series"):
        read_image(tmp_path / "two")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="without a DICOM series"):
        read_image(tmp_path / "none")
    assert capfd.readouterr().err == ""


def test_picture_modes(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (6, 9)).astype(np.uint8)
    rgb = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    deep = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    palette = Pillow.fromarray(grey % 3).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 759)
    files = {
        "grey.png": (Pillow.fromarray(grey), grey[None]),
        "rgb.png": (Pillow.fromarray(rgb), rgb.transpose(2, 0, 1)),
        "rgba.png": (Pillow.fromarray(rgb).convert("RGBA"), rgb.transpose(2, 0, 1)),
        "la.png": (Pillow.fromarray(grey).convert("LA"), grey[None]),
        "deep.png": (Pillow.fromarray(deep), deep[None]),
        "deep.tif": (Pillow.fromarray(deep), deep[None]),
        "bits.png": (Pillow.fromarray(grey > 99), (grey > 99).astype(np.uint8)[None]),
        "real.tiff": (Pillow.fromarray(grey / np.float32(3)), grey[None] / np.float32(3)),
        "rgb.bmp": (Pillow.fromarray(rgb), rgb.transpose(2, 0, 1)),
    }
    for name, (picture, expected) in files.items():
        picture.save(tmp_path / name)
        read = read_image(tmp_path / name)
        np.testing.assert_array_equal(read.array, expected, err_msg=name)
        assert read.grid.picture
        assert read.grid.shape == read_grid(tmp_path / name).shape == (6, 9)
    palette.save(tmp_path / "palette.png")
    colours = np.eye(3, dtype=np.uint8)[grey % 3] * 255
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png").array, colours.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        read_label(tmp_path / "palette.png")[0], read_label_by_pillow(tmp_path / "palette.png")
    )
    Pillow.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").array.shape == (1, 8, 8)
    Pillow.fromarray(rgb).convert("CMYK").save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").array.shape == (3, 6, 9)


def read_label_by_pillow(path: Path) -> np.ndarray:
    return np.asarray(Pillow.open(path))


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("top", [3, 300])
def test_label_pictures_round_trip(tmp_path: Path, ending: str, top: int) -> None:
    label = RNG.integers(0, top + 1, (7, 5))
    label[0, 0] = top
    write_label(tmp_path / f"a{ending}", label, Grid((7, 5), np.eye(4), picture=True))
    back, grid = read_label(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(back, label)
    assert grid.shape == (7, 5)


def test_labels_that_are_none(tmp_path: Path) -> None:
    Pillow.fromarray(RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    grey = RNG.integers(0, 3, (4, 4)).astype(np.uint8)
    Pillow.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "b.png")
    for name, value in (("a.nii", 0.5), ("b.nii", np.nan)):
        nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), value, np.float32), np.eye(4)), tmp_path / name)
    with pytest.raises(UserError, match="coloured"):
        read_label(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "b.png")[0], grey)
    with pytest.raises(UserError, match=r"fractional values such as 0\.5"):
        read_label(tmp_path / "a.nii")
    with pytest.raises(UserError, match="NaN"):
        read_label(tmp_path / "b.nii")


@pytest.mark.parametrize("classes", range(2, 14))
def test_labels_that_a_library_scaled_are_whole_all_the_same(tmp_path: Path, classes: int) -> None:
    label = np.arange(60).reshape(3, 4, 5) % classes
    header = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)).header
    nibabel.save(nibabel.Nifti1Image(label.astype(float), np.eye(4), header), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "a.nii.gz")[0], label)


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nii")

    def full(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("semialign.data.image_io._nifti", full)
    with pytest.raises(UserError, match="not enough memory to read it"):
        read_image(tmp_path / "a.nii")


def test_a_large_picture_is_no_attack(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Pillow.new("1", (20_000, 10_000)).save(tmp_path / "a.png")
    assert read_grid(tmp_path / "a.png").shape == (10_000, 20_000)
    assert read_label(tmp_path / "a.png")[0].shape == (10_000, 20_000)
    assert not recwarn.list


def _good_files(folder: Path) -> list[Path]:
    nibabel.save(nibabel.Nifti1Image(RNG.integers(0, 999, (30, 30, 30)).astype(np.int16), np.eye(4)), folder / "a.nii")
    (folder / "a.nii.gz").write_bytes(gzip.compress((folder / "a.nii").read_bytes()))
    volume = SimpleITK.GetImageFromArray(RNG.integers(0, 999, (30, 30, 30)).astype(np.int16))
    SimpleITK.WriteImage(volume, str(folder / "a.mha"))
    SimpleITK.WriteImage(volume, str(folder / "a.nrrd"))
    picture = Pillow.fromarray(RNG.integers(0, 256, (90, 90, 3)).astype(np.uint8))
    for ending in ("png", "jpg", "tif", "bmp"):
        picture.save(folder / f"a.{ending}")
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for path in _good_files(folder):
        whole = path.read_bytes()
        read_image(path)
        for name, content in {
            "empty": b"",
            "stub": whole[:10],
            "half": whole[: len(whole) // 2],
            "foreign": b"<html>not found</html>" * 40,
            "zeros": bytes(len(whole)),
        }.items():
            bad = tmp_path / f"{name}{ending_of(path)}"
            bad.write_bytes(content)
            with pytest.raises(UserError) as error:
                np.asarray(read_image(bad).array).sum()
            check_one_line(error, bad)
            assert name != "empty" or "the file is empty; copy it again" in str(error.value)
            cut_short = ending_of(path) in (".nii", ".nii.gz", ".mha", ".nrrd", ".png", ".jpg")
            assert not (name == "half" and cut_short) or "the file is truncated" in str(error.value)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(UserError, match="not an image format"):
        read_image(tmp_path / "a.xyz")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "b.nii.gz")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.set_sform(np.diag([1.0, 0, 1, 1]), code=1)
    nibabel.save(image, tmp_path / "flat.nii")
    for read in (read_image, read_grid):
        with pytest.raises(UserError, match="correct the header"):
            read(tmp_path / "flat.nii")
    with pytest.raises(UserError, match=r"write \.mha"):
        write_label(tmp_path / "a.mhd", np.zeros((2, 2, 2), int), Grid((2, 2, 2), np.eye(4)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.xyz", "b.nii.gz", "flat.nii"]
