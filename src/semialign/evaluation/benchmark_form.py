"""What a benchmark file may hold, key by key."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PhantomForm:
    """A phantom data set that the benchmark makes; the fields of ``semialign phantom``."""

    cases: int = 40
    """How many cases to make."""
    labelled: int = 4
    """How many labelled cases train."""
    validation: int = 4
    """How many cases choose the best checkpoint."""
    test: int = 10
    """How many cases are kept for the test."""
    dimensions: int = 3
    """3: CT-like volumes; 2: pictures."""
    size: tuple[int, ...] | None = None
    """Voxels (or pixels) along each axis."""
    organs: int = 13
    """How many organs are labelled."""
    seed: int = 0
    """Another seed draws other patients and another split."""


@dataclass(frozen=True)
class DataForm:
    """A data set as the file names it: ``data`` and ``split``, or ``phantom``."""

    name: str = ""
    """How tables and folders call it."""
    data: str | None = None
    """Its folder."""
    split: str | None = None
    """Its split file; the test cases it lists are scored."""
    phantom: PhantomForm | None = None
    """Make a phantom instead."""
    group_by: str | None = None
    """Regular expression; cases with the same match are one patient, and intervals draw whole patients."""
    minutes: float | None = None
    """How long runs on this data set train, whatever the file's training says."""
    series: str | None = None
    """Data sets of one series differ in their number of labels: a figure shows Dice against it."""


@dataclass(frozen=True)
class EntryForm:
    """What competes: a method or recipe, with plug-ins and settings, on the split's labels or on all."""

    name: str = ""
    """How tables and folders call it."""
    method: str | None = None
    """A method's name; it lies over the recipe's."""
    recipe: str | None = None
    """A shipped recipe's name, or a YAML file."""
    plugins: tuple[str, ...] = ()
    """Plug-ins that sit on the method."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of training, method (``weight: 0.5``) and plug-ins (``scdl: {...}``), over the common ones; text with
    ``${VAR}`` or ``${VAR:-default}`` is a path, as those of data sets are."""
    labels: str = "split"
    """``split``: the split's labelled cases; ``all``: the unlabelled ones count as labelled (the ceiling)."""
    datasets: tuple[str, ...] = ()
    """Names of the data sets it runs on (default: all)."""
    predictions: str | None = None
    """Folder of another tool's label files of the test cases, instead of a method; may hold {dataset} and {seed}."""
    train_seconds: float | None = None
    """With ``predictions``: how long that tool trained."""
    predict_seconds: float | None = None
    """With ``predictions``: how long it takes to predict a case."""
    parameters: int | None = None
    """With ``predictions``: how many parameters predict."""


@dataclass(frozen=True)
class BenchForm:
    """The whole file."""

    name: str = ""
    """How the output folder is called."""
    description: str = ""
    """A sentence or two for the page of results."""
    output: str | None = None
    """Where everything goes (default: ``bench/NAME`` under the current folder)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every entry trains once a seed."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of all runs; ``minutes`` gives all the same time, ``steps`` the same number of steps."""
    datasets: tuple[DataForm, ...] = ()
    """On what."""
    entries: tuple[EntryForm, ...] = ()
    """What."""
    baseline: str | None = None
    """The entry that others are compared with (default: the first ``supervised`` on the split's labels)."""
    ceiling: str | None = None
    """The entry with all labels (default: the first ``supervised`` with ``labels: all``)."""
