"""The page in a real browser, headless: no error, tables sort, the slider moves, boxes switch layers on and off.

A script added to a copy of the page does what a reader would and writes down what it saw; the page's own policy stays
in force, with that one script added to it.
"""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semialign.evaluation.report import PictureCase, Report, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
READER = """
const seen = { errors: [], column: {} };
const note = (text) => seen.errors.push(text);
document.addEventListener("securitypolicyviolation", (e) => note("policy: " + e.violatedDirective));
const table = document.querySelector("table.cases");
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
const click = (column) => {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  return { names: names(), said: table.tHead.rows[0].cells[column].getAttribute("aria-sort") };
};
seen.before = names();
seen.dice = [click(2), click(2)];
seen.name = [click(0), click(0)];
seen.headings = [...document.querySelectorAll("table.sortable th[aria-sort]")].length;
const [viewer, flat] = document.querySelectorAll(".viewer");
const [slider, where] = [viewer.querySelector("input[type=range]"), viewer.querySelector("output")];
const layers = [...viewer.querySelectorAll("image")];
const look = () => ({
  where: where.textContent,
  spoken: viewer.querySelector("svg").getAttribute("aria-label"),
  value: slider.getAttribute("aria-valuetext"),
  shown: layers.map((layer) => getComputedStyle(layer).display !== "none"),
  images: layers.map((layer) => (layer.getAttribute("href") || "").slice(-60)),
});
const set = (input, change) => {
  change(input);
  input.dispatchEvent(new Event("input", { bubbles: true }));
  return look();
};
seen.slices = [look(), set(slider, (s) => { s.value = 0; }), set(slider, (s) => { s.stepUp(5); })];
const box = (name) => viewer.querySelector(`input[value=${name}]`);
seen.boxes = [set(box("label"), (b) => b.click()), set(box("entropy"), (b) => b.click())];
seen.flat = [!flat.querySelector("input[type=range]"), flat.querySelectorAll("input").length];
seen.wide = document.documentElement.scrollWidth;
Promise.all(layers.map((layer) => layer.decode ? layer.decode() : null)).catch((e) => note(String(e))).then(() => {
  const told = document.createElement("pre");
  told.id = "seen";
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
});
"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The command of a Chromium; without one the tests are skipped."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium found on the path ({', '.join(BROWSERS)}); the page is not looked at in a browser")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a volume of two classes and a picture, and four cases."""
    label = np.zeros((20, 24, 16), int)
    label[5:12, 6:14, 4:11] = 1
    label[5:12, 14:18, 6:14] = 2
    random = np.random.default_rng(0)
    volume = PictureCase(
        id="scan & <co>",
        part="test",
        image=random.normal(size=(1, *label.shape)).astype(np.float32),
        label=label,
        prediction=np.roll(label, 2, 0),
        spacing=(1.0, 1.0, 2.0),
        dice=0.6,
        title="worst",
        entropy=random.integers(0, 120, label.shape, dtype=np.uint8),
    )
    picture = PictureCase(
        "photo", "test", random.integers(0, 256, (3, 20, 24), dtype=np.uint8), label[..., 8], label[..., 9],
        (1.0, 1.0), 0.7, "best",
    )  # fmt: skip
    dice = {"case 10": 0.9, "case 2": 0.25, "case 3": None, "case 1": 0.1}
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(
        path,
        Report(
            title="Abdomen",
            summary=[("Mean Dice", "0.812")],
            glance={},
            log=None,
            validation=None,
            class_rows=[{"name": "liver", "dice": 0.8}, {"name": "spleen", "dice": 0.7}],
            case_rows=[{"id": case, "part": "test", "dice": value} for case, value in dice.items()],
            cases=[volume, picture],
            settings={},
            class_names=["background", "liver", "spleen"],
        ),
    )
    return path


def opened(browser: str, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The page opened from disk; what the console says lands in stderr."""
    profile = page.parent / "profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={profile}"]
    command = [browser, *flags, "--virtual-time-budget=5000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=300, check=False)


@pytest.fixture(scope="module")
def seen(browser: str, page: Path) -> dict[str, Any]:
    """What the reader's script saw, and under "console" what the browser said."""
    text = page.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(READER.encode()).digest()).decode()
    text, count = re.subn(r"(script-src 'sha256-[^']+')", rf"\1 'sha256-{digest}'", text, count=1)
    assert count == 1
    copy = page.with_name("copy.html")
    copy.write_text(text.replace("</body>", f"<script>{READER}</script></body>"), encoding="utf-8")
    for _ in range(3):  # on a busy machine the browser's time may be up before all pictures are decoded
        done = opened(browser, copy, "--window-size=1200,900", "--dump-dom")
        found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
        if found or not done.stdout.strip():
            break
    if found is None and not done.stdout.strip():
        pytest.skip(f"{browser} does not start here: {done.stderr.strip()[-300:]}")
    assert found is not None, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return dict(json.loads(html.unescape(found[1]))) | {"console": console}


def test_nothing_goes_wrong(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["wide"] <= 1200


def test_tables_sort(seen: dict[str, Any]) -> None:
    assert seen["before"] == ["case 1", "case 2", "case 10", "case 3"]  # worst first, nothing last
    down, up = seen["dice"]
    assert (down["names"], down["said"]) == (["case 10", "case 2", "case 1", "case 3"], "descending")
    assert (up["names"], up["said"]) == (["case 1", "case 2", "case 10", "case 3"], "ascending")
    by_name, back = (order["names"] for order in seen["name"])
    assert by_name == ["case 1", "case 2", "case 3", "case 10"]
    assert back == by_name[::-1]
    assert seen["headings"] == 1  # one column at a time says that it is sorted by


def test_the_slider_moves(seen: dict[str, Any]) -> None:
    first, bottom, higher = seen["slices"]
    assert [of["where"] for of in (first, bottom, higher)] == ["slice 7 of 16", "slice 1 of 16", "slice 6 of 16"]
    assert first["spoken"] == "Case scan & <co>, axial slices, slice 7 of 16; labelled and predicted: liver, spleen"
    assert bottom["value"] == "slice 1 of 16; labelled and predicted: nothing"
    assert first["shown"] == higher["shown"] == [True, False, True, True]
    assert bottom["shown"] == [True, False, False, False]
    assert len({of["images"][0] for of in (first, bottom, higher)}) == 3


def test_layers_are_switched(seen: dict[str, Any]) -> None:
    without_label, with_entropy = seen["boxes"]
    assert without_label["shown"] == [True, False, False, True]
    assert with_entropy["shown"] == [True, True, False, True]
    assert seen["flat"] == [True, 2]  # a picture has no slider, and here no uncertainty


def test_it_fits_a_phone_and_prints(browser: str, page: Path, seen: dict[str, Any]) -> None:
    wrap = page.with_name("phone.html")
    measure = "const d = f.contentDocument.documentElement; document.title = [d.scrollWidth, d.clientWidth];"
    frame = f'<iframe id="f" src="{page.name}" style="width:360px;height:800px"></iframe>'
    frame += f"<script>onload = () => {{ {measure} }}</script>"
    wrap.write_text(frame, encoding="utf-8")
    done = opened(browser, wrap, "--allow-file-access-from-files", "--dump-dom")
    (told,) = re.findall(r"<title>(\d+),(\d+)</title>", done.stdout)
    assert 300 < int(told[0]) <= int(told[1]) <= 360  # nothing but tables scrolls sideways
    paper = page.with_name("page.pdf")
    opened(browser, page, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
