"""NRRD, MHA and DICOM series, by SimpleITK."""

from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
from semialign.common.files import visible_in
from semialign.data.formats import ITK, ending_of
from semialign.data.grid import Grid

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def dicom_series(folder: Path) -> dict[str, list[str]]:
    """Return the DICOM series in ``folder`` (not below it): series id to its files, in order of position."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it would print about series is an error here
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return {name: list(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name)) for name in names}


def itk_header(path: Path) -> Any:
    """Return a SimpleITK reader that has read the header of a file, and no voxel."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def dicom_image(path: Path) -> tuple[Any, np.ndarray]:
    """Read the one DICOM series of a folder; returns the image and its index-to-RAS affine (4, 4), mm.

    Raises :class:`UserError` for none, for several, for files that are damaged, and for slices that do not lie evenly.
    """
    import SimpleITK

    series = dicom_series(path)
    if not series:
        raise UserError(f"{path}: a folder without a DICOM series; give an image file or a folder of one series")
    if len(series) > 1:
        raise UserError(f"{path}: holds {len(series)} DICOM series; put each in a folder of its own")
    reader = SimpleITK.ImageSeriesReader()
    _require_whole_files(path, next(iter(series.values())))
    reader.SetFileNames(next(iter(series.values())))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    positions = [_slice_position(reader, i) for i in range(image.GetSize()[-1])]
    _require_even_slices(path, positions)
    return image, _sheared(itk_affine(image), positions)


def _require_whole_files(folder: Path, series: list[str]) -> None:
    # The list of a series leaves out, without a word, what cannot be read: an end of the scan would be missing.
    known = {Path(name).name for name in series}
    for path in visible_in(folder):
        if path.is_dir() or path.name in known or path.name == "DICOMDIR":
            continue
        with open(path, "rb") as handle:
            start = handle.read(132)
        if path.suffix.lower() == ".dcm" or start[128:] == b"DICM" or not start:
            raise UserError(f"{path}: empty, damaged, or of no series; copy the series again, or move the file")


def _sheared(affine: np.ndarray, positions: list[list[float] | None]) -> np.ndarray:
    """Return ``affine`` with its third axis from slice to slice: with a tilted gantry that is not their normal."""
    if len(positions) < 2 or None in positions:
        return affine
    first, last = (np.array(positions[i], float) for i in (0, -1))
    step = _LPS_TO_RAS[:3, :3] @ ((last - first) / (len(positions) - 1))
    if np.abs(step - affine[:3, 2]).max() < 1e-3 * np.linalg.norm(step):
        return affine
    sheared = affine.copy()
    sheared[:3, 2] = step
    return sheared


def _slice_position(reader: Any, index: int) -> list[float] | None:
    tag = "0020|0032"  # Image Position (Patient)
    return [float(v) for v in reader.GetMetaData(index, tag).split("\\")] if reader.HasMetaDataKey(index, tag) else None


def _require_even_slices(path: Path, positions: list[list[float] | None]) -> None:
    # The reader only prints a warning and places every later slice wrongly.
    if len(positions) < 3 or None in positions:
        return
    between = np.diff(np.array(positions, float), axis=0)
    steps = np.linalg.norm(between, axis=1)
    astray = np.linalg.norm(between - np.median(between, axis=0), axis=1)
    if max(np.ptp(steps), astray.max()) > 0.1 * np.median(steps):
        raise UserError(
            f"{path}: DICOM slices lie {steps.min():g} to {steps.max():g} mm apart; complete the series, or keep one "
            "acquisition of it in the folder"
        )


def itk_affine(itk: Any) -> np.ndarray:
    """Return the index-to-RAS affine (4, 4), mm, of a SimpleITK image or reader, which count in LPS."""
    size = itk.GetDimension()
    placed, kept = np.eye(4), min(size, 3)  # a fourth axis is of length one here
    direction = np.reshape(itk.GetDirection(), (size, size)) * np.asarray(itk.GetSpacing())
    placed[:kept, :kept] = direction[:kept, :kept]
    placed[:kept, 3] = itk.GetOrigin()[:kept]
    return np.asarray(_LPS_TO_RAS @ placed)


def write_itk(path: Path, label: np.ndarray, grid: Grid, like: Path | None) -> None:
    """Write labels (*S) as NRRD or MHA, placed as the file ``like`` where that is one of ITK's, else by ``grid``."""
    import SimpleITK

    if like is not None and ending_of(like) in ITK:
        header = itk_header(like)
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.reshape(header.GetSize()).T), isVector=False)
        itk.SetOrigin(header.GetOrigin())
        itk.SetSpacing(header.GetSpacing())
        itk.SetDirection(header.GetDirection())
    else:
        lps = _LPS_TO_RAS @ grid.affine
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.T))
        itk.SetOrigin([float(v) for v in lps[:3, 3]])
        itk.SetSpacing([float(v) for v in grid.spacing])
        itk.SetDirection((lps[:3, :3] / np.asarray(grid.spacing)).ravel().tolist())
    SimpleITK.WriteImage(itk, str(path), useCompression=True)
