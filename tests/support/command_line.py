"""The command line as a user sees it: a code, what it printed, and one line where it refuses."""

import pytest

from semialign.cli.main import main

QUICK = ["--steps", "3", "--accelerator", "cpu", "--set", "workers=0", "precision=float32"]


class Line:
    """Runs the command line and keeps what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main([str(a) for a in arguments])
        said = self.capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    def works(self, *arguments: object) -> str:
        """The command succeeds; returns what it printed."""
        code, out, err = self(*arguments)
        assert code == 0, err
        return out

    def refuses(self, *arguments: object, words: tuple[object, ...]) -> str:
        """The command ends in code 2 and one line (beside bars of progress) that holds ``words``."""
        code, out, err = self(*arguments)
        lines = [line for line in err.splitlines() if line.strip() and "━" not in line and "Using bfloat16" not in line]
        assert code == 2, out + err
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        for word in words:
            assert str(word) in lines[0]
        return lines[0]
