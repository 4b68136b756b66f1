"""The page of a benchmark made from figures worked out by hand."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest

from semialign.common.errors import UserError
from semialign.evaluation.benchmark_page import report_bench
from semialign.evaluation.benchmark_summary import summarise
from semialign.evaluation.reporting import report

ENTRIES = ["labels only", "<b>teacher</b>"]


def record(entry: str, seed: int, dice: dict[str, float], **changes: Any) -> dict[str, Any]:
    mean = sum(dice.values()) / len(dice)
    counts = {"scored": len(dice), "missed": 0, "absent": 0, "spurious": 0}
    figures = {**counts, "dice": {"mean": mean}, "hd95": {"mean": 2.0}, "asd": {"mean": 1.0}}
    last = {
        "case_dice": dice,
        "scores": [{"case": c, "class": name, "dice": v} for c, v in dice.items() for name in ("liver", "spleen")],
        "summary": {
            "mean": {"dice": mean, "hd95": 2.0, "asd": 1.0},
            "classes": {"liver": figures, "spleen": figures},
            "infinite": 0,
            "units": "mm",
            "rule": "default",
            "rule_text": "absent classes left out",
        },
    }
    return {
        "dataset": "heart",
        "entry": entry,
        "seed": seed,
        "labels": "split",
        "settings": {"method": "supervised", "training": {"plugins": []}, "plugins": {}},
        "protocol": "by hand",
        "cases": {"labelled": 2, "unlabelled": 5, "validation": 1, "test": len(dice)},
        "group_by": None,
        "machine": "a machine",
        "state": "finished",
        "training_seconds": 65.0,
        "steps": 100,
        "peak_memory_bytes": 2**30,
        "checkpoints": {"last": last},
        "folder": f"runs/{ENTRIES.index(entry)}/{seed}",
    } | changes


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A benchmark's output of two entries and two seeds, one of which failed."""
    cases = [{"a": 0.5, "b": 0.7, "c": 0.9}, {"a": 0.7, "b": 0.7, "c": 0.7}]
    runs = [record(entry, seed, cases[seed]) for entry in ENTRIES for seed in (0, 1)]
    runs[3] = {**runs[3], "state": "failed", "reason": "no space <left>"}
    del runs[3]["checkpoints"], runs[3]["training_seconds"], runs[3]["steps"]
    for run in runs[:2]:
        (tmp_path / run["folder"]).mkdir(parents=True)
        (tmp_path / run["folder"] / "validation.csv").write_text("step,seconds,mean_dice\n10,30,0.5\n20,60,0.6\n")
    (tmp_path / runs[0]["folder"] / "report.html").write_text("a page")
    value = {
        "format": "semialign benchmark",
        "name": "trial",
        "description": "Two entries.",
        "file": "trial.yaml",
        "length": "equal training time: 1 minute a run",
        "overrides": {},
        "seeds": [0, 1],
        "datasets": ["heart"],
        "entries": ENTRIES,
        "baseline": "labels only",
        "ceiling": None,
        "versions": {"semialign": "0", "python": "3"},
        "commit": None,
        "results": summarise(runs, entries=ENTRIES, baseline="labels only", ceiling=None),
        "runs": runs,
    }
    (tmp_path / "bench.json").write_text(json.dumps(value))
    return tmp_path


def test_a_long_rule_is_cut_in_the_tile_and_whole_in_the_notes(output: Path) -> None:
    value = json.loads((output / "bench.json").read_text(encoding="utf-8"))
    rule = "equal training time on each data set (heart: 1 minute a run; polyps: 2 minutes a run)"
    (output / "bench.json").write_text(json.dumps(value | {"length": rule}), encoding="utf-8")
    text = report(output).read_text(encoding="utf-8")
    assert text.count(rule) == 1
    assert ">equal training time on each data set<" in text


def test_tables_charts_and_runs(output: Path) -> None:
    text = report(output).read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == ["About", "Results on heart", "Runs", "How to read this", "Settings and versions"]
    assert "3 of 4" in text
    assert "labels only: 2 seeds, median 0.700" in text
    assert "labels only: median 0.700, quartiles 0.650 to 0.750, from 0.600 to 0.800, 3 cases" in text
    assert "Dice of spleen, mean over seeds" in text
    assert "Validation Dice over training time (not the test cases&#x27;)" in text
    assert text.count('<a href="runs/') == 1
    assert '<a href="runs/0/0/report.html">' in text
    assert "failed: no space &lt;left&gt;" in text
    assert "<b>" not in text
    assert '<span data-sort="65">1 min 5 s</span>' in text


def test_a_series_is_a_table_and_a_chart(output: Path) -> None:
    value = json.loads((output / "bench.json").read_text())
    more = [run | {"dataset": "heart, 5", "cases": run["cases"] | {"labelled": 5}} for run in value["runs"]]
    value |= {"datasets": ["heart", "heart, 5"], "series": dict.fromkeys(("heart", "heart, 5"), "few")}
    (output / "bench.json").write_text(json.dumps(value | {"runs": value["runs"] + more}))
    text = report_bench(output).read_text(encoding="utf-8")
    assert "<h2>Series few</h2>" in text
    assert "Test Dice against the number of labels, last checkpoint, median over seeds, 2 to 5 labelled cases." in text
    assert "labels only, labelled case 5: 0.7" in text


def test_results_written_before_pairs_were_compared_get_a_whole_page(output: Path) -> None:
    text = report_bench(output).read_text(encoding="utf-8")
    assert "pairs" not in json.loads((output / "bench.json").read_text())
    assert "against &lt;b&gt;teacher&lt;/b&gt;" in text.replace("Against", "against")
    assert "not told apart (-0.000, p 1)" in text or "not told apart (+0.000, p 1)" in text
    assert "With 2 cases that differ, no p is below 0.5" in text


def test_the_legend_names_what_is_drawn_and_unlike_times_get_a_figure(output: Path) -> None:
    title = "Test Dice (last checkpoint) over training time, a dot a run"
    assert title not in report_bench(output).read_text(encoding="utf-8")
    value = json.loads((output / "bench.json").read_text())
    given = value["runs"][0] | {"entry": "their tool", "given": True, "training_seconds": 7200.0, "folder": "runs/t"}
    more = {"entries": [*ENTRIES, "their tool"], "runs": [*value["runs"], given]}
    (output / "bench.json").write_text(json.dumps(value | more))
    text = report_bench(output).read_text(encoding="utf-8")
    curves, dots = (
        re.search(rf"<figcaption>{start}.*?</figure>", text, re.DOTALL).group()  # type: ignore[union-attr]
        for start in ("Validation Dice over", re.escape(title))
    )
    named = [[name for name in more["entries"] if escape(name) in figure] for figure in (curves, dots)]
    assert named == [["labels only"], more["entries"]]  # only the first wrote how its validation went
    assert "their tool, minute 120: 0.7" in dots


def test_every_row_of_a_sortable_table_names_its_entry(output: Path) -> None:
    text = report_bench(output).read_text(encoding="utf-8")
    for found in re.findall(r'<table class="[^"]*sortable[^"]*">.*?</table>', text, re.DOTALL):
        assert '<th scope="row"></th>' not in found
        assert "<td></td>" not in found


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(UserError, match="not the results of a benchmark"):
        report(tmp_path)
