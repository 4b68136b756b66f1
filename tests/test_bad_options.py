"""Options, settings and recipes that cannot be used: exit code 2, one line, and no file touched."""

from pathlib import Path

import pytest
from command_line import Line
from raw_data import (
    contents,
    full_disk,
    times,
    volumes,
)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Line(capsys)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A faultless data set: a and b labelled, c not."""
    return volumes(tmp_path_factory.mktemp("sound"))


WRONG: dict[str, tuple[list[object], tuple[str, ...]]] = {
    "unknown method": (["--method", "meanteacher"], ("unknown method", "did you mean 'mean-teacher'")),
    "unknown recipe": (["--recipe", "left-atriun"], ("unknown recipe 'left-atriun'",)),
    "no recipe file": (["--recipe", "mine.yaml"], ("mine.yaml", "no such file")),
    "unknown plug-in": (["--plugin", "scdll"], ("unknown plug-in 'scdll'",)),
    "unknown key": (["--set", "lerning_rate=1"], ("unknown key 'lerning_rate'", "did you mean 'learning_rate'")),
    "unknown key of a method": (["--set", "wieght=1"], ("did you mean 'weight'",)),
    "no value": (["--set", "steps"], ("write key=value",)),
    "a value of another type": (["--set", "steps=many"], ("'steps' must be a whole number",)),
    "no steps": (["--steps", 0], ("steps must be at least 1, not 0",)),
    "negative steps": (["--steps", -5], ("steps",)),
    "negative minutes": (["--minutes", -1], ("minutes must be more than 0",)),
    "steps and minutes": (["--steps", 5, "--minutes", 1], ("--steps and --minutes: give one of them",)),
    "a share above 1": (["--method", "mean-teacher", "--set", "start=50"], ("start 50: must be from 0 to 1",)),
    "percent": (["--method", "mean-teacher", "--set", "confidence=90"], ("confidence 90: must be from 0 to 1",)),
    "a negative weight": (["--method", "cps", "--set", "weight=-1"], ("weight -1: must be at least 0",)),
    "minutes that are no number": (["--minutes", "nan"], ("minutes",)),
    "endless minutes": (["--minutes", "inf"], ("minutes",)),
    "no device": (["--devices", 0], ("--devices 0",)),
    "no machine": (["--nodes", -1], ("--nodes -1",)),
    "unknown accelerator": (["--accelerator", "tpu"], ("tpu", "cpu")),
    "a rate of 0": (["--set", "learning_rate=0"], ("learning_rate must be more than 0",)),
    "log_steps": (["--set", "log_steps=0"], ("log_steps must be at least 1",)),
    "checkpoint_steps": (["--set", "checkpoint_steps=0"], ("checkpoint_steps must be at least 1",)),
    "batch": (["--set", "batch_labelled=0"], ("batch_labelled must be at least 1",)),
    "workers": (["--set", "workers=-1"], ("workers must be at least 0",)),
    "share": (["--set", "foreground=1.5"], ("foreground must be at most 1",)),
    "momentum": (["--set", "momentum=2"], ("momentum must be at most 1",)),
    "optimiser": (["--set", "optimiser=adam"], ("unknown optimiser 'adam'", "did you mean 'adamw'")),
    "augmentation": (["--set", "augmentation=lite"], ("unknown augmentation 'lite'", "light")),
    "precision": (["--set", "precision=fp16"], ("precision 'fp16'",)),
    "no plug-ins": (["--set", "plugins=3"], ("plugins must be a list of names",)),
    "nothing to resume": (["--resume"], ("run", "no run to resume")),
    "a file to start from": (["--init", __file__], ("a file; training starts from a run folder",)),
    "no run to start from": (["--init", "elsewhere"], ("elsewhere", "no such checkpoint")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_train_refuses(wrong: str, line: Line, sound: Path, tmp_path: Path) -> None:
    options, words = WRONG[wrong]
    where = ["--prepared", tmp_path / "prepared", "--output", tmp_path / "run"]
    line.refuses("train", sound, *where, *options, words=words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "DATA", "--seed", "x"],
        ["train", "DATA", "--steps", "1.5"],
        ["train", "DATA", "--minutes", "soon"],
        ["train", "DATA", "--metod", "cps"],
        ["train"],
        ["prepare"],
        ["prepare", "DATA", "--workers", "x"],
        ["prepare", "DATA", "--workers", "0"],
        ["prepare", "DATA", "--accelerator", "tpu"],
        ["prepare", "DATA", "MORE"],
        ["split", "DATA"],
        ["split", "DATA", "--labelled", "some"],
        ["split", "DATA", "--labelled", "0"],
        ["split", "DATA", "--labelled", "1", "--test", "-1"],
        ["split", "DATA", "--labelled", "3"],
        ["split", "DATA", "--labelled", "1", "--group-by", "("],
        ["split", "DATA", "--labelled", "1", "--group-file", "none.json"],
        ["methods", "all"],
    ],
    ids=" ".join,
)
def test_odd_options_end_in_code_2(arguments: list[str], line: Line, sound: Path, tmp_path: Path) -> None:
    before = times(sound)
    code, _, err = line(*(str(sound) if a == "DATA" else a for a in arguments))
    assert code == 2
    assert err.strip()
    assert times(sound) == before
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_holds_no_settings(line: Line, sound: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    for text, words in {
        "- cps": "must hold settings",
        "steps: [": "not valid YAML",
        "stps: 5": "did you mean 'steps'",
        "plugins:\nsteps: few": "must be a whole number",
    }.items():
        recipe.write_text(text)
        line.refuses("train", sound, "--recipe", recipe, words=(words,))


def test_a_split_is_never_written_over_another_file(line: Line, sound: Path, tmp_path: Path) -> None:
    raw, out = sound, tmp_path / "s.json"
    line.works("split", raw, "--labelled", 1, "--output", out)
    first = out.read_text()
    line.works("split", raw, "--labelled", 1, "--output", out)
    line.refuses("split", raw, "--labelled", 2, "--output", out, words=(out, "holds something else"))
    assert out.read_text() == first
    line.refuses("split", raw, "--labelled", 1, "--output", raw / "dataset.json", words=("dataset.json",))
    with full_disk("new.json"):
        line.refuses(
            "split", raw, "--labelled", 1, "--output", tmp_path / "new.json", words=("new.json", "disk is full")
        )
    assert contents(tmp_path).keys() == {"s.json"}
