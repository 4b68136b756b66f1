"""Segment new images with trained runs: read, predict in slabs, write in the input's own geometry and format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from semialign.common.errors import UserError
from semialign.common.files import make_folder
from semialign.data.dataset import Case, read_case
from semialign.data.grid import Grid
from semialign.inference.inputs import check_outputs, find_cases, output_path, require_channel_order

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from semialign.data.plan import Plan
    from semialign.inference.sliding_window import Planes, Predict

    Observe = Callable[[Case, Grid], AbstractContextManager[Callable[[Planes], None]]]

Say = Callable[[str, int, int], None]


class Model(Protocol):
    """What prediction asks of a trained model; :class:`semialign.inference.model.TrainedModel` is one."""

    @property
    def plan(self) -> Plan:
        """The plan it was trained on."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One a channel of the image."""

    @property
    def class_names(self) -> list[str]:
        """By value, background first."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def probabilities(self, windows: Tensor, /) -> Tensor:
        """Normalised windows (B, C, *patch) on ``device`` to probabilities (B, K, *patch) float32."""
        ...


@dataclass
class PredictionSummary:
    """What became of each case: files written, files that were there already, and inputs with what is wrong."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def predict(
    runs: Sequence[Path],
    inputs: Sequence[Path | Case],
    output: Path,
    *,
    checkpoint: str = "best",
    probabilities: bool = False,
    mirror: bool = False,
    keep_all: bool = False,
    overlap: float = 0.5,
    batch: int | None = None,
    accelerator: str = "auto",
    overwrite: bool = False,
    observe: Observe | None = None,
    progress: Say | None = None,
) -> PredictionSummary:
    """Predict every case in ``inputs`` (see :func:`~semialign.inference.inputs.find_cases`) into folder ``output``.

    Several ``runs`` are averaged window by window, so they need one plan. ``probabilities`` also writes
    ``CASE_probabilities.npy``, float16 (K, *S) on the input's grid. ``mirror`` averages over the flips that training
    used. ``keep_all`` keeps every piece of a structure where the plan would keep the largest. ``batch``: windows (of
    as many slices) at a time (default: 1 on a processor, 4 on a GPU). Outputs that exist are left alone unless
    ``overwrite``, so a stopped command goes on where it was. A case that cannot be read or written is named in the
    summary and stops no other. ``observe`` is called with each case and its grid, and returns a context whose function
    is given the case's probabilities as they are finished: a few planes (K, *S) at a time, in RAS order. ``progress``
    is called with (what, done, of). Raises :class:`UserError` for a mistake that concerns all cases.
    """
    from semialign.inference.model import load_trained

    models = [load_trained(Path(run), checkpoint=checkpoint, accelerator=accelerator) for run in runs]
    return predict_with(
        models,
        inputs,
        output,
        names=[str(run) for run in runs],
        probabilities=probabilities,
        mirror=mirror,
        keep_all=keep_all,
        overlap=overlap,
        batch=batch,
        overwrite=overwrite,
        observe=observe,
        progress=progress,
    )


def predict_with(
    models: Sequence[Model],
    inputs: Sequence[Path | Case],
    output: Path,
    *,
    names: Sequence[str] = (),
    probabilities: bool = False,
    mirror: bool = False,
    keep_all: bool = False,
    overlap: float = 0.5,
    batch: int | None = None,
    overwrite: bool = False,
    observe: Observe | None = None,
    progress: Say | None = None,
) -> PredictionSummary:
    """Predict with models that are loaded already; ``names`` says what errors call them. See :func:`predict`."""
    from semialign.inference.sliding_window import predict_planes

    check_settings(models, names, overlap=overlap, mirror=mirror, batch=batch)
    plan = models[0].plan
    require_channel_order(inputs, models[0].channel_names)
    cases = find_cases(inputs, len(models[0].channel_names))
    check_outputs(cases, output)
    make_folder(Path(output))
    segment = partial(
        predict_planes,
        predict=window_function(models, mirror=mirror),
        patch=plan.patch_size,
        slice_axis=plan.slice_axis,
        overlap=overlap,
        batch=batch or (1 if models[0].device.type == "cpu" else 4),
    )
    one_piece = () if keep_all else plan.keep_largest
    there = [case for case in cases if not overwrite and _is_done(output_path(case, output), case, probabilities)]
    summary = PredictionSummary(skipped=[output_path(case, output) for case in there])
    done = {case.id for case in there}
    waiting = [case for case in cases if case.id not in done]
    say = progress or (lambda what, done, of: None)
    say("cases", len(there), len(cases))
    for number, (case, read) in enumerate(_read_ahead(waiting, plan), len(there) + 1):
        target = output_path(case, output)
        try:
            kept = probabilities_path(target, case) if probabilities else None
            _write(read, segment, target, kept, one_piece, observe, say)
            summary.done.append(target)
        except Exception as error:  # whatever ails this case, the others go on
            summary.failed[case.images[0]] = reason(case, error)
        say("cases", number, len(cases))
    return summary


