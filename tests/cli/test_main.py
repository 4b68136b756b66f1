"""The command line as a whole: help, unknown commands, and errors of any kind in one line."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from semialign import __version__
from semialign.cli import main as module
from semialign.cli.main import COMMANDS, main
from semialign.common.errors import UserError

HEAVY = {"torch", "numpy", "monai", "SimpleITK", "nibabel", "scipy", "matplotlib", "lightning_fabric", "PIL", "blosc2"}


def imported(*argv: str) -> set[str]:
    """The heavy modules that a process imports to answer ``argv``."""
    script = "import sys\nfrom semialign.cli.main import main\ncode = main(sys.argv[1:])\n"
    script += "print('MODULES', *sys.modules)\nsys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.rsplit("MODULES", 1)[1].split())


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in out
        assert text in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"semialign {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    assert imported("--help") == set()
    assert imported("--version") == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr()
    assert f"usage: semialign {command}" in said.out
    assert "--help" in said.out
    assert said.err == ""


def test_a_commands_help_imports_nothing_heavy() -> None:
    script = "import sys\nfrom semialign.cli.main import COMMANDS, main\n"
    script += "for name in COMMANDS:\n    main([name, '--help'])\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    # tyro looks whether numpy and torch are there when it meets their types; nothing else may come in.
    assert HEAVY & set(done.stdout.rsplit("MODULES", 1)[1].split()) == set()


@pytest.mark.parametrize(
    ("name", "words"),
    [("trian", "did you mean 'train'?"), ("xyz", "there are: bench"), ("--trian", "command '--trian'")],
)
def test_an_unknown_command(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: unknown command '{name}'")
    assert words in said.err
    assert said.err.count("\n") == 1


class Command:
    """A command that ends as ``error`` says."""

    @dataclass
    class Arguments:
        """No arguments."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, arguments: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.nii.gz: broken;\n  mend it"), 2, "error: a.nii.gz: broken; mend it\n"),
        (
            UserError(
                "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x", line 1\nsemialign.common.errors.UserError: c.b2nd: damaged; delete it\n'
            ),
            2,
            "error: c.b2nd: damaged; delete it\n",
        ),
        (PermissionError(13, "Permission denied", "/data/a"), 2, "error: /data/a: Permission denied\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.importlib, "import_module", lambda name: Command(error))
    assert main(["train"]) == code
    assert capsys.readouterr().err == line


def test_the_packages_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib, "import_module", lambda name: Command(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "semialign.cli.main", "prepar"], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: unknown command 'prepar'; did you mean 'prepare'?\n"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("D --set a=1 --seed 2 --set b=2 c=3", "D --set a=1 b=2 c=3 --seed 2"),
        ("--set=a=1 --set b=2", "--set a=1 b=2"),
        ("D --seed 1 --seed 2", "D --seed 1 --seed 2"),
        ("D --set a=1 --resume", "D --set a=1 --resume"),
        ("R --set a=1 -n 3 --set b=2", "R --set a=1 b=2 -n 3"),
        ("--set -1 --set b=2", "--set -1 b=2"),
        ("", ""),
    ],
)
def test_values_of_an_option_given_twice_all_count(given: str, meant: str) -> None:
    assert module.gathered(given.split(), {"--set", "--plugin"}) == meant.split()


def test_options_of_many_values_are_found() -> None:
    from semialign.cli import bench, train

    assert module.repeatable(train.Arguments) == {"--set", "--plugin"}
    assert module.repeatable(bench.Arguments) == {"--only", "--seeds"}


def test_settings_given_in_two_options_are_both_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere", "--set", "wieght=1", "--set", "seed=1"]) == 2
    first = capsys.readouterr().err
    assert "wieght" in first
    assert main(["train", "nowhere", "--set", "seed=1", "--set", "wieght=1"]) == 2
    assert capsys.readouterr().err == first
