"""What was learned of each class, read from made-up files, whole, resumed and broken: numbers, words and colours."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semialign.evaluation.report_proxies import proxy_charts, read_proxies

CLASSES = ("background", "liver", "gall bladder, cyst")
COSINES = {10: 0.9, 20: -0.25}  # between liver and the last class; the background is unrelated to both


def rows(step: int, network: str = "student", **changes: Any) -> list[dict[str, Any]]:
    found = []
    for i, name in enumerate(CLASSES):
        cosines = np.eye(3)
        cosines[1, 2] = cosines[2, 1] = COSINES.get(step, 0.5)
        found.append(
            {
                "step": step,
                "network": network,
                "class": name,
                "norm": 1 + i + step / 100,
                "spread": 0.1 * (i + 1),
                "share": (0.9, 0.099, 0.001)[i],
                **{f"cos {other}": cosines[i, j] for j, other in enumerate(CLASSES)},
            }
            | changes
        )
    return found


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "proxies.csv", [r for s in (10, 20) for n in ("student", "other") for r in rows(s, n)])


def numbers(html: str) -> list[str]:
    return re.findall(r'<text class="mid [^"]*"[^>]*>([^<]*)</text>', html.split("Similarity of the proxies")[-1])


def test_the_first_network_is_read(path):
    found = read_proxies(path)
    assert (found.network, found.classes, found.last) == ("student", CLASSES, 20)
    assert found.steps.tolist() == [10, 20]
    np.testing.assert_allclose(found.figures["norm"], [[1.1, 2.1, 3.1], [1.2, 2.2, 3.2]])
    np.testing.assert_allclose(found.figures["share"], [[0.9, 0.099, 0.001]] * 2)
    np.testing.assert_allclose(found.similarity, [[1, 0, 0], [0, 1, -0.25], [0, -0.25, 1]])


def test_later_rows_hold_where_training_was_resumed(tmp_path):
    again = [{**row, "norm": 7} for row in rows(20)]
    path = write(tmp_path / "proxies.csv", [*rows(10), *rows(20), *rows(30), *again])
    found = read_proxies(path)
    assert found.steps.tolist() == [10, 20]
    assert found.figures["norm"][1].tolist() == [7, 7, 7]


def test_half_written_files_are_read_as_far_as_they_go(path):
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for end in range(0, len(whole), 7):  # killed at any moment
        path.write_text(whole[:end], encoding="utf-8")
        assert isinstance(proxy_charts(path, CLASSES[1:]), str)
    path.write_text("".join(lines[:7]) + lines[7] + lines[8][:-1], encoding="utf-8")  # a class and a half of step 20
    found = read_proxies(path)
    assert found.steps.tolist() == [10, 20]
    assert found.figures["norm"][1, 0] == pytest.approx(1.2)
    assert math.isnan(found.figures["norm"][1, 1])
    assert found.last == 10  # the latest step that holds every class
    assert found.similarity[1, 2] == 0.9


def test_broken_lines_are_skipped(path):
    lines = path.read_text().splitlines()
    broken = [
        "",
        "soon,student,liver",
        "nan," + lines[1].partition(",")[2],
        lines[1] + ",1,2",
        "\x00\xff",
        "20,student,,1,1,1,1,1,1",
    ]
    expected = read_proxies(path)
    path.write_text("\n".join([lines[0], *broken, *lines[1:4], *broken, *lines[4:], *broken]) + "\n", encoding="utf-8")
    found = read_proxies(path)
    assert (found.classes, found.last) == (expected.classes, expected.last)
    np.testing.assert_array_equal(found.similarity, expected.similarity)
    np.testing.assert_array_equal(found.figures["norm"], expected.figures["norm"])


@pytest.mark.parametrize("text", ["", "step,network\n1,a\n", "step,network,class\n", "\x00\xff\n", '"step\n,"'])
def test_where_there_is_nothing_to_read_there_is_nothing(tmp_path, text):
    assert proxy_charts(None, []) == proxy_charts(tmp_path / "none.csv", []) == ""
    path = tmp_path / "proxies.csv"
    path.write_text(text, encoding="utf-8")
    assert proxy_charts(path, []) == ""


def test_figures_that_are_no_numbers_leave_gaps(tmp_path):
    lines = [*rows(10), *rows(20, norm="nan", spread="", share="much")]
    lines[1]["cos gall bladder, cyst"] = "nan"
    html = proxy_charts(write(tmp_path / "proxies.csv", [*lines[:3]]), CLASSES[1:])
    assert numbers(html) == ["1.00", "0.00", "0.00", "0.00", "1.00", "–", "0.00", "0.90", "1.00"]
    html = proxy_charts(write(tmp_path / "proxies.csv", [*lines[3:]]), CLASSES[1:])
    assert "Norm of" not in html
    assert "Similarity of the proxies at step 20" in html
    for row in lines:
        row.update({f"cos {name}": "" for name in CLASSES})
    html = proxy_charts(write(tmp_path / "proxies.csv", lines), CLASSES[1:])
    assert "Similarity" not in html
    assert "Norm of" in html
    assert not re.search(r"\bnan\b", html)


def test_charts_say_what_they_show(path):
    html = proxy_charts(path, CLASSES[1:])
    spoken = re.findall(r'aria-label="([^"]*)"', html)
    assert "liver from 2.1 to 2.2" in spoken[0]
    assert "liver from 0.2 to 0.2" in spoken[1]
    assert spoken[2].startswith("Share of tokens each class attracts (log scale), 10 to 20 steps.")
    assert "Most alike: background and liver 0.00; background and gall bladder, cyst 0.00" in spoken[3]
    assert "Least: liver and gall bladder, cyst −0.25" in spoken[3]
    assert numbers(html) == ["1.00", "0.00", "0.00", "0.00", "1.00", "−0.25", "0.00", "−0.25", "1.00"]
    assert html.count('class="legend"') == 1
    # The classes have the colours of the other charts: liver is the first of the foreground.
    assert re.search(r'stroke="var\(--c1\)"[^>]*/></svg>liver', html)
    assert re.search(r'stroke="var\(--c3\)"[^>]*/></svg>background', html)
    assert "No token" not in html


def test_a_class_without_tokens_is_named(tmp_path):
    lines = rows(10)
    lines[2]["share"] = 0
    html = proxy_charts(write(tmp_path / "proxies.csv", lines), CLASSES[1:])
    assert "No token at step 10: gall bladder, cyst." in html


def test_numbers_can_be_read_on_their_colours(tmp_path):
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    inks = {"on-light": luminance("#111111"), "on-dark": 1.0}
    seen = set()
    for cosine in np.linspace(-1, 1, 41):
        lines = rows(10)
        lines[1]["cos background"] = cosine
        html = proxy_charts(write(tmp_path / "proxies.csv", lines), CLASSES[1:])
        fill, ink = re.findall(r'fill="(#\w{6})"><title>liver and background.*?class="mid ([\w-]+)"', html)[0]
        light, dark = max(inks[ink], luminance(fill)), min(inks[ink], luminance(fill))
        assert (light + 0.05) / (dark + 0.05) > 4.2, cosine
        seen.add((fill, ink))
    assert {ink for _, ink in seen} == {"on-light", "on-dark"}
    assert len(seen) == 41


def test_names_are_shown_not_obeyed(tmp_path):
    lines = [{**row, "network": "<b>", "class": f"<i>{row['class']}"} for row in rows(10)]
    lines = [{f"cos <i>{k[4:]}" if k.startswith("cos ") else k: v for k, v in row.items()} for row in lines]
    html = proxy_charts(write(tmp_path / "proxies.csv", lines), ["<i>liver"])
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;i&gt;liver" in html
