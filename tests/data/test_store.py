"""The store against plain arrays, and against lost, cut, damaged and half-written files."""

import json
import os
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_data import contents, full_disk, unfinished

from semialign.common.errors import UserError
from semialign.data.store import KEPT, Store, read_box

SHAPE = (70, 20, 33)  # more than one chunk and one block along an axis


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, np.ndarray, np.ndarray]:
    """A store with one case of two channels, and what was written."""
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(2, *SHAPE)).astype(np.float32), rng.integers(-1, 4, SHAPE)
    store = Store(tmp_path_factory.mktemp("store"))
    store.write("case", image, label, "key")
    return store, image, label


def by_padding(array: np.ndarray, low: list[int], high: list[int], outside: float) -> np.ndarray:
    """The box, voxel by voxel."""
    lead = array.ndim - len(low)
    result = np.full((*array.shape[:lead], *(b - a for a, b in zip(low, high, strict=True))), outside, array.dtype)
    for at in np.ndindex(*result.shape[lead:]):
        where = tuple(a + i for a, i in zip(low, at, strict=True))
        if all(0 <= w < n for w, n in zip(where, array.shape[lead:], strict=True)):
            result[(..., *at)] = array[(..., *where)]
    return result


@given(data=st.data())
def test_a_box_is_the_padded_slice(stored: tuple[Store, np.ndarray, np.ndarray], data: st.DataObject) -> None:
    store, image, label = stored
    low = [data.draw(st.integers(-9, n + 5)) for n in SHAPE]
    high = [a + data.draw(st.integers(0, 9)) for a in low]
    found = read_box(store.image("case"), low, high, 7.5)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, by_padding(image.astype(np.float16), low, high, 7.5))
    np.testing.assert_array_equal(read_box(store.label("case"), low, high, -1), by_padding(label, low, high, -1))
    np.testing.assert_array_equal(read_box(label, low, high, -1), by_padding(label, low, high, -1))


@pytest.mark.parametrize("low", [[-50, 0, 0], [0, 20, 0], [100, 100, 100], [-5, -5, -5]])
def test_a_box_beyond_the_array_is_all_outside(stored: tuple[Store, np.ndarray, np.ndarray], low: list[int]) -> None:
    box = read_box(stored[0].image("case"), low, [a + 4 for a in low], -3.0)
    assert box.shape == (2, 4, 4, 4)
    assert (box == -3).all()


def test_pictures_are_stored_in_two_dimensions(tmp_path: Path) -> None:
    image, label = np.random.default_rng(0).normal(size=(3, 300, 40)), np.eye(300, 40, dtype=np.int64)
    store = Store(tmp_path)
    store.write("p", image, label, "k")
    np.testing.assert_array_equal(store.image("p")[:], image.astype(np.float16))
    np.testing.assert_array_equal(store.label("p")[:], label)
    assert store.about("p")["shape"] == [300, 40]


def test_float16_keeps_normalised_intensities(stored: tuple[Store, np.ndarray, np.ndarray]) -> None:
    store, image, label = stored
    np.testing.assert_allclose(store.image("case")[:], image, rtol=2**-11, atol=2**-24)
    np.testing.assert_array_equal(store.label("case")[:], label)
    assert store.label("case")[:].dtype == np.int16


