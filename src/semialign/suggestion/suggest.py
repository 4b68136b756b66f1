"""``suggest``: which unlabelled cases to label next, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semialign.common.errors import UserError
from semialign.common.files import make_folder
from semialign.suggestion.measuring import Measured, keep, key_of, load_measured, measure, measured_path
from semialign.suggestion.pool import Pool, pool_of
from semialign.suggestion.results import Suggestion, described, moved, write_new_split, write_results

if TYPE_CHECKING:
    import numpy as np

    from semialign.data.dataset import Case
    from semialign.inference.model import TrainedModel
    from semialign.suggestion.views import View

Say = Callable[[str, int, int], None]


def suggest(
    run: Path,
    data: Path | None = None,
    *,
    count: int = 4,
    output: Path | None = None,
    split: Path | None = None,
    ensemble: Sequence[Path] = (),
    checkpoint: str = "best",
    overlap: float = 0.5,
    batch: int | None = None,
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Suggestion:
    """Choose ``count`` cases to label next, which stand for many that the model is unsure of; no two are alike.

    The unlabelled cases of the run's split are looked at, in ``data`` where the data set has moved; or the images in
    ``data``, where it holds none of them. No label is opened. ``output`` (default: ``RUN/suggest``) gets
    ``suggest.json``, ``suggest.csv``, ``suggest.html``, and in ``cases`` what was measured of each, so that a stopped
    call goes on where it was. ``split``: a new split file with the chosen cases moved to the labelled ones.
    ``ensemble``: further runs, whose disagreement then counts instead of that of one run's views. ``progress`` is
    called with (what, done, of). Fewer than ``count`` are chosen where the others are too much alike. Raises
    :class:`UserError` for a mistake that concerns all cases; a case that cannot be read is named in ``failed``.
    """
    from semialign.inference.model import load_trained
    from semialign.inference.predictor import check_settings
    from semialign.suggestion.views import views_of

    runs = [Path(run), *map(Path, ensemble)]
    if runs[0].is_file():
        raise UserError(f"{run}: an exported model does not know its cases; name the run's folder")
    if count < 1:
        raise UserError(f"--count {count}: must be at least 1")
    if checkpoint not in ("best", "last"):
        raise UserError(f"--checkpoint {checkpoint}: there are best, last")
    models = [load_trained(path, checkpoint=checkpoint, accelerator=accelerator) for path in runs]
    check_settings(models, [str(path) for path in runs], overlap=overlap, mirror=False, batch=batch)
    pool = pool_of(runs[0], data, channels=len(models[0].channel_names))
    if split is not None and pool.split is None:
        raise UserError(f"--split {split}: the cases of {data} are none of the run's split; leave it out")
    if count > len(pool.unlabelled):
        raise UserError(f"--count {count}: there are {len(pool.unlabelled)} unlabelled cases; ask for fewer")
    folder = make_folder(Path(output) if output is not None else runs[0] / "suggest")
    views = views_of(models[0].plan)
    measured, failed = _measured(
        pool, folder, models, views, _checkpoints(runs, checkpoint), overlap=overlap, batch=batch, say=progress
    )
    where = _places(measured)
    found = _chosen(pool, measured, where, failed, folder, count)
    if split is not None and pool.split is not None:
        write_new_split(Path(split), moved(pool.split, found.cases, run=runs[0].name))
    about = {
        "runs": [path.name for path in runs],
        "checkpoint": checkpoint,
        "compared": [path.name for path in runs] if len(runs) > 1 else list(views),
        "asked": count,
        "unlabelled": len(pool.unlabelled),
    }
    write_results(found, about=about)
    from semialign.suggestion.page import write_suggestion_page

    plan, names = models[0].plan, models[0].class_names
    write_suggestion_page(found, pool, about=about, class_names=names, channels=len(plan.normalisation), places=where)
    return found


def _checkpoints(runs: Sequence[Path], checkpoint: str) -> list[Path]:
    from semialign.inference.model import checkpoint_path

    return [run if run.is_file() else checkpoint_path(run, checkpoint) for run in runs]


def _measured(
    pool: Pool,
    folder: Path,
    models: Sequence[TrainedModel],
    views: Mapping[str, View],
    checkpoints: Sequence[Path],
    *,
    overlap: float,
    batch: int | None,
    say: Say | None,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure what is not measured yet; return everything by name, and what went wrong with the others."""
    from semialign.inference.predictor import reason

    say = say or (lambda what, done, of: None)
    cases: dict[str, Case] = {f"labelled/{name}": case for name, case in pool.labelled.items()} | pool.unlabelled
    measured, failed = {}, {}
    for number, (name, case) in enumerate(cases.items()):
        say("cases", number, len(cases))
        path, key = measured_path(folder, name), key_of(case, checkpoints, overlap=overlap)
        known = load_measured(path, key)
        if known is None:
            try:
                known, maps = measure(case, models, views, overlap=overlap, batch=batch, say=say)
            except Exception as error:  # whatever ails this case, the others go on
                failed[name] = reason(case, error)
                continue
            keep(path, known, maps, key=key)
        measured[name] = known
    say("cases", len(cases), len(cases))
    return measured, failed


def _places(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    from semialign.suggestion.choosing import places

    return dict(zip(measured, places([one.blocks for one in measured.values()]), strict=True)) if measured else {}


def _chosen(
    pool: Pool,
    measured: Mapping[str, Measured],
    where: Mapping[str, np.ndarray],
    failed: dict[str, str],
    folder: Path,
    count: int,
) -> Suggestion:
    from semialign.suggestion.choosing import choose, unsureness

    open_ones = [name for name in pool.unlabelled if name in measured]
    if not open_ones:
        raise UserError(next(iter(failed.values())))
    figures = [[getattr(measured[name], what) for name in open_ones] for what in ("entropy", "disagreement")]
    unsure = dict(zip(open_ones, map(float, unsureness(*figures)), strict=True))
    labelled = {f"labelled/{case}": case for case in pool.labelled if f"labelled/{case}" in measured}
    choices = choose(unsure, where, labelled=list(labelled), count=count)
    chosen, others = described(choices, measured, unsure, labelled)
    notes = list(pool.notes)
    if len(chosen) < min(count, len(open_ones)):
        notes.append(
            f"{count} were asked for, but every other case is too much like one that is labelled or chosen already"
        )
    elif len(chosen) < count:
        notes.append(f"{count} were asked for, but the other cases could not be read")
    return Suggestion(folder, chosen, others, list(labelled.values()), notes, failed)
