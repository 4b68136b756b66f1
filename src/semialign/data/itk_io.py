"""NRRD, MHA and DICOM series, by SimpleITK."""

from pathlib import Path
from typing import Any

import numpy as np

from semialign.common.errors import UserError
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


def dicom_image(path: Path) -> Any:
    """Read the one DICOM series of a folder.

    Raises :class:`UserError` for none, for several, and for slices that do not lie evenly.
    """
    import SimpleITK

    series = dicom_series(path)
    if not series:
        raise UserError(f"{path}: a folder without a DICOM series; give an image file or a folder of one series")
    if len(series) > 1:
        raise UserError(f"{path}: holds {len(series)} DICOM series; put each in a folder of its own")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(next(iter(series.values())))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    _require_even_slices(path, [_slice_position(reader, i) for i in range(image.GetSize()[-1])])
    return image


def _slice_position(reader: Any, index: int) -> list[float] | None:
    tag = "0020|0032"  # Image Position (Patient)
    return [float(v) for v in reader.GetMetaData(index, tag).split("\\")] if reader.HasMetaDataKey(index, tag) else None


def _require_even_slices(path: Path, positions: list[list[float] | None]) -> None:
    # The reader only prints a warning and places every later slice wrongly.
    if len(positions) < 3 or None in positions:
        return
    steps = np.linalg.norm(np.diff(np.array(positions, float), axis=0), axis=1)
    if np.ptp(steps) > 0.1 * np.median(steps):
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
        itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.reshape(header.GetSize()).T))
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
