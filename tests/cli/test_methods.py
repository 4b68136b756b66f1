"""``semialign methods`` names whatever can be trained, at once."""

import subprocess
import sys

import pytest

from semialign import plugins
from semialign.cli.main import main
from semialign.methods import METHODS
from semialign.recipes import load


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """What the command prints: title, then name to text."""
    assert main(["methods"]) == 0
    found: dict[str, dict[str, str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            found[line.split()[0].rstrip(":")] = here = {}
        else:
            name, _, text = line.strip().partition("  ")
            here[name] = text.strip()
    return found


def test_every_method_plugin_and_recipe_has_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins.PLUGINS, "some-plugin", ("module", "Class", "what it adds"))
    monkeypatch.setattr(load, "recipe_names", lambda: ["one", "two"])
    settings = {"one": {"description": "as in\nthe paper", "method": "cps"}, "two": {"method": "ua-mt"}}
    monkeypatch.setattr(load, "load_recipe", settings.get)
    found = listed(capsys)
    assert list(found) == ["methods", "plug-ins", "recipes"]
    assert found["methods"] == {name: text for name, (_, _, text) in METHODS.items()}
    assert found["plug-ins"]["some-plugin"] == "what it adds"
    assert found["recipes"] == {"one": "as in the paper", "two": "settings of ua-mt"}


def test_none_is_said_where_there_is_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "PLUGINS", {})
    monkeypatch.setattr(load, "recipe_names", list)
    found = listed(capsys)
    assert found["plug-ins"] == found["recipes"] == {"none": ""}


def test_what_is_shipped_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert set(found["recipes"]) - {"none"} == set(load.recipe_names())
    assert all(found["methods"].values())


def test_it_imports_nothing_heavy() -> None:
    script = "import sys\nfrom semialign.cli.main import main\nmain(['methods'])\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    loaded = set(done.stdout.rsplit("MODULES", 1)[1].split())
    assert not loaded & {"torch", "numpy", "monai", "lightning_fabric"}
