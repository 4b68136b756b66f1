"""The documentation says what the program does: commands parse, links lead somewhere, snippets run, tables agree."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN_LAST = ROOT / "docs" / "results.md"  # made from finished benchmarks; links to it may lead nowhere until then
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_METHODS = ROOT / "docs" / "methods"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments after ``semialign`` of every line of a shell block, variables as they stand."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "semialign" in words:
            yield words[words.index("semialign") + 1 :]


COMMAND_LINES = [
    (f"{name_of(page)}: {' '.join(words)}", words)
    for page in PAGES
    for block in blocks(page, "bash")
    for words in commands(block)
]


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in COMMAND_LINES])
def test_commands_parse(words: list[str]) -> None:
    import tyro

    from semialign.cli.main import COMMANDS

    assert words[0] in COMMANDS
    module = importlib.import_module(f"semialign.cli.{COMMANDS[words[0]][0]}")
    # Wrong options end in SystemExit, which fails the test with tyro's message in the captured output.
    tyro.cli(module.Arguments, args=words[1:])


def test_there_are_commands_to_parse() -> None:
    assert {words[0] for _, words in COMMAND_LINES} >= {"phantom", "import", "split", "train", "predict", "evaluate"}


def test_a_wrong_command_would_be_noticed() -> None:
    import tyro

    from semialign.cli.train import Arguments

    found = list(commands("srun semialign train data \\\n  --stepz 3  # a comment\nls\n"))
    assert found == [["train", "data", "--stepz", "3"]]
    with pytest.raises(SystemExit):
        tyro.cli(Arguments, args=found[0][1:])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target == WRITTEN_LAST and not target.exists():
            continue
        assert target.exists(), link
        assert target.is_relative_to(ROOT), f"{link} leaves the repository"
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert [p for p in (ROOT / "docs").rglob("*.md") if p != index and p not in linked] == []


EXECUTED = [page for page in PAGES if any(b.startswith("# executed") for b in blocks(page, "python"))]


@pytest.mark.parametrize("page", EXECUTED, ids=name_of)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("snippets")  # the blocks of a page share their names
    for block in blocks(page, "python"):
        if block.startswith("# executed"):
            exec(compile(block, name_of(page), "exec"), module.__dict__)


PYTHON = [pytest.param(block, id=name_of(page)) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize("block", PYTHON)
def test_python_calls_fit(block: str) -> None:
    """Blocks that are not run name functions that exist, with arguments that these take."""
    import semialign

    for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
        name = call.func
        if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "semialign":
            keywords = {str(keyword.arg): None for keyword in call.keywords}
            inspect.signature(getattr(semialign, name.attr)).bind(*call.args, **keywords)


def method_names() -> list[str]:
    from semialign.methods import METHODS

    return list(METHODS)


def rows_under(page: Path, heading: str) -> list[list[str]]:
    """The body rows of the first table under a heading, code marks taken off; none where there is no table."""
    part = re.split(rf"^## {re.escape(heading)}$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    lines = [line for line in re.split(r"^## ", part, flags=re.MULTILINE)[0].splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("method", method_names())
def test_method_pages_name_all_settings(method: str) -> None:
    from semialign.methods.base import method_class

    documented = {row[0]: row[1] for row in rows_under(_METHODS / f"{method}.md", "Settings")}
    assert documented == {f.name: str(f.default) for f in dataclasses.fields(method_class(method).Settings)}


def test_plugin_pages_name_all_settings() -> None:
    from semialign.methods.base import plugin_class
    from semialign.plugins import PLUGINS

    for plugin in PLUGINS:
        documented = {row[0]: row[1] for row in rows_under(_METHODS / f"{plugin}.md", "Settings")}
        expected = {f.name: f.default for f in dataclasses.fields(plugin_class(plugin).Settings)}  # type: ignore[attr-defined]
        named = {name: ", ".join(value) if isinstance(value, tuple) else str(value) for name, value in expected.items()}
        assert documented == named


@pytest.mark.parametrize("method", method_names())
def test_method_pages_name_all_logged_values(method: str) -> None:
    import torch

    from semialign.common.types import Batch, Progress
    from semialign.methods.base import build_method, method_class
    from semialign.networks.unet import UNet

    def network() -> UNet:
        return UNet(1, 3, widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))

    images, labels = torch.randn(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    batch = Batch(images, labels, torch.randn(2, 1, 16, 16), torch.arange(2), torch.arange(2))
    own = {f.name: None for f in dataclasses.fields(method_class(method).Settings) if f.name == "learnt"}
    built = build_method(method, network, own, {})  # which a random network has not
    logged = {name for s in built.stages for name in built(batch, Progress(s, 9, 10))[1]}
    assert logged == {row[0] for row in rows_under(_METHODS / f"{method}.md", "Logged values")}


def test_readme_names_all_methods() -> None:
    assert [row[0].split("`")[1] for row in rows_under(ROOT / "README.md", "Methods")] == method_names()


def test_augmentation_page_holds_the_strengths() -> None:
    from semialign.data.transforms import STRENGTHS

    documented = {}
    for row in rows_under(ROOT / "docs" / "concepts" / "augmentation.md", "Strengths"):
        documented[row[0]] = [float(cell.removesuffix(" degrees")) for cell in row[1:]]
    assert documented == {name: [float(v) for v in dataclasses.astuple(s)] for name, s in STRENGTHS.items()}


def test_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "scripts" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.render(), "out of date: run `bash scripts/write-reference`"


def test_layout_examples_are_valid(tmp_path: Path) -> None:
    """The JSON blocks of the how-to pages are JSON, and the example dataset.json is one that loads."""
    import json

    from semialign.data.dataset import load_dataset

    for page in PAGES:
        for block in blocks(page, "json"):
            json.loads(block)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "patient01_0000.nii.gz").touch()
    (example,) = blocks(ROOT / "docs" / "how-to" / "own-data.md", "json")
    (tmp_path / "dataset.json").write_text(example)
    assert load_dataset(tmp_path).class_names == ["background", "liver", "tumour"]


def test_example_benchmark_is_valid(tmp_path: Path) -> None:
    from semialign.evaluation.benchmark_file import load_bench

    (example,) = blocks(ROOT / "docs" / "how-to" / "compare-methods.md", "yaml")
    (tmp_path / "compare.yaml").write_text(example)
    made = load_bench(tmp_path / "compare.yaml")
    assert [entry.resolved["method"] for entry in made.entries] == ["supervised", "mean-teacher", "cps", "supervised"]


def test_example_recipe_is_valid(tmp_path: Path) -> None:
    from semialign.training.resolve import resolve

    (example,) = blocks(ROOT / "docs" / "how-to" / "change-the-plan.md", "yaml")
    (tmp_path / "liver.yaml").write_text(example)
    method, training, own, _ = resolve(None, str(tmp_path / "liver.yaml"), {})
    assert (method, training.minutes, own["weight"]) == ("cps", 120, 0.3)
