"""``semialign COMMAND``: finds the command's file, parses its arguments with tyro, turns user errors into one line.

A command's module is imported only when it is called, so that ``semialign --help`` answers at once.
"""

import importlib
import sys
from collections.abc import Collection, Sequence
from typing import get_args, get_type_hints

COMMANDS = {
    "phantom": ("phantom", "write a synthetic data set (CT-like 3D or lesion pictures) to try things on"),
    "import": ("import_data", "bring a published data set into the layout"),
    "split": ("split", "draw labelled, unlabelled, validation and test cases"),
    "prepare": ("prepare", "check a data set, plan its training, write the fast store"),
    "train": ("train", "train a model from labelled and unlabelled cases"),
    "predict": ("predict", "segment new scans with a trained model"),
    "export": ("export", "write a trained model as one small file"),
    "evaluate": ("evaluate", "score predictions against labels"),
    "suggest": ("suggest", "choose the unlabelled cases to label next, with pictures of why"),
    "report": ("report", "write the report page of a run, a benchmark or an evaluation"),
    "bench": ("bench", "run a matrix of data sets, methods and seeds, and compare"),
    "methods": ("methods", "list methods, plug-ins and recipes"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own); returns the exit code, 2 for a user's mistake."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from semialign import __version__

        print(f"semialign {__version__}")
        return 0
    from semialign.common.errors import UserError, require_known

    try:
        require_known(argv[0], COMMANDS, "command")
        module = importlib.import_module(f"semialign.cli.{COMMANDS[argv[0]][0]}")
        import tyro

        given = gathered(argv[1:], repeatable(module.Arguments))
        module.run(tyro.cli(module.Arguments, prog=f"semialign {argv[0]}", args=given, description=module.__doc__))
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'this computer'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except SystemExit as stop:  # tyro's own: 0 after --help, 2 after a wrong option
        return stop.code if isinstance(stop.code, int) else 2 * (stop.code is not None)
    return 0


def repeatable(arguments: type) -> set[str]:
    """Return the options of ``arguments``, a command's dataclass, that take any number of values: ``{"--set"}``."""
    found = set()
    for name, kind in get_type_hints(arguments).items():
        if any(get_args(each)[1:] == (...,) for each in (kind, *get_args(kind))):  # itself, or beside None
            found.add(f"--{name.replace('_', '-')}")
    return found


def gathered(argv: Sequence[str], names: Collection[str]) -> list[str]:
    """Return ``argv`` with the values of each of ``names`` that stands in it several times behind its first.

    ``--set a=1 --set b=2`` means both; argparse would keep the last alone, without a word.
    """
    parts: list[list[str]] = [[]]
    first: dict[str, list[str]] = {}
    for argument in argv:
        short = len(argument) == 2 and argument[0] == "-" and argument[1].isalpha()  # -n, not -1
        name, *value = argument.split("=", 1) if argument.startswith("--") or short else [""]
        if not name:
            parts[-1].append(argument)
        elif name in names:
            parts.append(first.setdefault(name, [name]))
            parts[-1] += value
        else:
            parts.append([argument])
    kept = {id(part): part for part in parts}  # an option that came again is the same list
    return [argument for part in kept.values() for argument in part]


def _one_line(error: Exception) -> str:
    # What a loader's process raises arrives with that process's traceback around it.
    return " ".join(str(error).rsplit("UserError: ", 1)[-1].split())


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: semialign COMMAND [--help] ...", "", "Segment medical images from a few labels.", ""]
    lines += [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "", "semialign COMMAND --help explains a command's arguments."])


if __name__ == "__main__":
    sys.exit(main())
