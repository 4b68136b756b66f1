"""Write a synthetic data set, CT-like volumes or lesion pictures, with a split, to try things on."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign phantom``."""

    out: tyro.conf.Positional[Path]
    """The folder to write; new or empty."""
    cases: int
    """How many cases to make."""
    labelled: int
    """How many labelled cases train."""
    validation: int = 0
    """How many cases choose the best checkpoint."""
    test: int = 0
    """How many cases are kept for the evaluation alone."""
    dimensions: int = 3
    """3: abdominal CT volumes; 2: colour pictures with one lesion."""
    size: tuple[int, ...] | None = None
    """Voxels along x, y and z (default 96 96 48), or rows and columns (default 128 128); sets the resolution."""
    organs: int = 13
    """How many organs are labelled, 1 to 13; all are in the image."""
    seed: int = 0
    """Another seed draws other patients and another split."""
    hide_labels: bool = False
    """Write no label file for unlabelled cases."""
    workers: int | None = None
    """Threads (default: one a core, at most 8)."""


def run(arguments: Arguments) -> None:
    """Write the data set and say what to run next."""
    from dataclasses import asdict

    from semialign.cli.screen import progress_bars
    from semialign.data.dataset import load_dataset
    from semialign.data.phantom import phantom
    from semialign.data.splits import PARTS, load_split

    options = asdict(arguments)
    with progress_bars() as progress:
        out = phantom(options.pop("out"), **options, progress=progress)
    dataset = load_dataset(out)
    split = load_split(out / "split.json", dataset)
    classes = "1 class" if dataset.num_classes == 2 else f"{dataset.num_classes - 1} classes"
    print(f"{out}: {len(dataset.cases)} cases with {classes}, ", end="")
    print(", ".join(f"{len(getattr(split, part))} {part}" for part in PARTS))
    print(f"next: semialign train {out} --split {out / 'split.json'}")
