"""The report page of a run or an evaluation: one HTML file that opens from disk, without network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from semialign.evaluation.calibration import Calibration
from semialign.evaluation.report_bars import bar_chart, strip_chart
from semialign.evaluation.report_boxes import Cases, box_plot
from semialign.evaluation.report_calibration import calibration_section, doubt_chart
from semialign.evaluation.report_curves import training_curves, validation_curves
from semialign.evaluation.report_page import folded, versions_now, write_page
from semialign.evaluation.report_paint import chart_swatch
from semialign.evaluation.report_pictures import case_figures
from semialign.evaluation.report_proxies import proxy_charts
from semialign.evaluation.report_tables import (
    CLASS_COLUMNS,
    case_table,
    class_table,
    nested,
    plain,
    settings_text,
    table,
    titled,
)
from semialign.evaluation.report_views import PictureCase

__all__ = ["PictureCase", "Report", "write_report"]

_OPEN_CASES = 12  # a longer table of cases is folded


@dataclass(frozen=True)
class Report:
    """What the page shows; an empty or missing part is left out of it."""

    title: str
    summary: list[tuple[str, str]]  # headline facts: ("Mean Dice", "0.812"), ("Method", "mean-teacher")
    glance: dict[str, Any]  # data at a glance; "class_frequencies" {name: fraction} become bars, the rest small tables
    log: Path | None  # log.csv: step, seconds, lr, loss, terms of the loss, further values
    validation: Path | None  # validation.csv: step, seconds, mean_dice, "dice NAME" a class
    class_rows: list[dict[str, Any]]  # name, dice, iou, hd95, asd, nsd, scored, absent, missed, spurious; None allowed
    case_rows: list[dict[str, Any]]  # id, part, dice, then further columns; "entropy" in bits
    cases: list[PictureCase]
    settings: dict[str, Any]
    class_names: list[str]  # by label value, background first
    notes: list[str] = field(default_factory=list)  # sentences under the table: rule, standard error
    group_rows: list[dict[str, Any]] = field(default_factory=list)  # as class_rows, of head, middle and tail
    case_group_rows: list[dict[str, Any]] = field(default_factory=list)  # as class_rows, of groups of cases
    proxies: Path | None = None  # proxies.csv: step, network, class, norm, spread, share, "cos NAME" a class
    spread: Mapping[str, Mapping[str, Cases]] = field(default_factory=dict)  # "dice", "hd95": class: (case, value)
    calibration: Calibration | None = None  # of all scored cases together
    costs: list[tuple[str, str]] = field(default_factory=list)  # time and memory, as summary
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)  # the cases of each part of the split
    unit: str | None = None  # of distances: mm or px; told by the pictures where it is not given


def write_report(path: Path, report: Report) -> None:
    """Write the page of ``report`` to ``path``, whole or not at all; parts without data are left out.

    Raises :class:`UserError` where ``path`` cannot be written.
    """
    sections = {
        "Data at a glance": _glance(report),
        "Training": _curves(report),
        "What was learned of each class": proxy_charts(report.proxies, _foreground(report)),
        "Scores per class": _classes(report),
        "Scores per case": _cases(report),
        "Pictures": _pictures(report),
        "Uncertainty and calibration": _certainty(report),
        "Time and memory": _pairs(report.costs),
        "Settings and versions": _settings(report),
    }
    write_page(Path(path), report.title, summary=report.summary, sections=sections)


def _foreground(report: Report) -> list[str]:
    """Return the foreground classes' names; a list without background is told by its length."""
    names = [str(name) for name in report.class_names]
    without = names and names[0].lower() != "background" and len(names) == len(report.class_rows)
    return names if without else names[1:]


def _in_pixels(report: Report) -> bool:
    # The distance between pixels of a picture without physical size is 1.
    return bool(report.cases) and all(c.label.ndim == 2 and set(c.spacing) == {1.0} for c in report.cases)


def _unit(report: Report) -> str:
    return report.unit or ("px" if _in_pixels(report) else "mm")


def _slots(report: Report) -> dict[str, int]:
    return {name: i + 1 for i, name in enumerate(_foreground(report))}


