"""Splits of training cases alone, on which candidates for the default method are screened.

    python benchmarks/screening_splits.py [--output bench/screening-splits]

Every split takes the training and validation cases of one of the benchmark's splits (in the folder that SEMIALIGN_DATA
names) and draws anew: as many labelled ones, others whose labels stay shut, and some that score, listed under ``test``
so that ``semialign bench benchmarks/screening.yaml`` scores them. The benchmark's own test cases are in none.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from semialign.data.dataset import load_dataset, read_case
from semialign.data.importers.near_copies import near_copies, thumbnail
from semialign.data.splits import load_split, make_split, write_split

ROOT = Path(__file__).resolve().parents[1]
SEED = 1

# name: data set, split whose training cases are drawn from, labelled, scoring cases, what holds cases together
DRAWS = {
    "hippocampus-4": ("hippocampus", "split-4-labelled", 4, 30, None),
    "left-atrium": ("left-atrium", "split-4-labelled", 4, 4, None),
    "acdc": ("acdc", "split-3-patients-labelled", 6, 16, r"^(patient\d+)"),
    "kvasir": ("kvasir", "split-10-percent", 56, 80, None),
    "busi": ("busi", "split-10-percent", 36, 80, None),
}


def main() -> None:
    """Draw and write every split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("bench/screening-splits"))
    output = parser.parse_args().output
    data = Path(os.environ.get("SEMIALIGN_DATA", ROOT.parent / "shared" / "data"))
    output.mkdir(parents=True, exist_ok=True)
    for name, (folder, split, labelled, scoring, group_by) in DRAWS.items():
        dataset = load_dataset(data / folder)
        given = load_split(data / folder / f"{split}.json", dataset)
        known = dict.fromkeys((*given.training, *given.validation))
        training = replace(dataset, cases={case: dataset.cases[case] for case in known})
        together: list[tuple[str, ...]] = []
        if folder == "busi":  # the only one of these sets with near-copies
            thumbnails = np.stack(
                [thumbnail(read_case(case, len(dataset.channel_names))) for case in training.cases.values()]
            )
            together = near_copies(list(training.cases), thumbnails)
        drawn = make_split(training, labelled=labelled, test=scoring, seed=SEED, group_by=group_by, together=together)
        write_split(output / f"{name}.json", replace(drawn, protocol=f"training cases of {folder}/{split}, drawn anew"))
        print(f"{name}: {len(drawn.labelled)} labelled, {len(drawn.unlabelled)} unlabelled, {len(drawn.test)} score")


if __name__ == "__main__":
    main()
