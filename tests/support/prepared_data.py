"""A raw data set with its split, prepared, and what changed when it was prepared again."""

from pathlib import Path
from typing import Any

from raw_data import volumes, write_split

from semialign.data.prepare import Prepared, prepare


class Data:
    """A raw data set a..f, its split and the folder it is prepared into."""

    def __init__(self, root: Path) -> None:
        self.raw, self.split, self.out = root / "raw", root / "split.json", root / "out"

    def make(self) -> "Data":
        """Write the data and prepare them: labelled a b, unlabelled c d (c has a label), validation e, test f."""
        volumes(self.raw, labelled=6, unlabelled=0)
        (self.raw / "labelsTr" / "d.nii.gz").unlink()
        write_split(self.split, labelled=["a", "b"], unlabelled=["c", "d"], validation=["e"], test=["f"])
        self.prepare()
        return self

    def prepare(self, **more: Any) -> Prepared:
        """Prepare in this process; keywords lie over that."""
        return prepare(self.raw, self.split, output=self.out, **({"accelerator": "cpu", "workers": 1} | more))


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """The cases whose files in the store changed."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {Path(name).name.split(".")[0] for name in names if name.startswith("store/")}
