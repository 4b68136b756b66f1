"""The shipped lists: whole, free of overlaps, as large as the protocols say, and found by name."""

import itertools
from importlib import resources
from pathlib import Path

import pytest
from raw_data import volumes
from raw_data import write_split as write_file

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.dataset import Case, Dataset
from semialign.data.splits import PARTS, load_split, published_splits, read_split_file
from semialign.evaluation.evaluate import cases_of_part

# labelled, unlabelled, validation, test, as published
COUNTS = {
    "synapse-ga-20p": (4, 16, 4, 6),
    "synapse-ga-10p": (2, 18, 4, 6),
    "synapse-ad-20p": (4, 16, 4, 6),
    "amos-2p": (4, 212, 24, 120),
    "amos-5p": (10, 206, 24, 120),
    "amos-10p": (21, 195, 24, 120),
    "left-atrium-10p": (8, 72, 0, 20),
    "left-atrium-20p": (16, 64, 0, 20),
}
MEMBERS = {"synapse": 30, "amos": 360, "left": 100}


def lists(name: str) -> dict[str, list[str]]:
    value = read_split_file(Path(name))
    return {part: value[part] for part in PARTS}


def dataset_of(*names: str) -> Dataset:
    """A data set of names alone that holds all cases of some splits."""
    ids = sorted({case for name in names for ids in lists(name).values() for case in ids})
    cases = {c: Case(c, (Path(f"{c}_0000.nii.gz"),), Path(f"{c}.nii.gz")) for c in ids}
    return Dataset(Path("data"), "data", ("CT",), {"background": 0, "a": 1}, None, cases)


def test_what_is_shipped() -> None:
    assert published_splits() == sorted(COUNTS)  # and never the circulating AMOS list of 20 %, which leaks test cases


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_no_overlap(name: str) -> None:
    parts = lists(name)
    assert tuple(len(parts[part]) for part in PARTS) == COUNTS[name]
    every = list(itertools.chain(*parts.values()))
    assert len(set(every)) == len(every) == MEMBERS[name.split("-")[0]]


@pytest.mark.parametrize("name", COUNTS)
def test_it_loads_by_name_and_says_what_it_is(name: str) -> None:
    split = load_split(Path(name), dataset_of(name))
    assert tuple(len(getattr(split, part)) for part in PARTS) == COUNTS[name]
    assert split.protocol != name
    assert "github.com/" in read_split_file(Path(name))["source"]


def test_lists_of_one_protocol_share_test_and_validation_cases() -> None:
    for one, other in (("synapse-ga-20p", "synapse-ga-10p"), ("amos-2p", "amos-5p"), ("amos-5p", "amos-10p")):
        for part in ("validation", "test"):
            assert lists(one)[part] == lists(other)[part]
    assert set(lists("synapse-ga-20p")["test"]) != set(lists("synapse-ad-20p")["test"])


def test_mri_cases_of_amos() -> None:
    parts = {part: sum(int(case[-4:]) > 500 for case in ids) for part, ids in lists("amos-5p").items()}
    assert (parts["labelled"], parts["test"]) == (3, 20)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("synapse-ga-20", "no published split has this name; did you mean 'synapse-ga-"),
        ("amos-20p", "no published split has this name"),
        ("synapse-ga-20p.json", "no such file"),
        ("elsewhere/synapse-ga-20p", "no such file"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        load_split(Path(name), dataset_of("amos-2p"))
    assert str(error.value).startswith(f"{name}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "amos-2p", labelled=["amos_0001"])
    assert load_split(Path("amos-2p"), dataset_of("amos-5p")).labelled == ("amos_0001",)


def test_evaluation_knows_them() -> None:
    assert list(cases_of_part(Path("synapse-ga-20p"), "test")) == lists("synapse-ga-20p")["test"]
    with pytest.raises(UserError, match="no validation cases"):
        cases_of_part(Path("left-atrium-10p"), "validation")


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_commands_take_the_name(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = volumes(tmp_path / "raw")  # whose cases are others, which the error says
    assert main([command, str(raw), "--split", "amos-2p", "--accelerator", "cpu"]) == 2
    assert 'amos-2p: "labelled" names case amos_0017, which the data set lacks' in capsys.readouterr().err
    assert main([command, str(raw), "--split", "amos-3p", "--accelerator", "cpu"]) == 2
    assert "did you mean 'amos-" in capsys.readouterr().err


def test_a_benchmark_takes_the_name(tmp_path: Path) -> None:
    from semialign.evaluation.benchmark_file import load_bench

    path = tmp_path / "file.yaml"
    text = "name: b\ndatasets: [{{name: d, data: d, split: {0}}}]\nentries: [{{name: e, method: cps}}]\n"
    path.write_text(text.format("amos-2p"))
    assert load_bench(path).datasets[0].split == Path("amos-2p")
    path.write_text(text.format("split.json"))
    assert load_bench(path).datasets[0].split == tmp_path / "split.json"


def test_they_are_in_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["semialign"]
    root = Path(str(resources.files("semialign")))
    packed = {path for pattern in patterns for path in root.glob(pattern)}
    assert {*root.rglob("*.json"), *root.rglob("*.yaml")} <= packed
    assert len(set(root.rglob("*.json"))) == len(COUNTS)