def probabilities_path(target: Path, case: Case) -> Path:
    """Return where the probabilities that belong to the label file ``target`` are written."""
    return target.with_name(f"{case.id}_probabilities.npy")


def window_function(models: Sequence[Model], *, mirror: bool = False) -> Predict:
    """Return the function from windows to probabilities: the models' mean, over the plan's flips if ``mirror``."""
    import torch

    from semialign.inference.sliding_window import mirrored

    def mean(windows: Tensor) -> Tensor:
        with torch.inference_mode():
            total = models[0].probabilities(windows.to(models[0].device))
            for model in models[1:]:
                total = total + model.probabilities(windows.to(model.device)).to(total.device)
            return total / len(models) if len(models) > 1 else total

    return mirrored(mean, models[0].plan.mirror_axes) if mirror else mean


class _Read(NamedTuple):
    case: Case
    image: Tensor  # (C, *S) as the network sees it
    grid: Grid  # the input's own


def _read(case: Case, plan: Plan) -> _Read:
    import torch

    from semialign.data.geometry import to_network
    from semialign.data.preprocess import normalise

    image = read_case(case, len(plan.normalisation))
    return _Read(case, torch.from_numpy(normalise(to_network(image, plan), plan)), image.grid)


def _read_ahead(cases: Sequence[Case], plan: Plan) -> Iterator[tuple[Case, _Read | Exception]]:
    """Yield each case with its image, or what went wrong; the next is read while the present one is predicted."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_read, cases[0], plan) if cases else None
        for position, case in enumerate(cases):
            assert coming is not None
            result: _Read | Exception
            try:
                result = coming.result()
            except Exception as error:
                result = error
            coming = pool.submit(_read, cases[position + 1], plan) if position + 1 < len(cases) else None
            yield case, result


def _is_done(target: Path, case: Case, probabilities: bool) -> bool:
    return target.exists() and (not probabilities or probabilities_path(target, case).exists())


def _write(
    read: _Read | Exception,
    segment: Callable[[Tensor], Iterator[Planes]],
    target: Path,
    probabilities: Path | None,
    one_piece: Sequence[Sequence[int]],
    observe: Observe | None,
    say: Say,
) -> None:
    from semialign.inference.output import write_prediction

    if isinstance(read, Exception):
        raise read
    size, like = tuple(read.image.shape[1:]), read.case.images[0]
    planes = _watched(segment(read.image), size, say)
    write_prediction(
        planes,
        target,
        grid=read.grid,
        size=size,
        like=like,
        probabilities_path=probabilities,
        one_piece=one_piece,
        watch=observe(read.case, read.grid) if observe is not None else None,
    )


def _watched(planes: Iterator[Planes], size: tuple[int, ...], say: Say) -> Iterator[Planes]:
    for part in planes:
        yield part
        say("planes of this case", part.start + part.probabilities.shape[1 + part.axis], size[part.axis])


def reason(case: Case, error: Exception) -> str:
    """Return in one line, with the file, why ``case`` was not predicted."""
    text = " ".join(str(error).split())
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text:
        text = "not enough memory; use --batch 1, or a machine with more"
    path = str(case.images[0])
    return text if path in text or str(case.images[0].parent) in text else f"{path}: {text}"


def check_settings(
    models: Sequence[Model], names: Sequence[str], *, overlap: float, mirror: bool, batch: int | None
) -> None:
    """Raise :class:`UserError` for settings out of range, or models that cannot be averaged."""
    if not models:
        raise UserError("no model to predict with; name a run folder")
    if not 0 <= overlap <= 0.9:
        raise UserError(f"--overlap {overlap:g}: must lie between 0 and 0.9")
    if batch is not None and batch < 1:
        raise UserError(f"--batch {batch}: must be at least 1")
    if mirror and not models[0].plan.mirror_axes:
        raise UserError("--mirror: the model was trained without flips (classes differ by side); leave it out")
    names = list(names) or [f"model {i + 1}" for i in range(len(models))]
    for name, model in zip(names[1:], models[1:], strict=True):
        for what in ("class_names", "channel_names"):
            if list(getattr(model, what)) != list(getattr(models[0], what)):
                raise UserError(f"{name}: has other {what.replace('_', ' ')} than {names[0]}; they cannot be averaged")
        form = ("dimensions", "slice_axis", "spacing", "volume_size", "picture_size", "patch_size", "normalisation")
        for what in form:
            if getattr(model.plan, what) != getattr(models[0].plan, what):
                raise UserError(
                    f"{name}: its plan's {what} is not that of {names[0]}; train the runs of an ensemble on one "
                    "prepared folder"
                )
