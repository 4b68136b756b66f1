"""Preparing: what is written, by how many processes, from which kinds of data."""

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared_data import Data, changed
from raw_data import (
    contents,
    describe,
    organ,
    pictures,
    save_dicom,
    save_picture,
    save_volume,
    times,
    volumes,
    write_split,
)

from semialign.common.errors import UserError
from semialign.data import parallel as parallel_module
from semialign.data.prepare import prepare
from semialign.data.splits import Split
from semialign.data.store import Store

REAL = Path(os.environ.get("SEMIALIGN_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Prepared once."""
    return Data(tmp_path_factory.mktemp("made")).make()


@pytest.fixture
def data(made: Data, tmp_path: Path) -> Data:
    """A copy to change; the times of files are kept."""
    shutil.copytree(made.raw.parent, tmp_path / "copy")
    return Data(tmp_path / "copy")


def test_what_training_needs_is_written_and_nothing_else(made: Data) -> None:
    files = {name for name in contents(made.out) if name.startswith("store")}
    images = {f"store/{c}.image.b2nd" for c in "abcde"} | {f"store/{c}.json" for c in "abcde"}
    assert files == images | {f"store/{c}.label.b2nd" for c in "abe"}
    assert {p.name for p in made.out.iterdir()} == {"plan.yaml", "fingerprint.json", "content.jsonl", "store"}
    store = Store(made.out / "store")
    assert [store.about(c)["labelled"] for c in "abcde"] == [True, True, False, False, True]
    label = organ(seed=0)[1]
    np.testing.assert_array_equal(store.label("a")[:], label)
    found = json.loads((made.out / "fingerprint.json").read_text())
    assert found["parts"] == {"labelled": 2, "unlabelled": 2, "validation": 1, "test": 1}
    assert found["cases"] == 4
    assert sum(found["class_voxels"].values()) == 2 * label.size
    assert found["warnings"] == []


def test_the_raw_data_are_left_alone(data: Data) -> None:
    before = times(data.raw)
    shutil.rmtree(data.out)
    data.prepare()
    assert times(data.raw) == before


def test_the_default_place_is_beside_the_data(data: Data) -> None:
    done = prepare(data.raw, data.split, accelerator="cpu")
    assert done.folder == data.raw / "prepared" / "split"
    assert prepare(data.raw, done.split, accelerator="cpu").folder.name.startswith("split-")
    assert len(list((data.raw / "prepared").iterdir())) == 2


def test_a_split_made_in_python_is_checked_too(data: Data) -> None:
    with pytest.raises(UserError, match="names case zz, which the data set lacks"):
        prepare(data.raw, Split(("a",), ("zz",)), output=data.out)
    with pytest.raises(UserError, match="d is listed as labelled but has no file in labelsTr"):
        prepare(data.raw, Split(("a",), ("d",)).all_labelled(), output=data.out)


def test_a_plan_of_other_labels_is_told_of(data: Data) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data.prepare()
    label = data.raw / "labelsTr" / "a.nii.gz"
    os.utime(label, ns=(0, 0))
    with pytest.warns(UserWarning, match=r"plan\.yaml: was made from other cases"):
        data.prepare()


def test_one_process_and_two_make_the_same(data: Data, made: Data) -> None:
    shutil.rmtree(data.out / "store")
    data.prepare(workers=2)
    assert contents(data.out / "store") == contents(made.out / "store")
    error = pickle.loads(pickle.dumps(UserError("a_0000.nii.gz: broken")))
    assert (type(error), str(error)) == (UserError, "a_0000.nii.gz: broken")  # as another process would send it


class Pool:
    """Stands in for the pool of processes and counts what it is given."""

    given: list[Any]
    broken = False

    def __init__(self, workers: int, **more: Any) -> None:
        self.workers = workers

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def map(self, function: Callable[[Any], Any], tasks: Any, chunksize: int) -> Iterator[Any]:
        Pool.given += tasks
        if Pool.broken:
            raise BrokenProcessPool("A process in the process pool was terminated abruptly")
        return map(function, tasks)

    def shutdown(self, **more: Any) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> type[Pool]:
    monkeypatch.setattr(parallel_module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(parallel_module.os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    Pool.given, Pool.broken = [], False
    return Pool


def test_little_work_starts_no_process(pool: type[Pool]) -> None:
    assert list(parallel_module.parallel(abs, range(-50, 0), None)) == list(range(50, 0, -1))
    assert list(parallel_module.parallel(abs, range(-50, 0), 1)) == list(range(50, 0, -1))
    assert list(parallel_module.parallel(abs, [], 4)) == []
    assert list(parallel_module.parallel(abs, [-3], 4)) == [3]
    assert pool.given == []


def test_much_work_goes_on_in_processes(pool: type[Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_module, "PAYS", -1.0)
    assert list(parallel_module.parallel(abs, range(-50, 0), None)) == list(range(50, 0, -1))
    assert pool.given == list(range(-48, 0))  # after two that were timed


def test_as_many_processes_as_asked_for_start_at_once(pool: type[Pool]) -> None:
    assert list(parallel_module.parallel(abs, range(-5, 0), 2)) == [5, 4, 3, 2, 1]
    assert len(pool.given) == 5


def test_a_process_that_dies_is_explained(pool: type[Pool]) -> None:
    pool.broken = True
    with pytest.raises(UserError, match="for want of memory; try semialign prepare DATA --workers 1"):
        list(parallel_module.parallel(abs, range(5), 2))


@pytest.mark.parametrize(("option", "words"), [({"workers": 0}, "--workers 0"), ({"accelerator": "tpu"}, "'tpu'")])
def test_odd_options(data: Data, option: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        data.prepare(**option)


def test_one_labelled_case_is_enough_and_small_images_do(tmp_path: Path) -> None:
    root = volumes(tmp_path / "raw", labelled=1, unlabelled=0, shape=(5, 4, 3))
    done = prepare(root, output=tmp_path / "out", accelerator="cpu")
    assert done.split.labelled == ("a",)
    assert done.store.image("a").shape == (1, 5, 4, 3)


def test_a_dicom_folder_is_a_channel(tmp_path: Path) -> None:
    root = describe(tmp_path / "raw", channels=("CT", "PET"))
    first, label = organ((12, 10, 6), 0)
    second = organ((12, 10, 6), 1)[0]
    ras = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and to the back
    for i, array in enumerate((first, second)):
        save_dicom(root / "imagesTr" / f"a_000{i}", array)
        save_volume(root / "imagesTr" / f"b_000{i}.nii.gz", np.rint(array).astype(np.int16), affine=ras)
    save_volume(root / "labelsTr" / "a.nii.gz", label, affine=ras)
    save_volume(root / "labelsTr" / "b.nii.gz", label, affine=ras)
    done = prepare(root, output=tmp_path / "out", accelerator="cpu")
    assert done.store.image("a").shape == (2, 12, 10, 6)
    np.testing.assert_allclose(done.store.image("a")[:], done.store.image("b")[:], atol=0.05)
    np.testing.assert_array_equal(done.store.label("a")[:], label[::-1, ::-1])
    before = times(done.folder)
    os.utime(root / "imagesTr" / "a_0001" / "003.dcm", ns=(0, 1))
    prepare(root, output=tmp_path / "out", accelerator="cpu")
    assert changed(before, times(done.folder)) == {"a"}


def test_one_picture_equals_its_channels_and_grey_as_colour_equals_grey(tmp_path: Path) -> None:
    together, apart = pictures(tmp_path / "together"), describe(tmp_path / "apart", channels=("R", "G", "B"))
    grey, coloured = describe(tmp_path / "grey", channels=("US",)), describe(tmp_path / "coloured", channels=("US",))
    from PIL import Image

    for path in sorted((together / "imagesTr").iterdir()):
        array = np.asarray(Image.open(path))
        for i in range(3):
            save_picture(apart / "imagesTr" / path.name.replace("_0000", f"_000{i}"), array[..., i])
        save_picture(grey / "imagesTr" / path.name, array[..., 0])
        save_picture(coloured / "imagesTr" / path.name, np.stack([array[..., 0]] * 3, -1))
    stores = {}
    for root in (together, apart, grey, coloured):
        if root != together:
            shutil.copytree(together / "labelsTr", root / "labelsTr")
        stores[root.name] = prepare(root, output=tmp_path / "out" / root.name, accelerator="cpu").store
    for name in "abc":
        np.testing.assert_array_equal(stores["together"].image(name)[:], stores["apart"].image(name)[:])
        np.testing.assert_array_equal(stores["grey"].image(name)[:], stores["coloured"].image(name)[:])
        assert stores["grey"].image(name).shape[0] == 1


def test_volumes_and_pictures_are_two_data_sets(data: Data) -> None:
    save_picture(data.raw / "imagesTr" / "c_0000.png", np.zeros((20, 18), np.uint8))
    (data.raw / "imagesTr" / "c_0000.nii.gz").unlink()
    with pytest.raises(UserError, match="both pictures and volumes"):
        data.prepare()


@pytest.mark.parametrize("name", ["hippocampus", "left-atrium", "acdc", "kvasir", "busi"])
def test_real_data(name: str, tmp_path: Path) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent; SEMIALIGN_DATA names the folder of real data")
    whole = json.loads(sorted((REAL / name).glob("split-*.json"))[0].read_text())
    few = {part: whole[part][:1] for part in ("labelled", "unlabelled", "validation")}
    done = prepare(REAL / name, write_split(tmp_path / "s.json", **few), output=tmp_path / "out", accelerator="cpu")
    plan, labelled = done.plan, few["labelled"][0]
    assert done.fingerprint["warnings"] == []
    assert plan.dimensions == (3 if name == "hippocampus" else 2)  # the others are pictures, or large
    assert (plan.slice_axis is not None) == (name in ("left-atrium", "acdc"))
    image, label = done.store.image(labelled)[:], done.store.label(labelled)[:]
    assert image.shape[1:] == label.shape
    assert np.isfinite(image).all()
    assert np.abs(image.mean(dtype=float)) < 1.5
    assert 0.3 < image.std(dtype=float) < 2
    assert set(np.unique(label)) == set(range(done.dataset.num_classes))
