"""Writing a published set in the layout: case after case, in a folder that takes its place only when it is whole."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import cannot_write, make_folder, written_whole
from semialign.data.dataset import Case, Dataset, check_label, read_case
from semialign.data.formats import NIFTI, PICTURES, ending_of
from semialign.data.grid import Image
from semialign.data.image_io import copy_file, read_label, write_label
from semialign.data.importers.base import FoundCase, LoadedCase, Published
from semialign.data.importers.near_copies import thumbnail


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that becomes ``target`` when the block ends without error.

    Otherwise it is removed, so that ``target`` is all there or not at all; what a killed run left is removed by the
    next. Raises :class:`UserError` unless ``target`` is free (missing or empty).
    """
    target = Path(os.path.abspath(target))
    require_free(target)
    make_folder(target.parent)
    temporary = target.with_name(f".importing-{os.getpid()}-{target.name}")
    _remove_leftovers(target)
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that had the same process number
    try:
        with _failing_as(target):
            temporary.mkdir()
        yield temporary
        require_free(target)
        with _failing_as(target):
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_free(target: Path) -> None:
    """Raise :class:`UserError` unless ``target`` is missing or an empty folder that can be replaced."""
    if target.is_symlink():
        raise UserError(f"{target}: a link; name the folder itself")
    if target.is_file():
        raise UserError(f"{target}: a file; name a folder that does not exist yet")
    if target.is_dir():
        if next(target.iterdir(), None) is not None:
            raise UserError(f"{target}: not empty; name a folder that does not exist yet, or remove this one")
        if os.path.ismount(target):
            raise UserError(f"{target}: a mount point; name a folder inside it, such as {target / 'dataset'}")


def write_cases(published: Published, folder: Path, *, workers: int, progress: bool) -> np.ndarray:
    """Write images and labels of all cases below ``folder``; returns their thumbnails (N, 64, 64) uint8.

    A case is checked as training would check it, so that a bad file ends the import with its name. At most ``workers``
    cases are in memory.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    labels = {name: value for name, value in published.labels.items() if name != "ignore"}
    ignore = published.labels.get("ignore")
    layout = Dataset(folder, published.name, published.channel_names, labels, ignore, {})
    # Threads: unpacking, packing and waiting for the disk all run outside Python's lock.
    with ThreadPoolExecutor(workers) as pool:
        try:
            done = pool.map(lambda case: _write_case(case, published, layout), published.cases)
            shown = track(
                done,
                description="importing",
                total=len(published.cases),
                disable=not (progress and console.is_terminal),
                console=console,
                transient=True,
            )
            return np.stack(list(shown))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_image(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an image (C, *S): a NIfTI volume (C = 1) in mm, or a grey or RGB picture; whole or not at all."""
    with written_whole(path) as temporary:
        if ending_of(path) in PICTURES:
            from PIL import Image as Pillow

            if array.dtype.kind == "f":
                array = np.rint(array).astype(np.uint8 if array.max() < 256 else np.uint16)
            Pillow.fromarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)).save(temporary)
            return
        if ending_of(path) not in NIFTI:
            raise UserError(f"{path}: images are written as NIfTI or pictures; convert the set's DICOM folders first")
        import nibabel

        # 64-bit voxels: many readers refuse them.
        volume = nibabel.Nifti1Image(array[0].astype(np.float32) if array.dtype.itemsize == 8 else array[0], affine)
        volume.header.set_xyzt_units("mm")
        nibabel.save(volume, temporary)


def _write_case(found: FoundCase, published: Published, layout: Dataset) -> np.ndarray:
    for ending in (published.image_ending, published.label_ending):
        if ending == ".mhd":  # copied alone, a header without its voxels
            raise UserError(f"{found.origin}: .mhd files keep their voxels in another; convert the set to .mha first")
    loaded = found.load()
    image = _joined(found, loaded, layout)
    for channel, part in enumerate(loaded.images):
        target = layout.root / "imagesTr" / f"{found.id}_{channel:04d}{published.image_ending}"
        if isinstance(part, Path) and ending_of(part) == published.image_ending:
            copy_file(part, target)
        else:
            array = image.array if len(loaded.images) == 1 else image.array[channel : channel + 1]
            write_image(target, array, image.grid.affine)
    _write_label(found, loaded.label, image, published, layout)
    return thumbnail(image)


def _joined(found: FoundCase, loaded: LoadedCase, layout: Dataset) -> Image:
    paths = tuple(part for part in loaded.images if isinstance(part, Path))
    if paths:
        return read_case(Case(found.id, paths, None), len(layout.channel_names))
    images = [part for part in loaded.images if isinstance(part, Image)]
    array = images[0].array if len(images) == 1 else np.concatenate([image.array for image in images])
    if len(array) != len(layout.channel_names):
        raise UserError(f"{found.origin}: {len(array)} channels where {len(layout.channel_names)} are named")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{found.origin}: image holds NaN or infinite values; replace them before use")
    return Image(array, images[0].grid, images[0].ending)


def _write_label(found: FoundCase, label: Any, image: Image, published: Published, layout: Dataset) -> None:
    if label is None:
        return
    origin = label if isinstance(label, Path) else found.origin
    values, grid = read_label(label) if isinstance(label, Path) else (label, image.grid)
    if values.shape != image.grid.shape:
        raise UserError(
            f"{origin}: label of size {values.shape} for an image of {image.grid.shape} ({found.origin.name})"
        )
    check_label(origin, values, grid, image.grid, layout)
    target = layout.root / "labelsTr" / f"{found.id}{published.label_ending}"
    if isinstance(label, Path) and ending_of(label) == published.label_ending:
        copy_file(label, target)
    else:
        write_label(target, values, image.grid)


@contextmanager
def _failing_as(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".importing-*-{target.name}"):
        match = re.fullmatch(r"\.importing-(\d+)-.*", path.name)
        if match and os.name == "posix" and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
