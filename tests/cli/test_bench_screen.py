"""The live table of a benchmark."""

import io

import pytest
from rich.console import Console

from semialign.cli.bench_screen import SHOWN, Board, screen
from semialign.evaluation.benchmark import Told


def shown(board: Board) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(board)
    return console.file.getvalue()


def test_runs_move_through_the_table() -> None:
    board = Board()
    board.step("compare", 3, 9)
    assert "compare 3 of 9" in shown(board)
    board.watch(Told("a, [b], seed 0", "running", "train", 40, 200))
    board.watch(Told("c, seed 0", "running", "begins", 0, 0))
    board.step("train", 1, 2)  # of a run, which the table shows itself
    text = shown(board)
    assert "before the runs" not in text
    assert "a, [b], seed 0" in text
    assert "train 40 of 200" in text
    board.watch(Told("a, [b], seed 0", "failed", "failed: no memory", 0, 0))
    text = shown(board)
    assert "failed: no memory" in text
    assert "train 40 of 200" not in text
    for place in range(SHOWN):
        board.watch(Told(f"run {place}", "finished", "mean Dice 0.5", 0, 0))
    text = shown(board)
    assert "no memory" not in text  # told in a line that stays
    assert "c, seed 0" in text


def test_without_a_terminal_there_are_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with screen() as (tell, progress, watch):
        tell("run 1 of 2: a [b]")
        progress("check", 1, 2)
        watch(Told("a", "running", "train", 1, 2))
    assert capsys.readouterr().err == "run 1 of 2: a [b]\n"
