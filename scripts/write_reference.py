"""Render docs/reference/commands.md from the commands' arguments, the settings and the Python functions behind them.

python scripts/write_reference.py [--check]: with --check nothing is written, and the exit code is 1 where the page is
out of date.
"""

import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"
INTRODUCTION = """# Commands, settings and functions

Every option of every command, every setting, and the Python functions behind the commands. This page is generated from
the program (`bash scripts/write-reference`); `semialign COMMAND --help` shows the same. Exit codes: 0 when all is well,
2 for a mistake that the message names, 130 after Ctrl-C.
"""


def main() -> int:
    """Write the page, or compare it under ``--check``; returns the exit code."""
    text = render()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


def render() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *_commands(), *_settings(), *_functions()]).rstrip() + "\n"


def _commands() -> list[str]:
    from semialign.cli.main import COMMANDS

    lines = ["## Commands", ""]
    for name, (module_name, _) in COMMANDS.items():
        module = importlib.import_module(f"semialign.cli.{module_name}")
        positional = " ".join(_positional_name(f) for f in dataclasses.fields(module.Arguments) if _is_positional(f))
        usage = f"semialign {name} {positional}".strip()
        lines += [f"### semialign {name}", "", _plain(module.__doc__ or ""), "", f"`{usage} [OPTIONS]`", ""]
        lines += [*_argument_table(module.Arguments), ""]
    return lines


def _argument_table(kind: type) -> list[str]:
    from semialign.data.plan import field_comments

    texts = field_comments(kind)
    rows = [
        (f"`{_positional_name(f) if _is_positional(f) else _option(f)}`", _default(f), _plain(texts[f.name]))
        for f in dataclasses.fields(kind)
    ]
    return _table(("argument", "default", "what"), rows) if rows else ["No arguments."]


def _settings() -> list[str]:
    from semialign.config import TrainingSettings
    from semialign.data.plan import Normalisation, Plan
    from semialign.evaluation.benchmark_form import BenchForm, DataForm, EntryForm, PhantomForm
    from semialign.methods import METHODS
    from semialign.methods.base import method_class

    lines = ["## Settings of training", "", "In a recipe, in a benchmark file, or as `--set key=value`.", ""]
    lines += [*_field_table(TrainingSettings), ""]
    lines += ["## Settings of the methods", "", "Given beside those of training, in the same way.", ""]
    for name in METHODS:
        lines += [f"### {name}", "", METHODS[name][2] + ".", "", *_field_table(method_class(name).Settings), ""]
    lines += ["## The plan", "", "The keys of `plan.yaml`.", "", *_field_table(Plan), ""]
    lines += ["### An entry of `normalisation`", "", *_field_table(Normalisation), "", "## The benchmark file", ""]
    for title, kind in {
        "The whole file": BenchForm,
        "An entry of `datasets`": DataForm,
        "`phantom` of a data set": PhantomForm,
        "An entry of `entries`": EntryForm,
    }.items():
        lines += [f"### {title}", "", *_field_table(kind), ""]
    return lines


def _field_table(kind: type) -> list[str]:
    from semialign.data.plan import field_comments

    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):  # inherited settings are documented where they are declared
        texts |= field_comments(base)
    rows = [(f"`{f.name}`", _default(f), _plain(texts.get(f.name, ""))) for f in dataclasses.fields(kind)]
    return _table(("setting", "default", "what"), rows) if rows else ["No settings of its own."]


def _functions() -> list[str]:
    import semialign

    lines = ["## In Python", "", "Arguments after the `*` are given by name.", ""]
    for name in semialign.__all__:
        found = getattr(semialign, name)
        if not inspect.isfunction(found):
            continue
        wanted = [_parameter(p) for p in inspect.signature(found).parameters.values()]
        if "*" not in "".join(wanted) and (keyword := _first_keyword(found)) is not None:
            wanted.insert(keyword, "*")
        text = inspect.getdoc(found) or ""
        lines += [f"### semialign.{name}", "", "```text", f"{name}({', '.join(wanted)})", "```", "", _plain(text), ""]
    return lines


def _parameter(parameter: inspect.Parameter) -> str:
    star = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
    given = parameter.default is not inspect.Parameter.empty
    return f"{star}{parameter.name}={parameter.default!r}" if given else f"{star}{parameter.name}"


def _first_keyword(function: Any) -> int | None:
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    return kinds.index(inspect.Parameter.KEYWORD_ONLY) if inspect.Parameter.KEYWORD_ONLY in kinds else None


def _is_positional(field: dataclasses.Field[Any]) -> bool:
    return "Positional" in str(field.type) or "_PositionalArgument" in str(typing.get_args(field.type))


def _positional_name(field: dataclasses.Field[Any]) -> str:
    return field.name.upper() + (" ..." if "tuple" in str(field.type) else "")


def _option(field: dataclasses.Field[Any]) -> str:
    name = field.name.replace("_", "-")
    return f"--{name}, --no-{name}" if field.type is bool else f"--{name}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _shown(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else _shown(field.default)


def _shown(value: Any) -> str:
    if value is None or value == "" or value == () or value == {}:
        return "-"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return f"`{', '.join(map(str, value))}`"
    return f"`{value}`"


def _plain(text: str) -> str:
    """A docstring as Markdown: one line a paragraph, reST's marks as code."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", inspect.cleandoc(text)).replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
