"""Endings of file names."""

from pathlib import Path

from semialign.data.formats import output_ending, stem_of


def test_names() -> None:
    assert stem_of(Path("x/case.1_0000.NII.GZ")) == "case.1_0000"
    assert stem_of(Path("x/notes.txt")) == "notes.txt"
    assert [output_ending(e) for e in ("dicom", ".jpg", ".bmp", ".tif", ".nrrd", ".mhd")] == [
        ".nii.gz",
        ".png",
        ".png",
        ".tif",
        ".nrrd",
        ".mha",
    ]
