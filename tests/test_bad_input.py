"""Faulty data and splits: one line that names file and mend, exit code 2, nothing lost, nothing half written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from command_line import QUICK, Line
from raw_data import (
    SHAPE,
    contents,
    cut,
    describe,
    organ,
    pictures,
    save_picture,
    save_volume,
    volumes,
)

from semialign.data.store import Store


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Line(capsys)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Faultless data sets: a and b labelled, c not."""
    root = tmp_path_factory.mktemp("sound")
    return {"volumes": volumes(root / "volumes"), "pictures": pictures(root / "pictures")}


def nifti(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).copy()


def uncompressed(path: Path) -> Path:
    """``path`` as .nii, in the same folder."""
    nibabel.save(nibabel.load(path), path.with_name(path.name.removesuffix(".gz")))
    path.unlink()
    return path.with_name(path.name.removesuffix(".gz"))


def relabel(root: Path, change: Callable[[np.ndarray], np.ndarray], **geometry: Any) -> None:
    """Write label b changed."""
    path = root / "labelsTr" / "b.nii.gz"
    save_volume(path, change(nifti(path)), **geometry)


def remake(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write image c changed."""
    path = root / "imagesTr" / "c_0000.nii.gz"
    save_volume(path, change(nifti(path)))


def with_value(value: float, kind: type) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(kind)
        array[3, 3, 3] = value
        return array

    return change


FLIPPED, SHIFTED = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 1, 1, 1])
SHIFTED[0, 3] = 3.0

# What is spoilt, the file that the line must name, and words of the mend.
VOLUMES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "label of another size": (lambda r: relabel(r, lambda a: a[:-1]), "labelsTr/b.nii.gz", "size"),
    "label of another spacing": (lambda r: relabel(r, lambda a: a, spacing=(1, 1, 2)), "labelsTr/b.nii.gz", "spacing"),
    "label turned": (lambda r: relabel(r, lambda a: a, affine=FLIPPED), "labelsTr/b.nii.gz", "orientation"),
    "label shifted": (lambda r: relabel(r, lambda a: a, affine=SHIFTED), "labelsTr/b.nii.gz", "position"),
    "unknown label value": (lambda r: relabel(r, with_value(7, np.uint8)), "labelsTr/b.nii.gz", "label value 7"),
    "negative label value": (lambda r: relabel(r, with_value(-1, np.int16)), "labelsTr/b.nii.gz", "label value -1"),
    "fractional label": (lambda r: relabel(r, with_value(0.5, np.float32)), "labelsTr/b.nii.gz", "nearest-neighbour"),
    "NaN label": (lambda r: relabel(r, with_value(np.nan, np.float32)), "labelsTr/b.nii.gz", "NaN"),
    "4D label": (lambda r: relabel(r, lambda a: np.stack([a, a], -1)), "labelsTr/b.nii.gz", "3D"),
    "NaN voxel": (lambda r: remake(r, with_value(np.nan, np.float32)), "imagesTr/c_0000.nii.gz", "NaN or infinite"),
    "infinite voxel": (lambda r: remake(r, with_value(-np.inf, np.float32)), "imagesTr/c_0000.nii.gz", "infinite"),
    "4D image": (lambda r: remake(r, lambda a: np.stack([a, a], -1)), "imagesTr/c_0000.nii.gz", "3D"),
    "empty image": (lambda r: (r / "imagesTr/c_0000.nii.gz").write_bytes(b""), "imagesTr/c_0000.nii.gz", "empty"),
    "empty label": (lambda r: (r / "labelsTr/b.nii.gz").write_bytes(b""), "labelsTr/b.nii.gz", "empty"),
    "truncated image": (lambda r: cut(r / "imagesTr/c_0000.nii.gz"), "imagesTr/c_0000.nii.gz", "copy it again"),
    "image without its end": (lambda r: cut(r / "imagesTr/c_0000.nii.gz", 0.999), "imagesTr/c_0000.nii.gz", "again"),
    "truncated label": (lambda r: cut(r / "labelsTr/b.nii.gz"), "labelsTr/b.nii.gz", "copy it again"),
    "truncated .nii": (
        lambda r: cut(uncompressed(r / "imagesTr/c_0000.nii.gz")),
        "imagesTr/c_0000.nii",
        "copy it again",
    ),
    "header alone": (
        lambda r: cut(uncompressed(r / "imagesTr/c_0000.nii.gz"), 0.01),
        "imagesTr/c_0000.nii",
        "copy it again",
    ),
    "text as image": (
        lambda r: (r / "imagesTr/c_0000.nii.gz").write_text("no"),
        "imagesTr/c_0000.nii.gz",
        "another kind",
    ),
    "text as label": (lambda r: (r / "labelsTr/b.nii.gz").write_text("no"), "labelsTr/b.nii.gz", "another kind"),
    "text as .nrrd": (lambda r: (r / "imagesTr/d_0000.nrrd").write_text("no"), "imagesTr/d_0000.nrrd", "copy it again"),
    "text as .mha": (lambda r: (r / "imagesTr/d_0000.mha").write_text("no"), "imagesTr/d_0000.mha", "copy it again"),
    "a folder of text": (
        lambda r: ((r / "imagesTr/d_0000").mkdir(), (r / "imagesTr/d_0000/1.dcm").write_text("no")),
        "imagesTr/d_0000",
        "DICOM series",
    ),
    "folder as label": (lambda r: (r / "labelsTr/c.nii.gz").mkdir(), "labelsTr/c.nii.gz", "convert or move"),
    "label without image": (
        lambda r: shutil.copy(r / "labelsTr/b.nii.gz", r / "labelsTr/z.nii.gz"),
        "labelsTr/z.nii.gz",
        "label without image",
    ),
    "no dataset.json": (lambda r: (r / "dataset.json").unlink(), "dataset.json", "missing"),
    "broken dataset.json": (lambda r: cut(r / "dataset.json"), "dataset.json", "not valid JSON"),
    "two channels named": (lambda r: describe(r, channels=("T1", "T2")), "imagesTr/a_0001.nii.gz", "missing"),
    "no images": (lambda r: shutil.rmtree(r / "imagesTr"), "imagesTr", "missing"),
    "no label at all": (lambda r: shutil.rmtree(r / "labelsTr"), "labelsTr", "no labelled case"),
}

PICTURES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "text as picture": (lambda r: (r / "imagesTr/c_0000.png").write_text("no"), "imagesTr/c_0000.png", "another kind"),
    "truncated picture": (lambda r: cut(r / "imagesTr/c_0000.png"), "imagesTr/c_0000.png", "copy it again"),
    "empty picture": (lambda r: (r / "imagesTr/c_0000.png").write_bytes(b""), "imagesTr/c_0000.png", "empty"),
    "mask of 0 and 255": (
        lambda r: save_picture(r / "labelsTr/b.png", 255 * organ((40, 36))[1]),
        "labelsTr/b.png",
        "label value 255",
    ),
    "coloured mask": (
        lambda r: save_picture(r / "labelsTr/b.png", np.random.default_rng(0).integers(0, 2, (40, 36, 3), np.uint8)),
        "labelsTr/b.png",
        "coloured",
    ),
    "mask of another size": (
        lambda r: save_picture(r / "labelsTr/b.png", organ((36, 40))[1]),
        "labelsTr/b.png",
        "size",
    ),
}
FAULTS = {**{f: ("volumes", *v) for f, v in VOLUMES.items()}, **{f: ("pictures", *v) for f, v in PICTURES.items()}}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_data_are_named_and_mended(fault: str, line: Line, sound: dict[str, Path], tmp_path: Path) -> None:
    kind, spoil, name, words = FAULTS[fault]
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(sound[kind], raw)
    spoil(raw)
    before = contents(raw)
    said = line.refuses("prepare", raw, "--output", out, words=(raw / name, words))
    assert line.refuses("train", raw, "--prepared", out, "--output", tmp_path / "run", *QUICK, words=()) == said
    assert not (tmp_path / "run").exists()
    assert contents(raw) == before
    assert not list((out / "store").glob("*"))
    shutil.rmtree(raw)
    shutil.copytree(sound[kind], raw)
    line.works("prepare", raw, "--output", out)
    assert all(Store(out / "store").image(c).ndim == (3 if kind == "pictures" else 4) for c in "abc")


SPLITS: dict[str, tuple[dict[str, list[str]] | str, str]] = {
    "an unknown case": ({"labelled": ["a", "z"]}, "names case z, which the data set lacks"),
    "a case twice": ({"labelled": ["a"], "unlabelled": ["c", "a"]}, "case a stands in both labelled and unlabelled"),
    "test cases that train": ({"labelled": ["a"], "test": ["a"]}, "case a stands in both labelled and test"),
    "no labelled case": ({"labelled": [], "unlabelled": ["a"]}, "no labelled case"),
    "no label file": ({"labelled": ["a", "c"]}, "case c is listed as labelled but has no file in labelsTr"),
    "broken JSON": ("{labelled: [a]}", "not valid JSON"),
    "another form": ('{"train": ["a"]}', 'under "labelled"'),
    "no text": ("\udcff", "not a text file"),
}


@pytest.mark.parametrize("fault", SPLITS)
@pytest.mark.parametrize("command", ["prepare", "train"])
def test_a_faulty_split(fault: str, command: str, line: Line, sound: dict[str, Path], tmp_path: Path) -> None:
    value, words = SPLITS[fault]
    path = tmp_path / "split.json"
    text = value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(text.encode(errors="surrogateescape"))
    where = "--output" if command == "prepare" else "--prepared"
    line.refuses(command, sound["volumes"], "--split", path, where, tmp_path / "out", words=(path, words))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["split.json"]


@pytest.mark.parametrize("command", ["prepare", "train", "split"])
def test_places_that_are_not_there(command: str, line: Line, sound: dict[str, Path], tmp_path: Path) -> None:
    more = ["--labelled", 1] if command == "split" else []
    line.refuses(command, tmp_path / "none", *more, words=(tmp_path / "none", "no such folder"))
    (tmp_path / "file").write_text("mine")
    line.refuses(command, tmp_path / "file", *more, words=(tmp_path / "file", "folder is wanted"))
    if command != "split":
        split = ["--split", tmp_path / "none.json"]
        line.refuses(command, sound["volumes"], *split, words=(tmp_path / "none.json", "no such file"))
        where = "--output" if command == "prepare" else "--prepared"
        line.refuses(
            command, sound["volumes"], where, tmp_path / "file", words=(tmp_path / "file", "file stands where")
        )
    assert contents(tmp_path).keys() == {"file"}
    assert (tmp_path / "file").read_text() == "mine"


def test_mixed_spacings_and_orientations_are_handled(line: Line, tmp_path: Path) -> None:
    raw = describe(tmp_path / "raw")
    turned = nibabel.affines.from_matvec(np.array([[0, 0, -2.0], [-1, 0, 0], [0, 1, 0]]))
    for name, affine, shape in (
        ("a", np.eye(4), (20, 18, 16)),
        ("b", turned, (18, 16, 10)),
        ("c", np.eye(4), (20, 18, 16)),
    ):
        image, label = organ(shape, 0)
        save_volume(raw / "imagesTr" / f"{name}_0000.nii.gz", image, affine=affine)
        save_volume(raw / "labelsTr" / f"{name}.nii.gz", label, affine=affine)
    line.works("prepare", raw, "--output", tmp_path / "out")
    store = Store(tmp_path / "out" / "store")
    assert {store.image(c).shape for c in "abc"} == {(1, 20, 18, 16)}
    assert {store.label(c).shape for c in "abc"} == {(20, 18, 16)}


def test_an_outlier_is_noted_and_cut(line: Line, sound: dict[str, Path], tmp_path: Path) -> None:
    for kind, path, save in (
        ("volumes", "imagesTr/b_0000.nii.gz", save_volume),
        ("pictures", "imagesTr/b_0000.tif", save_picture),
    ):
        raw, out = tmp_path / kind, tmp_path / f"{kind}-out"
        shutil.copytree(sound[kind], raw)
        image = organ(SHAPE if kind == "volumes" else (40, 36), 1)[0]
        image[0, 0] = 500 * image.max()
        if kind == "pictures":
            describe(raw, channels=("OCT",))
            (raw / "imagesTr/b_0000.png").unlink()
        save(raw / path, image)
        assert f"note: {Path(path).name}: an intensity lies" in line.works("prepare", raw, "--output", out)
        found = Store(out / "store").image("b")[:].astype(float)
        assert np.isfinite(found).all()
        assert found.max() < 60
        assert np.median(np.abs(found)) > 0.01  # the rest is not squeezed to nothing


def test_one_label_no_unlabelled_case_an_absent_class_and_a_small_image(line: Line, tmp_path: Path) -> None:
    raw = volumes(tmp_path / "raw", labelled=1, unlabelled=0, shape=(6, 7, 5))
    describe(raw, {"background": 0, "organ": 1, "spleen": 2})
    said = line.works("prepare", raw, "--output", tmp_path / "out")
    assert "note: class 'spleen' is in no labelled case" in said
    plan = tmp_path / "out" / "plan.yaml"
    sizes = "[1, 1, 1], [2, 2, 2]]\npatch_size: [16, 16, 16]\nwidths: [8, 8]\nkernels: [[3, 3, 3], [3, 3, 3]]"
    kept = [
        s
        for s in plan.read_text().splitlines()
        if s.split(":")[0] not in ("strides", "patch_size", "widths", "kernels")
    ]
    plan.write_text("\n".join([*kept, f"strides: [{sizes}"]))
    said = line.works("train", raw, "--prepared", tmp_path / "out", "--output", tmp_path / "run", *QUICK)
    assert "note: no unlabelled case: mean-teacher trains on labels alone" in said
    assert "note: class 'spleen' is in no labelled case" in said
    assert (tmp_path / "run" / "last.pt").exists()
