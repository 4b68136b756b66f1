"""Numbers, tables and nested values of the report page as HTML; every text is escaped here."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DASH, INFINITY = "–", "∞"
_LISTED = 12  # longer lists are cut and counted
# Key, heading, kind, meaning (shown on hover).
_CLASS_COLUMNS = (
    ("dice", "Dice", "score", "Overlap, 0 to 1; 1 is perfect"),
    ("iou", "IoU", "score", "Intersection over union, 0 to 1"),
    ("hd95", "HD95", "distance", "95th percentile of the symmetric surface distance"),
    ("asd", "ASD", "distance", "Average symmetric surface distance"),
    ("nsd", "NSD", "score", "Share of the surface within the stated tolerance"),
    ("scored", "Scored", "count", "Cases with the class in both label and prediction"),
    ("absent", "Absent", "count", "Cases with the class in neither label nor prediction"),
    ("missed", "Missed", "count", "Cases with the class in the label, none of it in the prediction"),
    ("spurious", "Spurious", "count", "Cases with the class in the prediction, none of it in the label"),
)

CLASS_COLUMNS = (
    "HD95, ASD: 95th percentile and average of the symmetric surface distance. NSD: share of the surface within the "
    "stated tolerance. Scored: cases with the class in both label and prediction; missed: in the label alone; "
    "spurious: in the prediction alone; absent: in neither."
)
"""What the columns of the table of classes mean, where nothing can be hovered over."""


def number(value: Any, decimals: int = 3) -> str:
    """Return a number with ``decimals`` places; ``–`` for nothing or NaN, ``∞`` for infinity."""
    if value is None or isinstance(value, str | bool):
        return DASH if value in (None, "") else str(value)
    value = float(value)
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return INFINITY if value > 0 else f"−{INFINITY}"
    return f"{value:.{decimals}f}".replace("-", "−")


def distance(value: Any) -> str:
    """Return a distance with two decimals below 10, else one."""
    large = isinstance(value, int | float | np.number) and abs(float(value)) >= 9.995
    return number(value, 1 if large else 2)


def human(value: Any) -> str:
    """Return any single value for reading: whole numbers whole, others to four digits, yes/no, ``–`` for nothing."""
    if value is None:
        return DASH
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u202f") if abs(int(value)) >= 10000 else str(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return number(value)
        return human(round(value)) if abs(float(value)) >= 10000 else f"{value:.4g}".replace("-", "−")
    return str(value)


def heading(key: Any) -> str:
    """Return a dictionary's key as a heading, not escaped: ``class_frequencies`` becomes ``Class frequencies``."""
    words = str(key).replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, css: str = "", sortable: bool = False) -> str:
    """Return a table of cells that are HTML already; the first cell of a row is its header.

    ``sortable``: by any column in the browser, by the first number of a cell or of its ``data-sort``.
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    css = f"{css} sortable".strip() if sortable else css
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{css}">{thead}<tbody>{body}</tbody></table></div>'


def class_table(
    rows: Sequence[Mapping[str, Any]], *, unit: str, swatch: Callable[[str], str], first: str = "Class"
) -> str:
    """Return the table of scores per class (or ``first``); ``unit`` of the distances; ``swatch``: its colour mark."""
    known = {"name", *(column[0] for column in _CLASS_COLUMNS)}
    columns = [column for column in _CLASS_COLUMNS if any(column[0] in row for row in rows)]
    columns += [
        (key, heading(key), "other", "") for key in dict.fromkeys(k for row in rows for k in row if k not in known)
    ]
    head = [escape(first)]
    for _, title, kind, meaning in columns:
        text = escape(title) + (f" <small>({escape(unit)})</small>" if kind == "distance" else "")
        head.append(f'<abbr title="{escape(meaning)}">{text}</abbr>' if meaning else text)
    body = []
    for row in rows:
        name = str(row.get("name", DASH))
        cells = [_class_cell(row, key, kind) for key, _, kind, _ in columns]
        body.append([f"{swatch(name)}{escape(name)}", *cells])
    return table(head, body, css="numbers", sortable=len(body) > 1)


def _class_cell(row: Mapping[str, Any], key: str, kind: str) -> str:
    value = row.get(key)
    infinite = row.get("infinite") or 0
    if key == "dice":
        return score_cell(value)
    if kind == "score":
        return number(value)
    if kind == "distance":
        # A missed or spurious class is infinitely far away; an average over the others must not hide it.
        finite = isinstance(value, int | float | np.number) and math.isfinite(value)
        return distance(value) + (
            f'<small class="bad more">+ {human(infinite)} × {INFINITY}</small>' if infinite and finite else ""
        )
    text = escape(human(value))
    return f'<strong class="bad">{text}</strong>' if key in ("missed", "spurious") and value else text


def score_cell(value: Any) -> str:
    """Return a Dice with a small bar behind it."""
    text = number(value)
    if text in (DASH, INFINITY) or isinstance(value, str):
        return escape(text)
    share = 100 * min(max(float(value), 0.0), 1.0)
    return f'<span class="score" style="--share:{share:.1f}%">{text}</span>'


def case_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of cases, worst first."""
    extra = list(dict.fromkeys(key for row in rows for key in row if key not in ("id", "part", "dice")))
    head = ["Case", "Part", "Dice", *(escape(heading(key)) for key in extra)]
    body = [
        [
            escape(str(row.get("id", DASH))),
            escape(str(row.get("part", DASH))),
            score_cell(row.get("dice")),
            *(escape(_short(row.get(key))) for key in extra),
        ]
        for row in sorted(rows, key=lambda row: _sortable(row.get("dice")))
    ]
    return table(head, body, css="numbers cases", sortable=len(body) > 1)


