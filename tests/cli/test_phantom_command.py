"""``semialign phantom`` from the command line: what it prints and how it refuses."""

from pathlib import Path

import pytest

from semialign.cli.main import main
from semialign.data.dataset import load_dataset
from semialign.data.splits import load_split


def phantom(out: Path, options: str) -> int:
    return main(["phantom", str(out), *options.split()])


def test_writes_volumes_and_says_what_is_next(tmp_path, capsys):
    out = tmp_path / "phantom"
    assert phantom(out, "--cases 3 --labelled 1 --test 1 --size 32 32 16 --organs 5 --seed 1") == 0
    said = capsys.readouterr().out
    assert f"{out}: 3 cases with 5 classes, 1 labelled, 1 unlabelled, 0 validation, 1 test" in said
    assert f"semialign train {out} --split {out / 'split.json'}" in said
    dataset = load_dataset(out)
    assert dataset.num_classes == 6
    assert len(load_split(out / "split.json", dataset).test) == 1


def test_writes_pictures_and_hides_labels(tmp_path, capsys):
    out = tmp_path / "phantom"
    assert phantom(out, "--cases 4 --labelled 2 --dimensions 2 --size 32 32 --hide-labels --workers 2") == 0
    assert "4 cases with 1 class," in capsys.readouterr().out
    assert len(load_dataset(out).with_label) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--cases 2 --labelled 2 --test 1", "raise --cases"),
        ("--cases 2 --labelled 1 --size 48 48", "3 are wanted"),
        ("--cases 2 --labelled 1 --size 8 48 48", "at least 16"),
        ("--cases 2 --labelled 1 --organs 20", "1 to 13"),
        ("--cases 2 --labelled 1 --dimensions 1", "must be 3"),
        ("--cases 0 --labelled 1", "at least one case"),
        ("--cases 2 --labelled 1 --workers 0", "at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(tmp_path, capsys, options, said):
    assert phantom(tmp_path / "out", options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_refuses_a_folder_in_use_and_a_file(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    options = "--cases 1 --labelled 1"
    assert phantom(tmp_path, options) == 2
    assert "holds files already" in capsys.readouterr().err
    assert phantom(tmp_path / "notes.txt", options) == 2
    assert "a file stands" in capsys.readouterr().err
    assert phantom(tmp_path / "notes.txt" / "below", options) == 2
    assert "a file stands" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_wrong_option_is_code_2(tmp_path):
    assert phantom(tmp_path / "out", "--cases many --labelled 1") == 2
