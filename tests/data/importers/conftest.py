"""What the importers' tests share: the folder of real data and a reader of what an import wrote."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semialign.data.dataset import load_dataset, read_case
from semialign.data.image_io import read_label

Layout = dict[str, tuple[np.ndarray, np.ndarray | None]]


@pytest.fixture
def real_data() -> Callable[..., Path]:
    """A folder of real data by name; skips where it is not there."""
    root = Path(os.environ.get("SEMIALIGN_DATA", Path(__file__).parents[4] / "shared" / "data"))

    def folder(*parts: str) -> Path:
        path = root.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"no real data at {path} (SEMIALIGN_DATA)")
        return path

    return folder


@pytest.fixture
def read_layout() -> Callable[..., Layout]:
    """Images (C, *S) and labels (*S) of a data set in the layout by case id; ``only`` some of the cases."""

    def read(root: Path, only: set[str] | None = None) -> Layout:
        dataset = load_dataset(root)
        cases = {name: case for name, case in dataset.cases.items() if only is None or name in only}
        return {
            name: (
                read_case(case, len(dataset.channel_names)).array,
                None if case.label is None else read_label(case.label)[0],
            )
            for name, case in cases.items()
        }

    return read
