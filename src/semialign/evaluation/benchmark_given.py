"""Entries of a benchmark that another tool predicted: a folder of label files a data set and seed, and its costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.data.formats import ending_of, stem_of
from semialign.evaluation.benchmark_form import EntryForm

METHOD = "another tool"
COSTS = ("train_seconds", "predict_seconds", "parameters")


@dataclass(frozen=True)
class Given:
    """Predictions that are there: ``folder`` may hold ``{dataset}`` and ``{seed}``; costs are ``None`` if untold."""

    folder: str
    train_seconds: float | None
    predict_seconds: float | None
    parameters: int | None

    @property
    def per_seed(self) -> bool:
        """Whether every seed has predictions of its own; otherwise they count once."""
        return "{seed}" in self.folder

    def folder_of(self, dataset: str, seed: int) -> Path:
        """Return the folder of the predictions for a data set and seed."""
        return Path(self.folder.replace("{dataset}", dataset).replace("{seed}", str(seed)))

    def costs(self) -> dict[str, Any]:
        """Return the costs as a run's record names them."""
        return {
            "training_seconds": self.train_seconds,
            "predict_seconds": self.predict_seconds,
            "parameters": self.parameters,
        }


def given(form: EntryForm, where: str, *, datasets: int, path: Callable[[str], Path]) -> Given | None:
    """Return what ``form`` says of another tool's predictions, or ``None`` where the entry is trained here.

    Raises :class:`UserError` for keys that do not go together.
    """
    told = [key for key in COSTS if getattr(form, key) is not None]
    if form.predictions is None:
        if told:
            raise UserError(f"{where}: '{told[0]}' belongs to 'predictions'; what is trained here is measured")
        return None
    for key in ("method", "recipe", "plugins", "settings"):
        if getattr(form, key):
            raise UserError(f"{where}: 'predictions' are there already, so nothing is trained; leave out '{key}'")
    if datasets > 1 and "{dataset}" not in form.predictions:
        raise UserError(f"{where}: one folder of predictions for {datasets} data sets; write {{dataset}} in its path")
    for key in told:
        if not getattr(form, key) > 0:
            raise UserError(f"{where}: '{key}' must be more than 0")
    return Given(str(path(form.predictions)), form.train_seconds, form.predict_seconds, form.parameters)


def resolved_given(found: Given) -> dict[str, Any]:
    """Return what stands in place of the settings of an entry that is trained."""
    return {
        "method": METHOD,
        "training": {"plugins": [], "minutes": None, "steps": None},
        "method_settings": {},
        "plugins": {},
        "predictions": found.folder,
    }


def stamps(folder: Path, cases: Sequence[str] | None) -> list[str]:
    """Return names, sizes and times of the label files of ``cases`` (``None``: of all).

    They are part of a run's key, so that replaced predictions are scored anew.
    """
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_file() and ending_of(path))
    files = sorted(path for path in found if cases is None or stem_of(path) in set(cases))
    return [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
