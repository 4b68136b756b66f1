"""The page of a benchmark: its tables, how Dice spreads over seeds and test cases, the curves, and every run."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.evaluation.benchmark_charts import dice_charts, label_chart, mean_dice, time_charts
from semialign.evaluation.benchmark_comparisons import series_of
from semialign.evaluation.benchmark_pairs import compare_pairs
from semialign.evaluation.benchmark_summary import summarise
from semialign.evaluation.benchmark_table import Section, reading, sections, series_tables
from semialign.evaluation.benchmark_words import Table, duration
from semialign.evaluation.report_page import folded, versions_now, write_page
from semialign.evaluation.report_tables import human, number, settings_text, table

Record = Mapping[str, Any]
BENCH, FORMAT = "bench.json", "semialign benchmark"
_TIME = re.compile(r"(?:(\d+) h)? ?(?:(\d+) min)? ?(?:(\d+) s)?")


def report_bench(output: Path) -> Path:
    """Write ``report.html`` beside the ``bench.json`` in folder ``output`` and return its path.

    Raises :class:`UserError` where there is no ``bench.json``, or one that is none of ours.
    """
    output = Path(output)
    value = read_json(output / BENCH)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{output / BENCH}: not the results of a benchmark; semialign bench writes them")
    # Worked out anew: an older file lacks figures that the page shows.
    names = {"entries": value["entries"]}
    rows = summarise(value["runs"], **names, baseline=value["baseline"], ceiling=value["ceiling"])
    write_bench_page(output, value | {"results": rows, "pairs": compare_pairs(value["runs"], **names)})
    return output / "report.html"


def write_bench_page(output: Path, value: Mapping[str, Any]) -> None:
    """Write the page of ``value``, the contents of ``bench.json``, into folder ``output``."""
    slots = {name: i + 1 for i, name in enumerate(value["entries"])}
    finished = [run for run in value["runs"] if run["state"] == "finished"]
    planned = len(value["datasets"]) * len(slots) * len(value["seeds"])
    facts = [
        ("Runs finished", f"{len(finished)} of {value.get('planned', planned)}"),
        ("Seeds", ", ".join(str(seed) for seed in value["seeds"])),
        ("Data sets", str(len(value["datasets"]))),
        ("Rule", value["length"].partition(" (")[0]),  # each data set's own time stands in the notes
    ]
    parts = {"About": f"<p>{escape(value['description'])}</p>" if value["description"] else ""}
    for section in sections(value):
        runs = [run for run in finished if run["dataset"] == section.name]
        parts[f"Results on {section.name}"] = _data_set(section, runs, slots, output)
    for name, found in series_tables(value).items():
        parts[f"Series {name}"] = _table(found) + label_chart(value, series_of(value)[name], slots)
    parts["Runs"] = _runs(value["runs"], output)
    parts["How to read this"] = f'<ul class="notes">{"".join(f"<li>{escape(s)}</li>" for s in reading(value))}</ul>'
    parts["Settings and versions"] = _settings(value, finished)
    write_page(output / "report.html", f"Benchmark: {value['name']}", summary=facts, sections=parts)


def _data_set(section: Section, runs: Sequence[Record], slots: Mapping[str, int], output: Path) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    near, aside = ("".join(_table(t) for t in section.tables if t.aside is aside) for aside in (False, True))
    rest = folded("By group and class, and pairs by the best checkpoint", aside) if aside else ""
    return (
        f"<p>{escape(section.about)}</p>{near}{rest}"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + dice_charts(runs, slots)
        + time_charts(runs, slots, output)
    )


def _table(found: Table) -> str:
    """Return a table that sorts: cells left blank because they stand above are filled in."""
    rows: list[list[str]] = []
    for row in found.rows:
        above = rows[-1] if rows else [""] * len(row)
        rows.append([cell or before for cell, before in zip(row, above, strict=True)])
    body = [[_cell(cell) for cell in row] for row in rows]
    head = [escape(column[:1].upper() + column[1:]) for column in found.columns]
    return f"<h3>{escape(found.title)}</h3>{table(head, body, css='numbers wordy', sortable=len(body) > 1)}"


def _cell(text: str) -> str:
    time = _TIME.fullmatch(text) if text else None
    if time is None:
        return escape(text)
    hours, minutes, seconds = (int(part or 0) for part in time.groups())
    return f'<span data-sort="{hours * 3600 + minutes * 60 + seconds}">{escape(text)}</span>'


def _runs(runs: Sequence[Record], output: Path) -> str:
    if not runs:
        return "<p>No run is finished yet.</p>"
    head = ["Run", "Data set", "State", "Dice, last", "Dice, best", "Steps", "Training", "Peak memory", "Page"]
    rows = []
    for run in runs:
        dice = [mean_dice(run, which) if which in run.get("checkpoints", {}) else None for which in ("last", "best")]
        took, peak = run.get("training_seconds"), run.get("peak_memory_bytes")
        gpu = run.get("peak_gpu_bytes")
        page = Path(run["folder"]) / "report.html"
        link = f'<a href="{escape(page.as_posix())}">open</a>' if (output / page).exists() else "–"
        state = escape(run["state"]) + (f": {escape(run['reason'])}" if run.get("reason") else "")
        rows.append(
            [
                f"{escape(run['entry'])}, seed {run['seed']}",
                escape(run["dataset"]),
                f'<span class="bad">{state}</span>' if run["state"] == "failed" else state,
                *(number(value) for value in dice),
                human(run.get("steps")),
                "–" if took is None else _cell(duration(took)),
                ("–" if peak is None else f"{peak / 2**30:.2f} GiB") + (f", GPU {gpu / 2**30:.2f}" if gpu else ""),
                link,
            ]
        )
    hint = (
        '<p class="hint">A run gets a page of its own, with pictures and calibration, by '
        "<code>semialign report RUN</code>.</p>"
    )
    return table(head, rows, css="numbers wordy", sortable=len(rows) > 1) + hint


def _settings(value: Mapping[str, Any], runs: Sequence[Record]) -> str:
    per_entry = {run["entry"]: run.get("settings", {}) for run in reversed(runs)}
    folds = "".join(
        folded(f"Settings of {name}", settings_text(per_entry[name])) for name in value["entries"] if name in per_entry
    )
    about = {key: value.get(key) for key in ("file", "overrides", "baseline", "ceiling", "versions", "commit")}
    return folded("The benchmark", settings_text(about)) + folds + versions_now()
