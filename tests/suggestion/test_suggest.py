"""``suggest`` end to end on small trained runs, in 3D, 2D and slices: files, restarts, copies, mistakes."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Line
from raw_data import contents, times, volumes, write_split

import semialign
from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.suggestion.suggest import suggest

UNLABELLED = {"c", "d", "e"}


@pytest.fixture(scope="module")
def runs(trained: Callable[[Any], Path], any_case: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs in 3D and 2D, copied so that they may be written to."""
    folder = tmp_path_factory.mktemp("runs")
    return {n: shutil.copytree(trained(any_case._replace(dims=n)), folder / f"run-{n}d") for n in (2, 3)}


@pytest.fixture
def run(runs: dict[int, Path], tmp_path: Path) -> Path:
    """A 3D run of its own."""
    return shutil.copytree(runs[3], tmp_path / "run", ignore=shutil.ignore_patterns("suggest"))


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Line(capsys)


def quick(run: Path, *arguments: Any, **options: Any) -> Any:
    return suggest(run, *arguments, **{"accelerator": "cpu", **options})


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]*>", "\n", page.read_text(encoding="utf-8"))


def copied_data(tiny: dict[int, Any], folder: Path) -> Path:
    return shutil.copytree(tiny[3].raw, folder / "data")


@pytest.mark.parametrize("dims", [2, 3])
def test_files_and_page_tell_the_same(runs: dict[int, Path], tmp_path: Path, dims: int) -> None:
    found = quick(runs[dims], count=2, output=tmp_path / "out", split=tmp_path / "next.json")
    assert set(found.cases) < UNLABELLED
    assert len(set(found.cases)) == 2
    assert {one.case for one in (*found.chosen, *found.others)} == UNLABELLED
    assert (found.labelled, found.failed) == (["a", "b"], {})
    told = json.loads((tmp_path / "out" / "suggest.json").read_text())
    assert [one["case"] for one in told["suggested"]] == found.cases
    assert told["compared"][0] == "as it is"
    weights = sum(one["unsureness"] for one in (*told["suggested"], *told["others"]))
    for one in told["suggested"]:
        assert one["case"] in one["stands_for"]
        assert one["distance"] * one["unsureness"] / weights - 1e-5 <= one["gain"], "that of itself alone"
        assert set(one["stands_for"]) <= UNLABELLED
        assert 0 <= one["disagreement"] <= one["entropy"] <= 2
        assert one["nearest"] in {"labelled": {"a", "b"}, "chosen": set(found.cases)}[one["nearest_is"]]
        assert one["nearest"] in one["why"]
    with open(tmp_path / "out" / "suggest.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["case"], row["order"]) for row in rows] == [
        *((case, str(i)) for i, case in enumerate(found.cases, 1)),
        (found.others[0].case, ""),
    ]
    assert [row["stands_for"] for row in rows] == [*(str(len(one.stands_for)) for one in found.chosen), ""]
    page = text_of(tmp_path / "out" / "suggest.html")
    assert all(f"{one.order}: {one.case}" in page and one.why in page for one in found.chosen)
    assert ("Leaf through the slices" in page) == (dims == 3)
    assert "label (solid)" not in page
    assert not re.search(r'(?:src|href)="http', (tmp_path / "out" / "suggest.html").read_text(encoding="utf-8"))


def test_the_new_split_moves_the_chosen_cases_alone(runs: dict[int, Path], tmp_path: Path) -> None:
    found = quick(runs[3], count=2, output=tmp_path / "out", split=tmp_path / "next.json")
    old, new = json.loads((runs[3] / "split.json").read_text()), json.loads((tmp_path / "next.json").read_text())
    assert new["labelled"] == [*old["labelled"], *found.cases]
    assert new["unlabelled"] == [case for case in old["unlabelled"] if case not in found.cases]
    assert (new["validation"], new["test"]) == (old["validation"], old["test"])
    assert "suggest" in new["protocol"]


def test_what_is_measured_is_not_measured_again(run: Path) -> None:
    first = quick(run, count=1)
    cases = run / "suggest" / "cases"
    assert sorted(p.stem for p in cases.rglob("*.npz")) == ["a", "b", "c", "d", "e"]

    def changes() -> set[str]:
        before = times(cases)
        assert quick(run, count=1).cases == first.cases
        now = times(cases)
        return {name for name, at in now.items() if name.endswith(".npz") and before.get(name) != at}

    assert changes() == set()
    (cases / "d.npz").unlink()
    (cases / "labelled" / "b.npz").write_bytes(b"half")
    assert changes() == {"d.npz", "labelled/b.npz"}
    for path in run.glob("*.pt"):  # as if it had been trained on
        path.touch()
    assert len(changes()) == 5


def test_a_copy_is_not_chosen_beside_its_original(tiny: dict[int, Any], run: Path, tmp_path: Path) -> None:
    data = copied_data(tiny, tmp_path)
    shutil.copy(data / "imagesTr" / "d_0000.nii.gz", data / "imagesTr" / "e_0000.nii.gz")
    found = quick(run, data, count=3)
    assert len(found.cases) == 2
    assert not {"d", "e"} <= set(found.cases)
    assert "too much like" in found.notes[0]
    shutil.copy(data / "imagesTr" / "a_0000.nii.gz", data / "imagesTr" / "c_0000.nii.gz")
    assert set(quick(run, data, count=3).cases) in ({"d"}, {"e"})


