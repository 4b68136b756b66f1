"""AMOS22's folders with the owners' dataset.json."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from owners_data import amos22

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset
from semialign.data.splits import PARTS, published_splits, read_split_file

ORGANS = """spleen, right kidney, left kidney, gallbladder, oesophagus, liver, stomach, aorta, postcava, pancreas,
right adrenal gland, left adrenal gland, duodenum, bladder, prostate/uterus"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two training cases, one of them MRI, a validation case and a test case."""
    return amos22(tmp_path / "amos22", ["amos_0009", "amos_0514"], ["amos_0008"], ["amos_0002"])


def test_training_validation_and_test(tmp_path: Path, source: Path) -> None:
    done = import_dataset("amos", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (4, 3, 1)
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.name, dataset.channel_names) == ("AMOS22", ("CT",))
    assert dataset.class_names == ["background", *(" ".join(name.split()) for name in ORGANS.split(","))]
    assert list(dataset.cases) == ["amos_0002", "amos_0008", "amos_0009", "amos_0514"]
    assert [case for case in dataset.cases.values() if case.label is None] == [dataset.cases["amos_0002"]]
    for part, case in (("Tr", "amos_0514"), ("Va", "amos_0008")):
        for ours, theirs in ((f"imagesTr/{case}_0000", f"images{part}"), (f"labelsTr/{case}", f"labels{part}")):
            published = source / theirs / f"{case}.nii.gz"
            assert (tmp_path / "out" / f"{ours}.nii.gz").read_bytes() == published.read_bytes()
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["licence"] == "CC-BY-SA 4.0"
    for name in (n for n in published_splits() if n.startswith("amos")):
        assert "amos_0514" in {case for part in PARTS for case in read_split_file(Path(name))[part]}


def test_mri_is_told(tmp_path: Path, source: Path) -> None:
    done = import_dataset("amos", source, tmp_path / "out")
    assert any("1 case with ids above amos_0500 is MRI" in note for note in done.notes)
    only_ct = amos22(tmp_path / "ct", ["amos_0009", "amos_0500"])
    assert not any("MRI" in note for note in import_dataset("amos", only_ct, tmp_path / "out-ct").notes)


def test_test_images_can_be_left_out(tmp_path: Path, source: Path) -> None:
    assert import_dataset("amos", source, tmp_path / "out", test_images=False).cases == 3


def test_test_entries_may_be_plain_names(tmp_path: Path, source: Path) -> None:
    described = json.loads((source / "dataset.json").read_text())
    described["test"] = [entry["image"] for entry in described["test"]]
    (source / "dataset.json").write_text(json.dumps(described))
    assert import_dataset("amos", source, tmp_path / "out").cases == 4


def test_other_kinds_point_here_and_the_decathlons_still_reads_it(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="looks like amos: use `semialign import amos`"):
        import_dataset("busi", source, tmp_path / "out")
    assert import_dataset("msd", source, tmp_path / "out").cases == 4


def test_another_set_of_that_form_is_refused(tmp_path: Path, source: Path) -> None:
    described = json.loads((source / "dataset.json").read_text())
    del described["labels"]["15"]
    (source / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"dataset\.json: names 15 classes .* AMOS22 has 16"):
        import_dataset("amos", source, tmp_path / "out")
    for entry in (*described["training"], *described["validation"]):
        entry["image"] = entry["image"].replace("amos_", "word_")
    (source / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="not AMOS22"):
        import_dataset("amos", source, tmp_path / "out")


def test_a_label_value_beyond_the_fifteen(tmp_path: Path, source: Path) -> None:
    path = source / "labelsVa" / "amos_0008.nii.gz"
    published = nibabel.load(path)
    array = np.array(published.dataobj)
    array[0, 0, 0] = 16
    nibabel.save(nibabel.Nifti1Image(array, published.affine), path)
    with pytest.raises(UserError, match=r"labelsVa/amos_0008\.nii\.gz: label value 16"):
        import_dataset("amos", source, tmp_path / "out")