def _glance(report: Report) -> str:
    cards = ""
    for key, value in report.glance.items():
        value = plain(value)
        if value in (None, {}, [], ""):
            continue
        body, broad = nested(key, value), ""
        if "frequenc" in str(key).lower() and _fractions(value):
            body, broad = bar_chart(value, title="Share of voxels per class", slots=_slots(report)), ' class="broad"'
        cards += f"<div{broad}><h3>{titled(key, picture=_in_pixels(report))}</h3>{body}</div>"
    members = {part: ", ".join(str(case) for case in ids) or "none" for part, ids in report.members.items()}
    listed = folded("Which cases are labelled, unlabelled and set aside", _pairs(list(members.items())))
    return (f'<div class="cards">{cards}</div>' if cards else "") + listed


def _fractions(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(v) in (int, float) and not (v < 0 or v > 1) for v in value.values())


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    cells = [[escape(str(name)), escape(str(value))] for name, value in rows]
    return table([], cells, css="pairs") if cells else ""


def _curves(report: Report) -> str:
    losses, others = training_curves(report.log)
    large = losses + validation_curves(report.validation, _foreground(report))
    return (f'<div class="charts">{large}</div>' if large else "") + others


def _classes(report: Report) -> str:
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    if not report.class_rows:
        return notes
    slots = _slots(report)
    marked = class_table(
        report.class_rows,
        unit=_unit(report),
        swatch=lambda name: chart_swatch(slots[name]) if name in slots else "",
    )
    grouped = class_table(report.group_rows, unit=_unit(report), swatch=lambda name: "", first="Group")
    sources = class_table(report.case_group_rows, unit=_unit(report), swatch=lambda name: "", first="Group")
    boxes = box_plot(report.spread.get("dice", {}), title="Dice over cases", slots=slots, limits=(0.0, 1.0))
    boxes += box_plot(report.spread.get("hd95", {}), title=f"HD95 over cases, {_unit(report)}", slots=slots)
    return (
        marked
        + f'<p class="hint">{CLASS_COLUMNS}</p>'
        + (f"<h3>By frequency in the labelled cases</h3>{grouped}" if report.group_rows else "")
        + (f"<h3>By group of cases</h3>{sources}" if report.case_group_rows else "")
        + notes
        + (f'<div class="charts spaced">{boxes}</div>' if boxes else "")
    )


def _cases(report: Report) -> str:
    rows = report.case_rows
    if not rows:
        return ""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        dice = row.get("dice")
        if isinstance(dice, int | float | np.number) and np.isfinite(dice):
            groups.setdefault(str(row.get("part", "")), []).append((str(row.get("id", "")), float(dice)))
    chart = strip_chart(groups, title="Mean Dice of each case") if groups and len(rows) > 2 else ""
    if len(rows) <= _OPEN_CASES:
        return chart + case_table(rows)
    return chart + folded(f"All {len(rows)} cases, worst first", case_table(rows))


def _pictures(report: Report) -> str:
    names = ["background", *_foreground(report)]
    figures = [case_figures(case, names=names, number_of_case=i) for i, case in enumerate(report.cases)]
    if not figures:
        return ""
    volumes = any(case.label.ndim == 3 for case in report.cases)
    hint = (
        '<p class="hint">Slices in radiological convention: the patient\'s right (R) is on the left. Below the slider, '
        "the slice with the largest labelled area each way. Grey levels span the 0.5th to 99.5th percentile around the "
        "structures.</p>"
    )
    return (hint if volumes else "") + "".join(figures)


def _certainty(report: Report) -> str:
    doubt = doubt_chart(report.case_rows)
    if report.calibration is None:
        return doubt
    names = ["background", *_foreground(report)]
    count = len(report.case_rows)
    cases = "1 case" if count == 1 else f"all {count} scored cases together"
    return doubt + calibration_section(report.calibration, names, swatch=chart_swatch, cases=cases)


def _settings(report: Report) -> str:
    settings = settings_text(report.settings) if report.settings else ""
    return folded("All settings of the run", settings) + versions_now()
