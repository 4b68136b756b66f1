"""What a benchmark's runs hang on, as far as their data go; told by names, sizes and times of files, none opened."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from semialign.data.case_keys import case_key
from semialign.data.dataset import Dataset, load_dataset
from semialign.data.splits import load_split
from semialign.evaluation.benchmark_file import BenchData

_NAMES = ("protocol",)  # of a split; they may be mended without a new run


@dataclass(frozen=True)
class Identity:
    """Hashes of the parts of a data set by what they decide; a phantom's settings decide all.

    ``learnt_from``: split, classes, all images and the labels that the split shows; ``other_labels``: labels of
    unlabelled cases, for entries that have all; ``scored_on``: labels of test cases and names of classes.
    """

    learnt_from: str
    other_labels: str
    scored_on: str
    test: tuple[str, ...] | None
    """The test cases; ``None`` where a phantom is not made yet."""

    def trained(self, labels: str) -> str:
        """Return what training on the ``labels`` of an entry (``split`` or ``all``) hangs on."""
        return digest([self.learnt_from, labels, self.other_labels if labels == "all" else ""])


def identify(data: BenchData) -> Identity:
    """Return what tells a data set and its split from others, and from themselves before a file was replaced.

    Raises :class:`UserError` where the data set or its split cannot be read.
    """
    if data.phantom is not None:
        return Identity(digest(asdict(data.phantom)), "", "", None)
    assert data.data is not None
    assert data.split is not None
    dataset = load_dataset(data.data)
    split = load_split(data.split, dataset)
    parts = {part: ids for part, ids in asdict(split).items() if part not in _NAMES}
    shown = {*split.labelled, *split.validation}
    images = [case_key(dataset.cases[case], case in shown) for case in _all_of(parts)]
    learnt_from = [str(data.data), parts, len(dataset.labels), len(dataset.channel_names), dataset.ignore, images]
    return Identity(
        digest(learnt_from),
        digest(_labels(dataset, split.unlabelled)),
        digest([dataset.class_names, dataset.ignore, _labels(dataset, split.test)]),
        split.test,
    )


def digest(value: Any) -> str:
    """Return a short hash of plain values; the order of keys does not matter."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _all_of(parts: dict[str, Sequence[str]]) -> list[str]:
    return sorted({case for ids in parts.values() for case in ids})


def _labels(dataset: Dataset, cases: Sequence[str]) -> list[list[str]]:
    """Return what tells the label files of ``cases``; one that is lacking is told of where the data are checked."""
    return [case_key(dataset.cases[case], labelled=True) for case in sorted(cases) if dataset.cases[case].label]
