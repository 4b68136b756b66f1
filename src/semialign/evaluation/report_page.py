"""The frame of every report page: one HTML file with its style and script inside, which opens from disk."""

import base64
import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template

from semialign.common.files import write_text
from semialign.evaluation.report_tables import table

_LIBRARIES = ("semialign", "torch", "monai", "numpy", "scipy", "nibabel")


def write_page(path: Path, title: str, *, summary: Sequence[tuple[str, str]], sections: Mapping[str, str]) -> None:
    """Write a page to ``path``, whole or not at all.

    ``summary``: headline facts. ``sections``: HTML by heading; empty ones are left out. Raises :class:`UserError` where
    ``path`` cannot be written.
    """
    shown = {heading: html for heading, html in sections.items() if html}
    anchors = {heading: re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in shown}
    facts = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in summary)
    links = "".join(f'<li><a href="#{anchors[heading]}">{escape(heading)}</a></li>' for heading in shown)
    script = _resource("report.js")
    page = Template(_resource("report.html")).substitute(
        title=escape(title),
        style=_resource("report.css"),
        script=script,
        # The browser runs this script and no other, whatever a file's or a class's name may hold.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        summary=f'<dl class="facts">{facts}</dl>' if facts else "",
        contents=f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        sections="\n".join(
            f'<section id="{anchors[heading]}"><h2>{escape(heading)}</h2>{html}</section>'
            for heading, html in shown.items()
        ),
        footer=f"Made by semialign {escape(version('semialign'))}. For research, not for clinical use.",
    )
    # Undecodable file names reach Python as lone surrogates, which UTF-8 cannot hold.
    write_text(Path(path), page.encode("utf-8", "replace").decode("utf-8"))


def folded(summary: str, html: str) -> str:
    """Return ``html`` behind a line that unfolds it; '' for nothing."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>" if html else ""


def versions_now() -> str:
    """Return the versions of the libraries that make the page, folded."""
    rows = [[escape(name), escape(version(name))] for name in _LIBRARIES]
    rows.append(["Python", escape(platform.python_version())])
    return folded("Versions when this page was made", table([], rows))


def version(name: str) -> str:
    """Return the version of an installed library."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _resource(name: str) -> str:
    return resources.files("semialign.evaluation").joinpath(name).read_text(encoding="utf-8")
