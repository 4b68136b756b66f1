"""The report page of a run: one HTML file that opens from disk, without network or scripts."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from semialign.common.files import write_text
from semialign.evaluation.report_bars import bar_chart, strip_chart
from semialign.evaluation.report_curves import training_curves, validation_curves
from semialign.evaluation.report_pictures import case_figures, swatch
from semialign.evaluation.report_proxies import proxy_charts
from semialign.evaluation.report_tables import case_table, class_table, nested, plain, settings_text, table, titled
from semialign.evaluation.report_views import PictureCase

__all__ = ["PictureCase", "Report", "write_report"]

_OPEN_CASES = 12  # a longer table of cases is folded
_LIBRARIES = ("semialign", "torch", "monai", "numpy", "scipy", "nibabel")


@dataclass(frozen=True)
class Report:
    """What the page shows; an empty or missing part is left out of it."""

    title: str
    summary: list[tuple[str, str]]  # headline facts: ("Mean Dice", "0.812"), ("Method", "mean-teacher")
    glance: dict[str, Any]  # data at a glance; "class_frequencies" {name: fraction} become bars, the rest small tables
    log: Path | None  # log.csv: step, seconds, lr, loss, terms of the loss, further values
    validation: Path | None  # validation.csv: step, seconds, mean_dice, "dice NAME" a class
    class_rows: list[dict[str, Any]]  # name, dice, iou, hd95, asd, nsd, scored, absent, missed, spurious; None allowed
    case_rows: list[dict[str, Any]]  # id, part, dice
    cases: list[PictureCase]
    settings: dict[str, Any]
    class_names: list[str]  # by label value, background first
    notes: list[str] = field(default_factory=list)  # sentences under the table: rule, standard error
    group_rows: list[dict[str, Any]] = field(default_factory=list)  # as class_rows, of head, middle and tail
    proxies: Path | None = None  # proxies.csv: step, network, class, norm, spread, share, "cos NAME" a class


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
        "Settings and versions": _settings(report),
    }
    sections = {title: html for title, html in sections.items() if html}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    facts = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in report.summary)
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for title, anchor in anchors.items())
    page = Template(_resource("report.html")).substitute(
        title=escape(report.title),
        style=_resource("report.css"),
        summary=f'<dl class="facts">{facts}</dl>' if facts else "",
        contents=f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        sections="\n".join(
            f'<section id="{anchors[title]}"><h2>{title}</h2>{html}</section>' for title, html in sections.items()
        ),
        footer=f"Made by semialign {escape(_version('semialign'))}. For research, not for clinical use.",
    )
    # Undecodable file names reach Python as lone surrogates, which UTF-8 cannot hold.
    write_text(Path(path), page.encode("utf-8", "replace").decode("utf-8"))


def _foreground(report: Report) -> list[str]:
    """Return the foreground classes' names; a list without background is told by its length."""
    names = [str(name) for name in report.class_names]
    without = names and names[0].lower() != "background" and len(names) == len(report.class_rows)
    return names if without else names[1:]


def _in_pixels(report: Report) -> bool:
    # The distance between pixels of a picture without physical size is 1.
    return bool(report.cases) and all(c.label.ndim == 2 and set(c.spacing) == {1.0} for c in report.cases)


def _unit(report: Report) -> str:
    return "px" if _in_pixels(report) else "mm"


def _glance(report: Report) -> str:
    cards = ""
    for key, value in report.glance.items():
        value = plain(value)
        if value in (None, {}, [], ""):
            continue
        body, broad = nested(key, value), ""
        if "frequenc" in str(key).lower() and _fractions(value):
            slots = {name: i + 1 for i, name in enumerate(_foreground(report))}
            body, broad = bar_chart(value, title="Share of voxels per class", slots=slots), ' class="broad"'
        cards += f"<div{broad}><h3>{titled(key, picture=_in_pixels(report))}</h3>{body}</div>"
    return f'<div class="cards">{cards}</div>' if cards else ""


def _fractions(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(v) in (int, float) and not (v < 0 or v > 1) for v in value.values())


def _curves(report: Report) -> str:
    losses, others = training_curves(report.log)
    large = losses + validation_curves(report.validation, _foreground(report))
    return (f'<div class="charts">{large}</div>' if large else "") + others


def _classes(report: Report) -> str:
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in report.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    if not report.class_rows:
        return notes
    slots = {name: i + 1 for i, name in enumerate(_foreground(report))}
    marked = class_table(
        report.class_rows,
        unit=_unit(report),
        swatch=lambda name: swatch(slots[name]) if name in slots else "",
    )
    grouped = class_table(report.group_rows, unit=_unit(report), swatch=lambda name: "", first="Group")
    return marked + (f"<h3>By frequency in the labelled cases</h3>{grouped}" if report.group_rows else "") + notes


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
    return f"{chart}<details><summary>All {len(rows)} cases, worst first</summary>{case_table(rows)}</details>"


def _pictures(report: Report) -> str:
    names = ["background", *_foreground(report)]
    figures = [case_figures(case, names=names, number_of_case=i) for i, case in enumerate(report.cases)]
    if not figures:
        return ""
    volumes = any(case.label.ndim == 3 for case in report.cases)
    hint = (
        '<p class="hint">The slice with the largest labelled area each way, in radiological convention: the patient\'s '
        "right (R) is on the left. Grey levels span the 0.5th to 99.5th percentile around the structures.</p>"
    )
    return (hint if volumes else "") + "".join(figures)


def _settings(report: Report) -> str:
    versions = [[escape(name), escape(_version(name))] for name in _LIBRARIES]
    versions.append(["Python", escape(platform.python_version())])
    parts = f"<details><summary>Versions when this page was made</summary>{table([], versions)}</details>"
    if report.settings:
        parts = f"<details><summary>All settings of the run</summary>{settings_text(report.settings)}</details>" + parts
    return parts


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _resource(name: str) -> str:
    return resources.files("semialign.evaluation").joinpath(name).read_text(encoding="utf-8")
