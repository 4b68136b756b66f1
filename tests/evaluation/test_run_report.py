"""A run's page made from its folder: which pictures it shows and in what order, groups of classes, what was learned."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semialign.evaluation.run_report import _chosen, report_run


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({}, []),
        ({"a": 0.5}, [("a", "worst")]),
        ({"a": 0.9, "b": 0.1}, [("b", "worst"), ("a", "best")]),
        ({"a": 0.9, "b": 0.1, "c": 0.5}, [("b", "worst"), ("c", "median"), ("a", "best")]),
        ({"e": 0.4, "d": 0.3, "c": 0.9, "b": 0.1, "a": 0.5}, [("b", "worst"), ("e", "median"), ("c", "best")]),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, [("a", "worst"), ("b", "median"), ("c", "best")]),
    ],
)
def test_pictures_stand_worst_first(dice: dict[str, float], expected: list[tuple[str, str]]) -> None:
    assert list(_chosen(dice).items()) == expected


@pytest.fixture(scope="module")
def run(trained: Callable[[Any], Path], any_case: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two classes, ball and hole, copied so that it may be written to."""
    return shutil.copytree(trained(any_case), tmp_path_factory.mktemp("report") / "run")


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]*>", "\n", page.read_text(encoding="utf-8"))


def test_groups_come_from_the_labelled_cases(run: Path) -> None:
    found = json.loads((run / "fingerprint.json").read_text())
    swapped = found | {"class_frequencies": {"background": 0.9, "ball": 0.01, "hole": 0.09}}
    (run / "fingerprint.json").write_text(json.dumps(swapped))
    page = text_of(report_run(run, accelerator="cpu"))
    groups = json.loads((run / "validation" / "evaluation" / "summary.json").read_text())["groups"]
    assert {name: of["classes"] for name, of in groups.items()} == {"head": ["hole"], "tail": ["ball"]}
    assert "By frequency in the labelled cases" in page
    assert "head: hole; tail: ball; groups by" in page
    assert "What was learned of each class" not in page
    renamed = found | {"class_frequencies": {"background": 0.9, "sphere": 0.01, "hole": 0.09}}
    (run / "fingerprint.json").write_text(json.dumps(renamed))
    assert "By frequency in the labelled cases" not in text_of(report_run(run, accelerator="cpu"))


def test_what_a_plug_in_learned_is_drawn(run: Path) -> None:
    names = ("background", "ball", "hole")
    with open(run / "proxies.csv", "w", newline="") as handle:
        figures = {"norm": 1, "spread": 0.5, "share": 0.3} | {f"cos {name}": 0.125 for name in names}
        table = csv.DictWriter(handle, ["step", "network", "class", *figures])
        table.writeheader()
        table.writerows({"step": step, "network": "student", "class": n} | figures for step in (1, 2) for n in names)
    page = text_of(report_run(run, accelerator="cpu"))
    assert page.count("What was learned of each class") == 2  # the heading, and the link to it
    assert "ball and hole: 0.125" in page
