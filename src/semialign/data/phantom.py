"""The phantom data sets: synthetic CT volumes or lesion pictures in the project's layout, with a split.

They need no download, so the demo, the tests and first experiments run on them. They are made hard enough that a few
labels do not suffice: build, pose, contrast phase, noise and look-alikes differ from case to case.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.common.files import cannot_write, make_folder, write_json, written_whole
from semialign.data.dataset import Case, Dataset
from semialign.data.grid import Grid
from semialign.data.image_io import write_label
from semialign.data.phantom_organs import ORGANS, organ_names
from semialign.data.splits import Split, make_split, write_split

Say = Callable[[str, int, int], None]
DEFAULT_SIZE = {3: (96, 96, 48), 2: (128, 128)}
SMALLEST = 16
_CHANNELS = {3: ("CT",), 2: ("R", "G", "B")}
_ENDING = {3: ".nii.gz", 2: ".png"}


def phantom(
    out: Path,
    *,
    cases: int,
    labelled: int,
    validation: int = 0,
    test: int = 0,
    dimensions: int = 3,
    size: Sequence[int] | None = None,
    organs: int = 13,
    seed: int = 0,
    hide_labels: bool = False,
    workers: int | None = None,
    progress: Say | None = None,
) -> Path:
    """Write a synthetic data set with a ``split.json`` to the folder ``out``, which must be new or empty; returns it.

    ``dimensions`` 3: abdominal CT volumes with ``organs`` of Synapse's 13 organs; 2: RGB pictures with one lesion.
    ``size``: voxels along x (right-left), y (back-front) and z (default 96 96 48), or a picture's rows and columns
    (default 128 128); the field of view stays, so it sets the resolution. Every case gets a label file, so that the
    ceiling can be measured; ``hide_labels`` leaves those of the unlabelled cases out. A case depends on ``seed`` and
    its number alone, whatever ``cases`` and ``workers`` (threads; default: one a core, at most 8) are. ``progress`` is
    called with (what, done, of). Raises :class:`UserError` for numbers that do not fit and for a
    folder that holds files.
    """
    out = Path(out)
    size = _checked_size(dimensions, size)
    _check(out, cases, labelled, validation, test, dimensions, organs, workers)
    plan = _plan(out, cases, dimensions, organs)
    split = make_split(plan, labelled=labelled, validation=validation, test=test, seed=seed)
    command = f"semialign phantom --cases {cases} --labelled {labelled} --validation {validation} --test {test}"
    command += f" --size {' '.join(map(str, size))} --seed {seed}"
    split = replace(split, protocol=f"{command} --organs {organs}" if dimensions == 3 else f"{command} --dimensions 2")
    hidden = set(split.unlabelled) if hide_labels else set()
    new = not out.exists()
    write = partial(_write_volume, organs=organs) if dimensions == 3 else _write_picture
    jobs = [
        partial(write, case, index=index, seed=seed, size=size, with_label=case.id not in hidden)
        for index, case in enumerate(plan.cases.values())
    ]
    try:
        make_folder(out / "imagesTr")
        make_folder(out / "labelsTr")
        _run(jobs, workers or min(os.cpu_count() or 1, 8), progress)
        # Last, so that a folder with dataset.json is a complete data set.
        _describe(plan, split, dimensions)
    except BaseException:  # a full disk, Ctrl-C: the same command works again
        for made in ("imagesTr", "labelsTr"):
            shutil.rmtree(out / made, ignore_errors=True)
        if new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise
    return out


def _checked_size(dimensions: int, size: Sequence[int] | None) -> tuple[int, ...]:
    if dimensions not in DEFAULT_SIZE:
        raise UserError(f"--dimensions {dimensions}: must be 3 (CT volumes) or 2 (pictures)")
    size = tuple(size) if size is not None else DEFAULT_SIZE[dimensions]
    shown = " ".join(map(str, size))
    if len(size) != dimensions:
        raise UserError(f"--size {shown}: {len(size)} numbers, but {dimensions} are wanted for {dimensions}D")
    if min(size) < SMALLEST:
        raise UserError(f"--size {shown}: too small to hold the organs; each number must be at least {SMALLEST}")
    return size


def _check(
    out: Path, cases: int, labelled: int, validation: int, test: int, dimensions: int, organs: int, workers: int | None
) -> None:
    if cases < 1 or labelled < 1:
        raise UserError(f"--cases {cases} --labelled {labelled}: at least one case, and one labelled, is needed")
    if min(validation, test) < 0:
        raise UserError(f"--validation {validation} --test {test}: may not be negative")
    if labelled + validation + test > cases:
        asked = f"{labelled} labelled + {validation} validation + {test} test"
        raise UserError(f"--cases {cases}: fewer than the {asked} asked for; raise --cases or ask for fewer")
    if not 1 <= organs <= len(ORGANS):
        raise UserError(f"--organs {organs}: must be 1 to {len(ORGANS)}")
    if dimensions == 2 and organs != len(ORGANS):
        raise UserError("--organs: pictures show a lesion, no organs; leave it out or use --dimensions 3")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    if out.is_file():
        raise UserError(f"{out}: a file stands where the data set's folder should be; give another folder")
    try:
        used = out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise cannot_write(out, error) from error
    if used:
        raise UserError(f"{out}: the folder holds files already; empty it or give another folder")


def _plan(out: Path, cases: int, dimensions: int, organs: int) -> Dataset:
    names = organ_names(organs) if dimensions == 3 else ("lesion",)
    ids, ending = [f"phantom-{i:03d}" for i in range(cases)], _ENDING[dimensions]
    files = {i: (out / "imagesTr" / f"{i}_0000{ending}", out / "labelsTr" / f"{i}{ending}") for i in ids}
    return Dataset(
        out,
        f"phantom-{dimensions}d",
        _CHANNELS[dimensions],
        {name: value for value, name in enumerate(("background", *names))},
        None,
        {i: Case(i, (image,), label) for i, (image, label) in files.items()},
    )


def _describe(plan: Dataset, split: Split, dimensions: int) -> None:
    write_split(plan.root / "split.json", split)
    value = {
        "name": plan.name,
        "description": f"synthetic; {split.protocol}",
        "channel_names": {str(i): name for i, name in enumerate(plan.channel_names)},
        "labels": plan.labels,
        "numTraining": len(plan.cases),
        "file_ending": _ENDING[dimensions],
    }
    write_json(plan.root / "dataset.json", value)


def _run(jobs: Sequence[Callable[[], None]], workers: int, progress: Say | None) -> None:
    # Threads, since numpy frees the interpreter for most of the work and a script needs no __main__ guard for them.
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                if progress:
                    progress("making cases", done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_volume(case: Case, *, index: int, seed: int, size: Any, with_label: bool, organs: int) -> None:
    import nibabel
    import numpy as np

    from semialign.data.phantom_volume import scan

    made = scan(seed, index, size)
    with written_whole(case.images[0]) as temporary:
        image = nibabel.Nifti1Image(made.image, made.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, temporary)
    if with_label and case.label:
        kept = organ_names(organs)
        numbers = np.array([0, *(kept.index(o) + 1 if o in kept else 0 for o in ORGANS)], np.uint8)
        write_label(case.label, numbers[made.label], Grid(made.label.shape, made.affine), like=case.images[0])


def _write_picture(case: Case, *, index: int, seed: int, size: Any, with_label: bool) -> None:
    import numpy as np
    from PIL import Image

    from semialign.data.phantom_pictures import picture

    image, label = picture(seed, index, size)
    with written_whole(case.images[0]) as temporary:
        Image.fromarray(image).save(temporary)
    if with_label and case.label:
        write_label(case.label, label, Grid(label.shape, np.eye(4), picture=True))