def test_an_intensity_beyond_float16_stays_finite(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("c", np.array([-1e9, 0, 1e9], np.float32).reshape(1, 3, 1, 1), None, "k")
    found = store.image("c")[:].ravel()
    assert np.isfinite(found).all()
    assert found[0] < -5e4 < found[1] < 5e4 < found[2]


def test_points_lie_on_their_class_and_all_over_it(stored: tuple[Store, np.ndarray, np.ndarray]) -> None:
    store, _, label = stored
    points = store.about("case")["points"]
    assert sorted(points) == [1, 2, 3]  # neither the background nor what nobody annotated
    for value, at in points.items():
        assert (label[tuple(at.T)] == value).all()
        assert len(at) == 2000
        assert at[:, 0].min() < 3
        assert at[:, 0].max() > SHAPE[0] - 4


def test_a_class_of_one_voxel_has_one_point(tmp_path: Path) -> None:
    label = np.zeros((4, 5, 6), int)
    label[3, 0, 2] = 9
    store = Store(tmp_path)
    store.write("c", np.zeros((1, 4, 5, 6)), label, "k")
    assert {value: at.tolist() for value, at in store.about("c")["points"].items()} == {9: [[3, 0, 2]]}


def test_a_case_is_known_by_its_key(stored: tuple[Store, np.ndarray, np.ndarray]) -> None:
    store = stored[0]
    assert store.has("case", "key")
    assert not store.has("case", "another key")
    assert not store.has("another case", "key")


def test_an_unlabelled_case_has_no_label_even_where_it_had_one(tmp_path: Path) -> None:
    store, image = Store(tmp_path), np.zeros((1, 4, 4, 4))
    store.write("c", image, np.ones((4, 4, 4), int), "labelled")
    store.write("c", image, None, "unlabelled")
    assert sorted(contents(tmp_path)) == ["c.image.b2nd", "c.json"]
    assert store.about("c")["labelled"] is False
    assert store.about("c")["points"] == {}
    with pytest.raises(UserError, match=r"c.label.b2nd"):
        store.label("c")


def test_what_is_written_again_is_read_again(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    for size in (4, 6):
        store.write("c", np.full((1, size, 4, 4), size), np.full((size, 4, 4), size), str(size))
        assert store.image("c")[:].mean() == size
        assert store.about("c")["shape"] == [size, 4, 4]
    assert other.about("c")["shape"] == Store(tmp_path).about("c")["shape"] == [6, 4, 4]


def test_the_same_array_is_the_same_file(tmp_path: Path) -> None:
    image, label = np.random.default_rng(0).normal(size=(1, *SHAPE)), np.zeros(SHAPE, int)
    for name in ("one", "two"):
        Store(tmp_path / name).write("c", image, label, "k")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_store_travels_to_another_process(stored: tuple[Store, np.ndarray, np.ndarray]) -> None:
    store = stored[0]
    store.image("case")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).label("case")[:], stored[2])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_few_files_stay_open(tmp_path: Path) -> None:
    store, before = Store(tmp_path), len(os.listdir("/proc/self/fd"))
    for number in range(KEPT + 30):  # links: one written case is enough
        if number == 0:
            store.write("0", np.zeros((1, 4, 4)), None, "k")
        else:
            os.link(tmp_path / "0.image.b2nd", tmp_path / f"{number}.image.b2nd")
    for number in range(KEPT + 30):
        store.image(str(number))[:]
    assert len(os.listdir("/proc/self/fd")) - before <= KEPT + 1
    assert KEPT < 200  # macOS lets a process open 256


DAMAGE = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage" * 100),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["c.image.b2nd", "c.label.b2nd", "c.json"])
def test_a_damaged_file_is_named_and_its_case_made_again(tmp_path: Path, name: str, damage: str) -> None:
    Store(tmp_path).write("c", np.random.default_rng(0).normal(size=(1, 9, 9, 9)), np.ones((9, 9, 9), int), "k")
    DAMAGE[damage](tmp_path / name)
    store = Store(tmp_path)
    read = {"c.image.b2nd": lambda: store.image("c")[:], "c.label.b2nd": lambda: store.label("c")[:]}
    with pytest.raises(UserError, match="prepare") as error:
        read.get(name, lambda: store.about("c"))()
    assert str(tmp_path / name) in str(error.value)
    assert not store.has("c", "k")


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"key": "k"}', '{"key": "k", "files": {}}', '{"key": "k", "files": 3}']
)
def test_a_description_of_another_form_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert not Store(tmp_path).has("c", "k")
    with pytest.raises(UserError, match=r"c.json"):
        Store(tmp_path).about("c")


def test_bytes_that_do_not_decompress_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.image.b2nd"
    Store(tmp_path).write("c", np.random.default_rng(0).normal(size=(1, 40, 40, 40)), None, "k")
    raw = bytearray(path.read_bytes())
    raw[200:-400] = b"\xff" * (len(raw) - 600)
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"c.image.b2nd"):
        Store(tmp_path).image("c")[:]


@pytest.mark.parametrize("ending", [".image.b2nd", ".label.b2nd", "c.json"])
def test_a_full_disk_leaves_the_old_case_as_it_was(tmp_path: Path, ending: str) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    store.write("c", rng.normal(size=(1, 9, 9, 9)), np.ones((9, 9, 9), int), "old")
    before = contents(tmp_path)
    with full_disk(ending), pytest.raises(UserError, match=r"disk is full.*again"):
        store.write("c", rng.normal(size=(1, 9, 9, 9)), np.zeros((9, 9, 9), int), "new")
    assert contents(tmp_path) == before
    assert Store(tmp_path).has("c", "old")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits the file size of a forked process")
@pytest.mark.parametrize("limit", [1, 1_000, 30_000])
def test_a_write_that_truly_fails_leaves_the_old_case(tmp_path: Path, limit: int) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    store.write("c", np.zeros((1, 9, 9, 9)), None, "old")
    before, image = contents(tmp_path), rng.normal(size=(1, 40, 40, 40))
    child = os.fork()
    if child == 0:  # no pytest in here: only the exit code counts
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            store.write("c", image, None, "new")
        except UserError as error:
            os._exit(0 if str(tmp_path / "c") in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert contents(tmp_path) == before
    assert not unfinished(tmp_path)


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(UserError, match="file stands where a folder"):
        Store(tmp_path / "store").write("c", np.zeros((1, 4, 4)), None, "k")


def test_the_description_is_plain_json(stored: tuple[Store, np.ndarray, np.ndarray]) -> None:
    about = json.loads((stored[0].folder / "case.json").read_text())
    assert about["shape"] == list(SHAPE)
    assert about["labelled"] is True
