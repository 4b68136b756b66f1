"""Draw labelled, unlabelled, validation and test cases and write them as a split file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from semialign.data.splits import Split


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign split``."""

    data: tyro.conf.Positional[Path]
    """The data set's folder."""
    labelled: int
    """How many labelled cases train."""
    validation: int = 0
    """How many cases choose the best checkpoint."""
    test: int = 0
    """How many cases are kept for the evaluation alone."""
    seed: int = 0
    """Another seed draws another split."""
    group_by: str | None = None
    """Regular expression; cases with the same match (a patient, a video) stay on one side."""
    group_file: Path | None = None
    """File of groups that stay on one side, such as near-copies.json of an import."""
    test_match: str | None = None
    """Regular expression; all cases that match go to the test, beside the --test cases drawn from the others."""
    output: Path | None = None
    """Where to write (default: DATA/split-K-labelled-seed-S.json)."""


def run(arguments: Arguments) -> None:
    """Write the split file and say how many cases each part holds."""
    from semialign.common.errors import UserError
    from semialign.data.dataset import load_dataset
    from semialign.data.splits import PARTS, load_groups, make_split, write_split

    split = make_split(
        load_dataset(arguments.data),
        labelled=arguments.labelled,
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
        group_by=arguments.group_by,
        together=load_groups(arguments.group_file) if arguments.group_file else (),
        test_match=arguments.test_match,
    )
    name = f"split-{arguments.labelled}-labelled-seed-{arguments.seed}.json"
    path = arguments.output or arguments.data / name
    if path.exists() and not _same(path, split):
        raise UserError(f"{path}: holds something else already; move it or choose another --output")
    write_split(path, split)
    print(f"{path}: " + ", ".join(f"{len(getattr(split, part))} {part}" for part in PARTS))


def _same(path: Path, split: "Split") -> bool:
    from semialign.common.errors import UserError
    from semialign.common.files import read_json
    from semialign.data.splits import PARTS

    try:
        old = read_json(path)
    except UserError:
        return False
    return isinstance(old, dict) and all(old.get(part) == list(getattr(split, part)) for part in PARTS)
