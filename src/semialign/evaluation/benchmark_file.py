"""Reading a benchmark file: data sets, entries and seeds, all checked before anything runs."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError, closest, require_known
from semialign.common.files import read_yaml
from semialign.config import TrainingSettings, from_mapping, merge, to_mapping
from semialign.evaluation.benchmark_form import BenchForm, DataForm, EntryForm, PhantomForm
from semialign.evaluation.benchmark_given import Given, given, resolved_given

DEFAULT_MINUTES = 5.0  # where neither file nor recipe says how long a run trains
LABELS = ("split", "all")
_EQUAL = "equal training time: "
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class BenchData:
    """A data set with its paths resolved; ``data`` and ``split`` are ``None`` for a phantom.

    ``minutes``: how long runs on it train; ``None``: as long as entries say.
    """

    name: str
    data: Path | None
    split: Path | None
    phantom: PhantomForm | None
    group_by: str | None
    series: str | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class BenchEntry:
    """An entry as :func:`semialign.training.train.train` takes it, and ``resolved``: every setting it comes to.

    ``given``: predictions of another tool, which are only scored. ``datasets``: those it runs on; empty: all.
    """

    name: str
    method: str | None
    recipe: str | None
    settings: dict[str, Any]
    labels: str
    resolved: dict[str, Any]
    given: Given | None = None
    datasets: tuple[str, ...] = ()

    def on(self, data: BenchData) -> "BenchEntry":
        """Return the entry as it runs on ``data``, for the time that this data set gives."""
        if data.minutes is None or self.given is not None:
            return self
        length: dict[str, Any] = {"minutes": data.minutes}
        settings = {key: value for key, value in self.settings.items() if key != "steps"} | length
        if "steps" in self.settings:
            length["steps"] = TrainingSettings.steps
        return replace(self, settings=settings, resolved=merge(self.resolved, {"training": length}))


@dataclass(frozen=True)
class Bench:
    """A benchmark file, checked; ``length`` says in words how long runs train, ``overrides`` what was asked beside."""

    file: Path
    name: str
    description: str
    output: Path
    seeds: tuple[int, ...]
    datasets: tuple[BenchData, ...]
    entries: tuple[BenchEntry, ...]
    baseline: str | None
    ceiling: str | None
    length: str
    overrides: dict[str, Any]

    def entries_on(self, data: BenchData) -> list[BenchEntry]:
        """Return the entries that run on ``data``, as they run there."""
        return [entry.on(data) for entry in self.entries if not entry.datasets or data.name in entry.datasets]


def load_bench(
    file: Path,
    *,
    output: Path | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seeds: Sequence[int] | None = None,
) -> Bench:
    """Read and check a benchmark file; the other arguments lie over it, for every entry.

    Relative paths count from the file's folder; ``${VAR}`` and ``${VAR:-default}`` are replaced in them, and a setting
    with either is such a path. Without
    ``output``, a benchmark of another length than the file's goes to a folder of its own, so that a trial with few
    steps never takes the place of finished runs. Raises :class:`UserError` for an unknown key, name or setting.
    """
    file = Path(file)
    value = read_yaml(file)
    if not isinstance(value, dict):
        raise UserError(f"{file}: a benchmark holds name, datasets and entries; see docs/how-to/compare-methods.md")
    form = from_mapping(BenchForm, value, str(file))
    if steps is not None and minutes is not None:
        raise UserError("--steps and --minutes: give one of them")
    length = {key: of for key, of in (("steps", steps), ("minutes", minutes)) if of is not None}
    overrides = {**length, **({"seeds": list(seeds)} if seeds is not None else {})}
    chosen = tuple(seeds) if seeds is not None else form.seeds
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"{file}: 'seeds' must be different whole numbers, at least one")
    _check_names(file, "datasets", [data.name for data in form.datasets])
    _check_names(file, "entries", [entry.name for entry in form.entries])
    if not form.name:
        raise UserError(f"{file}: 'name' is missing; it names the output folder")
    entries = tuple(_entry(entry, form, length, file) for entry in form.entries)
    datasets = tuple(_data(data, file, length) for data in form.datasets)
    return Bench(
        file,
        form.name,
        form.description.strip(),
        Path(output) if output is not None else _output(form, file, length),
        chosen,
        datasets,
        entries,
        _reference(form.baseline, "baseline", "split", entries, file),
        _reference(form.ceiling, "ceiling", "all", entries, file),
        _length(entries, datasets),
        overrides,
    )


def slug(name: str) -> str:
    """Return ``name`` as a folder is called: ``mean-teacher`` for ``Mean teacher``."""
    return re.sub(r"[^\w.+]+", "-", name.lower()).strip("-.")


def _check_names(file: Path, key: str, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"{file}: '{key}' is missing or empty; list at least one")
    seen: dict[str, str] = {}
    for name in names:
        if not slug(name):
            raise UserError(f"{file}: '{key}': every one needs a name with a letter or digit, not {name!r}")
        if slug(name) in seen:
            raise UserError(f"{file}: '{key}': '{seen[slug(name)]}' and '{name}' would share a folder; rename one")
        seen[slug(name)] = name


def _data(form: DataForm, file: Path, length: Mapping[str, Any]) -> BenchData:
    where = f"{file}: data set '{form.name}'"
    if (form.data is None) == (form.phantom is None):
        raise UserError(f"{where}: give either data or phantom")
    if form.data is not None and form.split is None:
        raise UserError(f"{where}: 'split' is missing; without test cases nothing can be scored")
    if form.phantom is not None and form.split is not None:
        raise UserError(f"{where}: a phantom brings its own split; leave out 'split'")
    if form.group_by is not None:
        try:
            re.compile(form.group_by)
        except re.error as error:
            raise UserError(f"{where}: group_by {form.group_by} is not a regular expression ({error})") from error
    if form.minutes is not None and form.minutes <= 0:
        raise UserError(f"{where}: minutes {form.minutes:g}: must be more than 0")
    data = None if form.data is None else _path(form.data, file)
    split = None if form.split is None else _split_path(form.split, file)
    minutes = None if length else form.minutes  # what was asked beside the file lies over all of it
    return BenchData(form.name, data, split, form.phantom, form.group_by, form.series, minutes)


def _entry(form: EntryForm, bench: BenchForm, length: Mapping[str, Any], file: Path) -> BenchEntry:
    where = f"{file}: entry '{form.name}'"
    if form.labels not in LABELS:
        raise UserError(f"{where}: labels '{form.labels}'{closest(form.labels, LABELS)}")
    for name in form.datasets:
        try:
            require_known(name, [data.name for data in bench.datasets], "data set")
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    found = given(form, where, datasets=len(bench.datasets), path=lambda text: _path(text, file))
    if found is not None:
        return BenchEntry(form.name, None, None, {}, form.labels, resolved_given(found), found, form.datasets)
    if form.method is None and form.recipe is None:
        raise UserError(f"{where}: name a method or a recipe, or another tool's predictions")
    return _trained_entry(form, bench.training, length, file)


def _trained_entry(form: EntryForm, common: Mapping[str, Any], length: Mapping[str, Any], file: Path) -> BenchEntry:
    from semialign.recipes.load import load_recipe
    from semialign.training.resolve import resolve

    where, recipe = f"{file}: entry '{form.name}'", form.recipe
    if recipe is not None and recipe.endswith((".yaml", ".yml")):
        recipe = str(_path(recipe, file))
    settings: dict[str, Any] = {}
    for layer in (_with_paths(common, file), _with_paths(form.settings, file), length):
        settings = merge(settings, layer)
        if "steps" in layer and "minutes" not in layer:  # or the minutes of a layer below would still rule
            settings["minutes"] = None
        elif layer.get("minutes") is not None and "steps" not in layer:
            settings.pop("steps", None)
    if "seed" in settings:
        raise UserError(f"{where}: 'seed' is not a setting here; list 'seeds' at the top of the file")
    if form.plugins:
        settings["plugins"] = list(form.plugins)
    try:
        said = {**(load_recipe(recipe) if recipe else {}), **settings}
        if "steps" not in said and "minutes" not in said:
            settings["minutes"] = DEFAULT_MINUTES
        method, training, own, plugins = resolve(form.method, recipe, settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    resolved = {"method": method, "training": to_mapping(training), "method_settings": own, "plugins": plugins}
    if said.get("plan"):  # laid over the plan that is made for a data set, so that no other entry shares its data
        resolved["plan"] = said["plan"]
    return BenchEntry(form.name, form.method, recipe, settings, form.labels, resolved, datasets=form.datasets)


def _reference(name: str | None, role: str, labels: str, entries: Sequence[BenchEntry], file: Path) -> str | None:
    if name is None:
        fitting = (e.name for e in entries if e.labels == labels and e.resolved["method"] == "supervised")
        return next(fitting, None)
    try:
        require_known(name, [entry.name for entry in entries], "entry")
    except UserError as error:
        raise UserError(f"{file}: '{role}': {error}") from error
    if next(entry.labels for entry in entries if entry.name == name) != labels:
        raise UserError(f"{file}: '{role}': entry '{name}' must have labels: {labels}")
    return name


def _output(form: BenchForm, file: Path, length: Mapping[str, Any]) -> Path:
    folder = _path(form.output, file) if form.output is not None else Path("bench") / slug(form.name)
    suffix = "".join(f"-{key}-{value:g}" for key, value in length.items())
    return folder.with_name(folder.name + suffix)


def _length(entries: Sequence[BenchEntry], datasets: Sequence[BenchData]) -> str:
    trained = [entry for entry in entries if entry.given is None]
    if not trained:
        return "nothing is trained here: predictions of other tools alone"
    by_data = {data.name: _own_length([entry.on(data).resolved["training"] for entry in trained]) for data in datasets}
    if len(set(by_data.values())) == 1:
        return next(iter(by_data.values()))
    if all(length.startswith(_EQUAL) for length in by_data.values()):
        each = "; ".join(f"{name}: {length.removeprefix(_EQUAL)}" for name, length in by_data.items())
        return f"equal training time on each data set ({each})"
    return "; ".join(f"{name}: {length}" for name, length in by_data.items())


def _own_length(trainings: Sequence[Mapping[str, Any]]) -> str:
    minutes = {training["minutes"] for training in trainings}
    if len(minutes) == 1 and None not in minutes:
        return f"{_EQUAL}{minutes.pop():g} minutes a run"
    steps = {training["steps"] for training in trainings}
    if minutes == {None} and len(steps) == 1:
        return f"equal number of steps: {steps.pop()} a run (not equal time)"
    return "entries train for lengths of their own (see the steps and times)"


def _split_path(text: str, file: Path) -> Path:
    from semialign.data.splits import published_splits

    path = _path(text, file)
    return Path(text) if text in published_splits() and not path.exists() else path


def _with_paths(settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    def found(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _with_paths(value, file)
        return str(_path(value, file)) if isinstance(value, str) and _VARIABLE.search(value) else value

    return {key: found(value) for key, value in settings.items()}


def _path(text: str, file: Path) -> Path:
    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise UserError(f"{file}: {text}: the environment has no {name}; set it, or write ${{{name}:-default}}")
        # A folder that the user names in the environment counts from where the user stands.
        return str(Path(found).absolute()) if os.environ.get(name) and match.start() == 0 else found

    path = Path(_VARIABLE.sub(value, text)).expanduser()
    return (file.parent / path).resolve()
