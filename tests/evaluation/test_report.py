"""The report page: one file, well-formed, escaped, self-contained, and without the parts it has no data for."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from semialign.common.errors import UserError
from semialign.evaluation.calibration import EDGES, Calibration
from semialign.evaluation.report import PictureCase, Report, write_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = """<script>alert("1")</script>'&amp;<b>"""


class Page(HTMLParser):
    """Elements, their attributes and texts; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag: str | None = None) -> str:
        return "\n".join(data for inside, data in self.texts if tag in (None, inside))


def volume_case(**changes: Any) -> PictureCase:
    label = np.zeros((20, 24, 16), int)
    label[5:12, 6:14, 4:11] = 1
    label[5:12, 14:18, 4:11] = 2
    image = np.random.default_rng(0).normal(size=(1, *label.shape)).astype(np.float32)
    values: dict[str, Any] = {
        "id": "scan_1",
        "part": "test",
        "image": image,
        "label": label,
        "prediction": np.roll(label, 2, 0),
        "spacing": (1.0, 1.0, 2.0),
        "dice": 0.6178,
        "title": "worst",
    }
    return PictureCase(**(values | changes))


@pytest.fixture
def report(tmp_path: Path) -> Report:
    log, validation = tmp_path / "log.csv", tmp_path / "validation.csv"
    log.write_text(
        "step,seconds,lr,loss,supervised,consistency,weight\n0,1,0.01,1.5,1.0,0.5,0.1\n10,2,0.009,1,.6,.4,.2\n"
    )
    validation.write_text("step,seconds,mean_dice,dice liver,dice spleen\n5,1,0.4,0.5,0.3\n10,2,0.61,0.7,0.52\n")
    classes = [
        {
            "name": "liver",
            "dice": 0.81234,
            "iou": 0.7,
            "hd95": 3.456,
            "asd": 12.345,
            "nsd": 0.9,
            "scored": 4,
            "missed": 0,
        },
        {
            "name": "spleen",
            "dice": math.nan,
            "iou": None,
            "hd95": 7.0,
            "asd": math.inf,
            "nsd": 0.1,
            "scored": 4,
            "missed": 2,
            "spurious": 1,
            "infinite": 3,
        },
    ]
    cases = [{"id": f"scan_{i}", "part": "test", "dice": 0.5 + 0.1 * i} for i in range(4)]
    return Report(
        title="Abdomen",
        summary=[("Mean Dice", "0.812")],
        glance={"cases": {"labelled": 4, "unlabelled": 16}, "class_frequencies": {"liver": 0.02, "spleen": 0.0004}},
        log=log,
        validation=validation,
        class_rows=classes,
        case_rows=cases,
        cases=[volume_case()],
        spread={
            "dice": {"liver": [("scan_0", 0.5), ("scan_1", 0.7), ("scan_2", 0.9)], "spleen": []},
            "hd95": {"liver": [("scan_0", 2.0), ("scan_1", math.inf)]},
        },
        calibration=Calibration(*(np.full((3, len(EDGES) - 1), n) for n in (100, 50.0, 25))),
        costs=[("Peak memory", "1.5 GiB")],
        members={"labelled": ["scan_9", "scan_8"]},
        settings={"method": {"name": "cps", "widths": (8, 16)}, "data": Path("some") / "where", "seed": np.int64(3)},
        class_names=["background", "liver", "spleen"],
        notes=["A missed class scores 0."],
    )


def written(folder: Path, report: Report) -> tuple[str, Page]:
    write_report(folder / "report.html", report)
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def changed(report: Report, **changes: Any) -> Report:
    return Report(**(vars(report) | changes))


def test_page_is_one_file_without_network(tmp_path: Path, report: Report) -> None:
    text, page = written(tmp_path, report)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not [name for attrs in page.all("script") for name in attrs if name != "type"]
    assert not page.all("link")
    assert not page.all("iframe")
    pictures = [attrs["href"] for attrs in page.all("image") if "href" in attrs]
    assert not page.all("img")
    assert len(pictures) == 3 * 4 + 3  # three slices, an image and three overlays each; the slider's image and outlines
    assert all(re.match("data:image/(png|jpeg);base64,", href) for href in pictures)
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_one_script_runs_and_the_policy_names_it(tmp_path: Path, report: Report) -> None:
    text, page = written(tmp_path, report)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert len(scripts) == 1
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    others = [attrs for attrs in page.all("script") if attrs]
    assert others == [{"type": "application/json"}]  # slices of the one case: data, which no browser runs


def test_links_within_the_page_lead_somewhere(tmp_path: Path, report: Report) -> None:
    _, page = written(tmp_path, changed(report, cases=[volume_case(), volume_case(id="scan_2")]))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"] for tag, attrs in page.elements if tag in ("a", "use")}
    assert len(targets) >= 6 + 5
    assert targets <= {f"#{name}" for name in ids}


def test_all_parts_are_there_in_words(tmp_path: Path, report: Report) -> None:
    _, page = written(tmp_path, report)
    for heading in (
        "Data at a glance",
        "Training",
        "Scores per class",
        "Scores per case",
        "Pictures",
        "Uncertainty and calibration",
        "Time and memory",
        "Settings and versions",
    ):
        assert heading in page.text("h2")
    spoken = "\n".join(attrs["aria-label"] for attrs in page.all("svg") if "aria-hidden" not in attrs)
    assert "Validation Dice" in spoken
    assert "supervised from 1 to 0.6" in spoken
    assert "mean from 0.4 to 0.61" in spoken
    assert "case scan_1, axial slice" in spoken
    assert "Share of voxels per class: liver 2 %; spleen 0.04 %" in spoken
    assert "Dice over cases. liver: median 0.700, quartiles 0.600 to 0.800, from 0.500 to 0.900, 3 cases" in spoken
    assert "liver: median 2.00, quartiles 2.00 to 2.00, from 2.00 to 2.00, 1 cases, 1 infinite" in spoken
    assert "Reliability of spleen: expected calibration error 0.250; at probability 0.50 0.25 true" in spoken
    assert "best 0.610, step 10" in page.text()
    assert "scan_9, scan_8" in page.text("td")
    assert "1.5 GiB" in page.text("td")
    assert "too sure" in page.text("td")
    assert all(attrs.get("role") == "img" or attrs.get("aria-hidden") == "true" for attrs in page.all("svg"))


def test_numbers_for_reading(tmp_path: Path, report: Report) -> None:
    _, page = written(tmp_path, report)
    cells = [data for inside, data in page.texts if inside in ("td", "span", "strong", "small")]
    for expected in ("0.812", "3.46", "12.3", "–", "∞", "7.00", "3", "+ 3 × ∞", "0.618"):
        assert expected in cells, expected
    spoken = " ".join(attrs.get("aria-label", "") for _, attrs in page.elements)
    assert not re.search(r"\b(nan|inf|None)\b", page.text() + spoken)


def test_hostile_names_are_shown_not_obeyed(tmp_path: Path, report: Report) -> None:
    rows = [{"name": HOSTILE, "dice": 0.5, HOSTILE: HOSTILE}]
    log = tmp_path / "hostile.csv"
    quoted = HOSTILE.replace('"', '""')
    log.write_text(f'step,loss,"{quoted}"\n0,1,2\n1,2,3\n')
    _, page = written(
        tmp_path,
        Report(
            HOSTILE,
            [(HOSTILE, HOSTILE)],
            {HOSTILE: {HOSTILE: HOSTILE}, "class_frequencies": {HOSTILE: 0.5}},
            log,
            None,
            rows,
            [{"id": HOSTILE, "part": HOSTILE, "dice": 0.5}] * 3,
            [volume_case(id=HOSTILE, part=HOSTILE, title=HOSTILE)],
            {HOSTILE: HOSTILE},
            ["background", HOSTILE, "b"],
            [HOSTILE],
        ),
    )
    assert page.all("script") == [{"type": "application/json"}, {}]
    assert not page.all("b")
    shown = [HOSTILE in page.text(tag) for tag in ("title", "h1", "dt", "dd", "th", "td", "li", "figcaption")]
    assert all(shown), shown
    assert HOSTILE in page.text("h3")
    assert any(f"case {HOSTILE}, axial" in attrs.get("aria-label", "") for attrs in page.all("svg"))


def test_parts_without_data_are_left_out(tmp_path: Path) -> None:
    text, page = written(tmp_path, Report("Empty", [], {}, None, None, [], [], [], {}, []))
    assert page.text("h2") == "Settings and versions"
    assert not page.all("svg")
    assert not page.all("image")
    assert len(text) < 20_000


@pytest.mark.parametrize(
    "content", ["", "step,loss\n", "seconds,loss\n1,2\n", "step,loss\n0,nan\n1,inf\n", "\x00\xff", "step,loss\n5,"]
)
def test_broken_logs_do_no_harm(tmp_path: Path, report: Report, content: str) -> None:
    log = tmp_path / "broken.csv"
    log.write_bytes(content.encode("latin-1"))
    _, page = written(tmp_path, changed(report, log=log, validation=tmp_path / "none.csv"))
    assert "Training loss" not in page.text()
    assert "Validation Dice" not in page.text()
    assert "Scores per class" in page.text("h2")


def test_settings_can_be_used_again(tmp_path: Path, report: Report) -> None:
    _, page = written(tmp_path, report)
    expected = {"method": {"name": "cps", "widths": [8, 16]}, "data": "some/where", "seed": 3}
    assert yaml.safe_load(page.text("pre")) == expected


def test_cases_stand_worst_first_and_nan_last(tmp_path: Path, report: Report) -> None:
    rows = [{"id": name, "part": "test", "dice": dice} for name, dice in zip("abc", (0.9, None, 0.1), strict=True)]
    _, page = written(tmp_path, changed(report, case_rows=rows, class_rows=[]))
    assert [data for inside, data in page.texts if inside == "th" and data in "abc"] == ["c", "a", "b"]


def test_noise_stays_small(tmp_path: Path, report: Report) -> None:
    random = np.random.default_rng(0)
    shape = (400, 500, 30)
    names = ["background", *(f"organ {i}" for i in range(1, 17))]
    noisy = [
        volume_case(
            image=random.normal(size=(1, *shape)).astype(np.float32),
            label=random.integers(0, 17, shape),
            entropy=random.integers(0, 256, shape, dtype=np.uint8),
            prediction=random.integers(0, 17, shape),
        )
    ] * 3
    text, _ = written(tmp_path, changed(report, cases=noisy, class_names=names))
    assert len(text) < 10e6


def test_a_picture_in_pixels_says_so(tmp_path: Path, report: Report) -> None:
    mask = np.zeros((40, 50), int)
    mask[10:20, 5:30] = 1
    case = volume_case(image=np.zeros((3, 40, 50), np.uint8), label=mask, prediction=mask, spacing=(1.0, 1.0))
    _, page = written(tmp_path, changed(report, cases=[case]))
    assert "(px)" in page.text("small")
    assert "(mm)" not in page.text("small")
    assert "50 × 40 pixels" in page.text()
    assert "radiological" not in page.text()


def test_class_names_without_background_keep_their_colours(tmp_path: Path, report: Report) -> None:
    texts = [
        written(tmp_path, changed(report, class_names=names))[0]
        for names in (["background", "liver", "spleen"], ["liver", "spleen"])
    ]
    assert texts[0] == texts[1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, report: Report) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"):
        write_report(tmp_path / "folder", report)
    assert [path.name for path in tmp_path.iterdir() if "folder" in path.name] == ["folder"]
