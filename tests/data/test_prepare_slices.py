"""Two dimensions asked for of volumes: never silently, beside the volumes' own plan, refused where they do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import Line
from raw_data import organ, pictures, times, volumes

from semialign.common.errors import UserError
from semialign.data.prepare import prepare

THICK = (12, 10, 6)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of 1 mm."""
    return volumes(tmp_path_factory.mktemp("raw") / "set", shape=THICK)


def ready(raw: Path, **more: Any) -> Any:
    """Prepared for a processor, in this process."""
    return prepare(raw, accelerator="cpu", workers=1, **more)


def recipe(path: Path, **plan: Any) -> str:
    """A recipe with fields of the plan."""
    path.write_text(yaml.safe_dump({"plan": plan}))
    return str(path)


def test_slices_have_a_folder_of_their_own(raw: Path) -> None:
    usual, slices = ready(raw), ready(raw, dimensions=2)
    assert (usual.folder.name, slices.folder.name) == ("no-split", "no-split-2d")
    assert (usual.plan.dimensions, usual.plan.slice_axis) == (3, None)
    assert (slices.plan.dimensions, slices.plan.slice_axis) == (2, 2)
    assert slices.plan.made_for == usual.plan.made_for
    assert ready(raw, dimensions=3).folder.name == "no-split-3d"
    # The store holds the same volumes.
    for case in "abc":
        np.testing.assert_array_equal(slices.store.image(case)[:], usual.store.image(case)[:])
    np.testing.assert_array_equal(slices.store.label("a")[:], organ(THICK, 0)[1])
    before = times(slices.folder)
    ready(raw, dimensions=2)
    assert times(slices.folder) == before, "a second run does nothing"


def test_another_axis_makes_the_store_again(raw: Path, tmp_path: Path) -> None:
    done = ready(raw, dimensions=2, output=tmp_path / "out")
    chunks = done.store.image("a")._array.chunks
    values = yaml.safe_load((tmp_path / "out" / "plan.yaml").read_text())
    (tmp_path / "out" / "plan.yaml").write_text(yaml.safe_dump(values | {"slice_axis": 0}))
    again = ready(raw, output=tmp_path / "out")  # the plan that stands there counts
    assert again.plan.slice_axis == 0
    assert (chunks[1:], again.store.image("a")._array.chunks[1:]) == ((12, 10, 1), (1, 10, 6))


def test_a_recipe_asks_for_slices(raw: Path, tmp_path: Path) -> None:
    done = ready(raw, recipe=recipe(tmp_path / "flat.yaml", dimensions=2, slice_axis=1))
    assert done.folder.name == "no-split-flat"
    assert (done.plan.dimensions, done.plan.slice_axis) == (2, 1)
    assert done.plan.made_for.endswith("plan of recipe " + str(tmp_path / "flat.yaml"))
    # The command line lies over it, in another folder.
    whole = ready(raw, recipe=recipe(tmp_path / "flat.yaml", dimensions=2), dimensions=3)
    assert (whole.folder.name, whole.plan.dimensions) == ("no-split-flat-3d", 3)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"dimensions": 2, "slice_axis": 7}, "slice_axis 7 must be 0 (right-left), 1 (back-front) or 2 (foot-head)"),
        ({"slice_axis": 1}, "slice_axis is for slices of volumes"),
        ({"dimensions": 2, "slice_axis": None}, "for pictures, not volumes (whose slices need a slice_axis)"),
        ({"dimensions": 2, "picture_size": [16, 16]}, "spacing and picture_size both set the size of slices"),
        ({"dimensions": 5}, "dimensions must be 2 or 3, not 5"),
    ],
)
def test_a_recipe_that_does_not_fit_is_named(raw: Path, tmp_path: Path, plan: dict[str, Any], words: str) -> None:
    name = recipe(tmp_path / "r.yaml", **plan)
    with pytest.raises(UserError) as error:
        ready(raw, recipe=name, output=tmp_path / "out")
    assert str(error.value).startswith(f"plan of recipe {name}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "plan.yaml").exists()


def test_slices_of_one_size(raw: Path, tmp_path: Path) -> None:
    fields = {"dimensions": 2, "slice_axis": 0, "spacing": None, "picture_size": [24, 16], "patch_size": [24, 16]}
    network = {"widths": [4], "strides": [[1, 1]], "kernels": [[3, 3]]}
    done = ready(raw, recipe=recipe(tmp_path / "sized.yaml", **fields, **network), output=tmp_path / "out")
    assert done.store.image("a").shape == (1, 12, 24, 16)
    assert done.store.about("a")["shape"] == [12, 24, 16]


@pytest.mark.parametrize("asked", [2, 3])
def test_a_plan_that_stands_may_not_contradict(raw: Path, tmp_path: Path, asked: int) -> None:
    ready(raw, dimensions=5 - asked, output=tmp_path / "out")
    before = times(tmp_path / "out")
    with pytest.raises(
        UserError, match=rf"plan.yaml: dimensions is {5 - asked}, but --dimensions {asked} says {asked}"
    ):
        ready(raw, dimensions=asked, output=tmp_path / "out")
    assert times(tmp_path / "out") == before


def test_pictures_have_two_anyway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = pictures(tmp_path / "raw")
    usual, asked = ready(raw), ready(raw, dimensions=2)
    assert (usual.folder, usual.plan) == (asked.folder, asked.plan)
    assert asked.plan.slice_axis is None
    line = Line(capsys)
    words = (f"--dimensions 3: {raw} holds pictures",)
    line.refuses("prepare", raw, "--dimensions", 3, words=words)
    line.refuses("train", raw, "--dimensions", 3, "--output", tmp_path / "run", words=words)
    line.refuses("prepare", raw, "--dimensions", 4, words=("--dimensions 4: there are 2 ", "and 3"))
    with pytest.raises(UserError, match=r"plan of recipe .*: .* holds pictures, which have 2 dimensions"):
        ready(raw, recipe=recipe(tmp_path / "deep.yaml", dimensions=3))
    with pytest.raises(UserError, match=r"plan of recipe .*: for volumes, not pictures"):
        ready(raw, recipe=recipe(tmp_path / "flat.yaml", dimensions=2, slice_axis=2))
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_it_plans(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = Line(capsys)
    common = (raw, "--accelerator", "cpu", "--workers", 1, "--output")
    assert "of slices across axis 2 at 1 x 1 mm" in line.works("prepare", *common, tmp_path / "2d", "--dimensions", 2)
    assert "slices" not in line.works("prepare", *common, tmp_path / "3d")