def test_slices_of_volumes(tmp_path: Path) -> None:
    raw = volumes(tmp_path / "raw", labelled=2, unlabelled=3)
    split = write_split(tmp_path / "s.json", labelled=["a", "b"], unlabelled=["c", "d", "e"])
    settings = {"steps": 3, "workers": 0, "precision": "float32"}
    where = {"prepared": tmp_path / "prepared", "output": tmp_path / "run"}
    run = semialign.train(raw, split=split, dimensions=2, settings=settings, accelerator="cpu", report=False, **where)
    found = semialign.suggest(run, count=2, accelerator="cpu")
    assert len(found.cases) == 2
    assert "Leaf through the slices" in text_of(run / "suggest" / "suggest.html")


def test_another_folder_of_images(tiny: dict[int, Any], run: Path, line: Line, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for name, case in (("x", "c"), ("y", "d"), ("a", "g"), ("copy", "b")):  # "a" is an id of the run's, too
        shutil.copy(tiny[3].raw / "imagesTr" / f"{case}_0000.nii.gz", new / f"{name}.nii.gz")
    said = line.works("suggest", run, new, "-n", 2, "--accelerator", "cpu")
    told = json.loads((run / "suggest" / "suggest.json").read_text())
    chosen = [one["case"] for one in told["suggested"]]
    assert set(chosen) < {"x", "y", "a"}, "the copy of a labelled case is not worth labelling"
    assert {*chosen, *(one["case"] for one in told["others"])} == {"x", "y", "a", "copy"}
    assert all(case in said for case in chosen)
    line.refuses(
        "suggest", run, new, "-n", 1, "--split", "s.json", "--accelerator", "cpu", words=("--split", "leave it")
    )
    (run / "data.json").write_text(json.dumps({"name": "Tiny", "root": str(tmp_path / "gone")}))
    assert "no longer" in quick(run, new, count=1).notes[0]


def test_the_runs_own_images_are_not_new_ones(run: Path, tiny: dict[int, Any]) -> None:
    with pytest.raises(UserError, match="images of the run's own data set, test cases too; leave DATA out"):
        quick(run, tiny[3].raw / "imagesTr", count=1)


def test_runs_of_an_ensemble_are_compared(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    quick(run, count=1, ensemble=[other])
    assert json.loads((run / "suggest" / "suggest.json").read_text())["compared"] == ["run", "other"]


def test_another_ensemble_is_measured_anew(run: Path, tmp_path: Path) -> None:
    from semialign.inference.export import export

    def measured() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (run / "suggest" / "cases").glob("*.npz")}

    quick(run, count=1)
    before = measured()
    quick(run, count=1)
    assert measured() == before
    for name in ("one.pt", "two.pt"):
        model = export(run, tmp_path / name).path
        quick(run, count=1, ensemble=[model])
        after = measured()
        assert all(after[case] != before[case] for case in before)
        before = after


def test_a_broken_image_is_named_and_stops_no_other(
    tiny: dict[int, Any], run: Path, line: Line, tmp_path: Path
) -> None:
    data = copied_data(tiny, tmp_path)
    broken = data / "imagesTr" / "d_0000.nii.gz"
    broken.write_bytes(b"no image")
    code, out, err = line("suggest", run, data, "-n", 2, "--accelerator", "cpu")
    assert code == 1
    assert str(broken) in err
    assert "page: " in out
    told = json.loads((run / "suggest" / "suggest.json").read_text())
    assert {one["case"] for one in told["suggested"]} == {"c", "e"}
    assert list(told["failed"]) == ["d"]
    assert "not looked at" in text_of(run / "suggest" / "suggest.html")


def test_mistakes_are_one_line(
    tiny: dict[int, Any], runs: dict[int, Path], run: Path, line: Line, tmp_path: Path
) -> None:
    (tmp_path / "taken.json").write_text('{"labelled": ["a"]}')
    (tmp_path / "empty").mkdir()
    cpu, before = ("--accelerator", "cpu"), contents(run)
    line.refuses("suggest", "nowhere", *cpu, words=("nowhere", "no such run folder"))
    line.refuses("suggest", run, "elsewhere", *cpu, words=("elsewhere", "no such file"))
    line.refuses("suggest", run, "empty", *cpu, words=("empty", "holds no image"))
    line.refuses("suggest", run, "-n", 0, *cpu, words=("--count 0", "at least 1"))
    line.refuses("suggest", run, "-n", 4, *cpu, words=("--count 4", "3 unlabelled cases"))
    line.refuses("suggest", run, "--overlap", 2, *cpu, words=("--overlap 2",))
    line.refuses("suggest", run, "--batch", 0, *cpu, words=("--batch 0",))
    line.refuses("suggest", run, "--ensemble", runs[2], *cpu, words=(runs[2],))
    assert contents(run) == before
    line.refuses("suggest", run, "-n", 1, "--split", "taken.json", *cpu, words=("taken.json", "holds something else"))
    assert (tmp_path / "taken.json").read_text() == '{"labelled": ["a"]}'
    assert not (run / "suggest" / "suggest.json").exists()
    (run / "data.json").write_text(json.dumps({"name": "Tiny", "root": str(tmp_path / "gone")}))
    line.refuses("suggest", run, *cpu, words=("gone", "has moved"))
    ids = list(load_dataset(tiny[3].raw).cases)
    (run / "split.json").write_text(json.dumps({"labelled": ids[:2], "unlabelled": []}))
    line.refuses("suggest", run, tiny[3].raw, *cpu, words=("no unlabelled case",))