def _sortable(value: Any) -> float:
    return float(value) if isinstance(value, int | float | np.number) and not math.isnan(value) else math.inf


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float | np.floating) else human(value)


def nested(key: Any, value: Any) -> str:
    """Return any value as readable HTML: small tables for dictionaries and lists, text for the rest."""
    value = plain(value)
    if isinstance(value, dict):
        return _nested_dict(value)
    if isinstance(value, list):
        return _nested_list(key, value)
    return f"<p>{escape(human(value))}</p>"


def titled(key: Any, *, picture: bool = False) -> str:
    """Return the heading of a value at a glance, escaped, with its unit where the key tells it."""
    unit = ""
    if str(key).lower().endswith("spacing"):
        unit = "px" if picture else "mm"
    elif str(key).lower() in ("size", "sizes", "shape", "patch_size"):
        unit = "pixels" if picture else "voxels"
    return escape(heading(key)) + (f" <small>({unit})</small>" if unit else "")


def _nested_dict(value: dict[str, Any]) -> str:
    if not value:
        return f"<p>{DASH}</p>"
    inner = list(value.values())
    if all(isinstance(item, dict) and not any(isinstance(v, dict | list) for v in item.values()) for item in inner):
        keys = list(dict.fromkeys(key for item in inner for key in item))
        names = list(value)
        cells = [[escape(human(item.get(key))) for key in keys] for item in inner]
        if len(keys) > len(names):  # the longer way down, for narrow screens
            names, keys, cells = keys, names, [list(column) for column in zip(*cells, strict=True)]
        rows = [[escape(heading(name)), *row] for name, row in zip(names, cells, strict=True)]
        return table(["", *(escape(str(key)) for key in keys)], rows, css="numbers")
    rows = [
        [escape(heading(k)), nested(k, v) if isinstance(v, dict | list) else escape(human(v))] for k, v in value.items()
    ]
    return table([], rows, css="pairs")


def _nested_list(key: Any, value: list[Any]) -> str:
    if value and all(_is_numbers(item) and len(item) == len(value[0]) for item in value):
        return _spread(np.asarray(value, float))
    if _is_numbers(value) and len(value) <= 4:
        return f"<p>{escape(' × '.join(human(v) for v in value))}</p>"
    if any(isinstance(item, dict | list) for item in value):
        items = "".join(f"<li>{nested(key, item)}</li>" for item in value[:_LISTED])
        return f"<ul>{items}</ul>" + _more(value)
    return f"<p>{escape(', '.join(human(v) for v in value[:_LISTED]) or DASH)}{_more(value)}</p>"


def _more(value: list[Any]) -> str:
    return f" … and {len(value) - _LISTED} more" if len(value) > _LISTED else ""


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(v) in (int, float) for v in value)


def _spread(values: np.ndarray) -> str:
    if (values == values[0]).all():
        return (
            _nested_list("", [v.item() for v in values[0]]) if values.shape[1] > 1 else f"<p>{human(values[0, 0])}</p>"
        )
    head = ["", *(f"axis {i + 1}" for i in range(values.shape[1]))]
    rows = [("minimum", values.min(0)), ("median", np.median(values, 0)), ("maximum", values.max(0))]
    return table(head, [[name, *(human(float(v)) for v in row)] for name, row in rows], css="numbers")


def plain(value: Any) -> Any:
    """Return ``value`` with tuples, arrays, paths and dataclass-like objects turned into what YAML knows."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.as_posix() if isinstance(value, Path) else str(value)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return nested settings as an escaped block of YAML, as it could be saved and used again."""
    text = yaml.safe_dump(plain(settings), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    return f"<pre>{escape(text)}</pre>"
