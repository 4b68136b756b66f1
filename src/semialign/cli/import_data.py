"""Bring a published data set into the layout: synapse, amos, msd, acdc, busi, isic-2018, bcss, polyp, nnunet, ..."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign import``."""

    kind: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KIND")]
    """Which published form: synapse, amos, msd, left-atrium, acdc, busi, isic-2018, bcss, polyp, polyps or nnunet."""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """The unpacked data set as published."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """The folder to write; must not exist or be empty."""
    name: str | None = None
    """The data set's name (default: the published one)."""
    near_copies: float = 0.9
    """Correlation of thumbnails above which two cases are compared as near-copies; 1 skips the search."""
    workers: int = 4
    """How many cases are at work, and in memory, at a time."""
    spacing: tuple[float, float, float] | None = None
    """acdc (h5 form): the true spacing in mm, slice distance last (default: 1.5 1.5 10)."""
    normals: bool = False
    """busi: take the pictures without lesion too."""
    test_images: bool = True
    """synapse, amos, msd, nnunet, acdc, isic-2018: take the published test images too (msd, nnunet: without labels)."""


def run(arguments: Arguments) -> None:
    """Import the data set, say what it holds, what to mind and which command comes next."""
    import signal
    import threading

    from semialign.data.importers import import_dataset
    from semialign.data.importers.base import plural

    # A batch system's SIGTERM ends the import as Ctrl-C does, so that the unfinished folder is removed.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    given: dict[str, Any] = {"spacing": arguments.spacing, "normals": arguments.normals or None}
    given["test_images"] = None if arguments.test_images else False  # only what differs from a kind's default
    done = import_dataset(
        arguments.kind,
        arguments.source,
        arguments.target,
        near_copy_threshold=arguments.near_copies,
        name=arguments.name,
        workers=arguments.workers,
        progress=True,
        **{option: value for option, value in given.items() if value is not None},
    )
    print(f"{done.target}: {plural(done.cases, 'case')}, {done.labelled} labelled, {done.unlabelled} unlabelled")
    for note in done.notes:
        print(f"note: {note}")
    if done.near_copies:
        print(_near_copies(done.near_copies, done.target))
    print(_next_command(done.target, done.labelled, done.group_by, copies=bool(done.near_copies)))


def _near_copies(groups: tuple[tuple[str, ...], ...], target: Path) -> str:
    from semialign.data.importers.base import plural

    cases = sum(map(len, groups))
    lines = [f"near-copies: {plural(len(groups), 'group')}, {cases} cases; keep each on one side of a split, such as"]
    for group in groups[:3]:
        lines.append(f"  {', '.join(group[:6])}{f' and {len(group) - 6} more' if len(group) > 6 else ''}")
    return "\n".join([*lines, f"  all of them: {target / 'near-copies.json'}"])


def _next_command(target: Path, labelled: int, group_by: str | None, *, copies: bool) -> str:
    import shlex

    if labelled == 0:
        return "next: no case has a label yet; put some into labelsTr, then run `semialign split`"
    # A patient's cases stay together, so that one case would be too few.
    few, validation, test = max(2 if group_by else 1, labelled // 10), labelled // 10, labelled // 5
    command = ["semialign", "split", str(target), "--labelled", str(few)]
    command += ["--validation", str(validation)] if validation else []
    command += ["--test", str(test)] if test else []
    command += ["--group-by", group_by] if group_by else []
    command += ["--group-file", str(target / "near-copies.json")] if copies else []
    return "next: " + shlex.join(command)
