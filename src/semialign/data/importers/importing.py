"""``import_dataset``: one way in for every published form."""

import inspect
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError, closest, require_known
from semialign.common.files import write_json
from semialign.data.dataset import load_dataset
from semialign.data.importers.base import Published, require_unique
from semialign.data.importers.near_copies import DETAIL, SURE, near_copies
from semialign.data.importers.registry import IMPORTERS, importer
from semialign.data.importers.writing import require_free, whole_folder, write_cases

NEAR_COPIES = "near-copies.json"


@dataclass(frozen=True)
class Imported:
    """What an import wrote: where, how many cases with and without label, groups of near-copies, remarks on the set.

    ``group_by``: the expression for ``semialign split --group-by`` where ids tell which cases belong to a patient.
    """

    target: Path
    cases: int
    labelled: int
    unlabelled: int
    near_copies: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    group_by: str | None


def import_dataset(
    kind: str,
    source: Path,
    target: Path,
    *,
    near_copy_threshold: float = 0.9,
    name: str | None = None,
    workers: int = 4,
    progress: bool = False,
    **options: Any,
) -> Imported:
    """Write the published data set in ``source`` to the new folder ``target`` in the layout.

    ``kind`` is one of :data:`IMPORTERS`; ``options`` are the kind's own (``spacing``, ``normals``, ``test_images``).
    ``near_copy_threshold``: correlation of thumbnails from which cases are compared closely; 1 skips the search.
    ``name``: the set's name where the kind's own does not fit. ``workers``: cases at work at a time. ``target`` appears
    whole or not at all. Raises :class:`UserError` for an unknown kind or option, a source of another form, a target in
    use, and a file that cannot be used.
    """
    require_known(kind, IMPORTERS, "kind of data set")
    if not 0 < near_copy_threshold <= 1:
        raise UserError(f"near-copy threshold {near_copy_threshold:g}: a correlation above 0, at most 1 (no search)")
    if workers < 1:
        raise UserError(f"workers {workers}: at least 1 case must be at work")
    source, target = Path(source), Path(target)
    module = importer(kind)
    _check_options(kind, module.find, options)
    _check_places(source, target)
    if not module.recognise(source):
        raise UserError(_other_form(kind, source))
    published: Published = module.find(source, **options)
    published = replace(published, name=name) if name else published
    _check(published, source)
    with whole_folder(target) as folder:
        thumbnails = write_cases(published, folder, workers=workers, progress=progress)
        ids = [case.id for case in published.cases]
        groups = near_copies(ids, thumbnails, threshold=near_copy_threshold)
        _write_near_copies(folder / NEAR_COPIES, groups, near_copy_threshold)
        _write_description(folder, published)
        written = load_dataset(folder)
    cases, labelled = len(written.cases), len(written.with_label)
    notes, group_by = published.notes, published.group_by
    return Imported(target, cases, labelled, cases - labelled, tuple(groups), notes, group_by)


def _check_options(kind: str, find: Any, options: dict[str, Any]) -> None:
    known = [p.name for p in inspect.signature(find).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            hint = closest(option, known) if known else "; it has no options of its own"
            raise UserError(f"import of {kind} has no option '{option}'{hint}")


def _check_places(source: Path, target: Path) -> None:
    if not source.exists():
        raise UserError(f"{source}: no such folder")
    if source.is_file():
        raise UserError(f"{source}: a file, but the data set's folder is wanted; unpack archives first")
    if not os.access(source, os.R_OK | os.X_OK):
        raise UserError(f"{source}: may not be read; check its permissions")
    require_free(target)
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target}: lies inside the source {source}; choose a folder outside it")


def _other_form(kind: str, source: Path) -> str:
    error = f"{source}: not {IMPORTERS[kind]}"
    inside = [path for path in sorted(source.iterdir()) if path.is_dir() and _recognised(kind, path)]
    if inside:
        return f"{error}; did you mean {inside[0]}?"
    others = [other for other in IMPORTERS if other != kind and _recognised(other, source)]
    return f"{error}; this looks like {others[0]}: use `semialign import {others[0]}`" if others else error


def _recognised(kind: str, source: Path) -> bool:
    try:
        return bool(importer(kind).recognise(source))
    except (UserError, OSError):
        return False


def _check(published: Published, source: Path) -> None:
    if not published.cases:
        raise UserError(f"{source}: no images found; nothing was imported")
    require_unique(published.cases)
    classes = sorted(value for name, value in published.labels.items() if name != "ignore")
    if classes != list(range(len(classes))) or len(classes) < 2:
        raise UserError(
            f"{source}: labels are numbered {classes}, but classes are 0 (background), 1, 2, ... without gaps"
        )


def _write_description(folder: Path, published: Published) -> None:
    description = {
        "name": published.name,
        "channel_names": {str(i): channel for i, channel in enumerate(published.channel_names)},
        "labels": dict(sorted(published.labels.items(), key=lambda item: item[1])),
        "numTraining": sum(1 for _ in (folder / "labelsTr").glob("*")),
        "file_ending": published.label_ending,
    }
    if published.image_ending != published.label_ending:
        description["image_file_ending"] = published.image_ending
    write_json(folder / "dataset.json", {**description, **published.extra})


def _write_near_copies(path: Path, groups: list[tuple[str, ...]], threshold: float) -> None:
    rule = f"64 x 64 thumbnails correlate above {threshold:g} and their fine detail above {DETAIL:g}, or above {SURE:g}"
    rule = rule if threshold < 1 else "not searched"
    write_json(path, {"rule": rule, "threshold": threshold, "groups": [list(group) for group in groups]})
