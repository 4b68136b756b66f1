"""BTCV's folders, as unpacked and as people rearrange them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from owners_data import btcv, save

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.importers import import_dataset
from semialign.data.splits import PARTS, published_splits, read_split_file

# As the owners number them.
ORGANS = """spleen, right kidney, left kidney, gallbladder, oesophagus, liver, stomach, aorta, inferior vena cava,
portal and splenic vein, pancreas, right adrenal gland, left adrenal gland"""


def test_unpacked_folders(tmp_path: Path) -> None:
    source = btcv(tmp_path / "Abdomen", ["0001", "0021"], ["0061"])
    done = import_dataset("synapse", source, tmp_path / "out")
    assert (done.cases, done.labelled, done.unlabelled) == (3, 2, 1)
    assert any("1 image without label taken as unlabelled" in note for note in done.notes)
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.name, dataset.channel_names) == ("Synapse", ("CT",))
    assert dataset.class_names == ["background", *(" ".join(name.split()) for name in ORGANS.split(","))]
    assert list(dataset.cases) == ["0001", "0021", "0061"]
    assert dataset.cases["0061"].label is None
    for ours, theirs in (("imagesTr/0021_0000", "img/img0021"), ("labelsTr/0021", "label/label0021")):
        copy, published = tmp_path / "out" / f"{ours}.nii.gz", source / "RawData" / "Training" / f"{theirs}.nii.gz"
        assert copy.read_bytes() == published.read_bytes()  # uncropped, on the owners' grid


def test_ids_are_those_of_the_published_splits(tmp_path: Path) -> None:
    import_dataset("synapse", btcv(tmp_path / "in", ["0002"]), tmp_path / "out")
    (case,) = load_dataset(tmp_path / "out").cases
    for name in (n for n in published_splits() if n.startswith("synapse")):
        assert case in {c for part in PARTS for c in read_split_file(Path(name))[part]}


@pytest.mark.parametrize("inner", ["", "RawData", "RawData/Training", "flat"])
def test_any_folder_of_it_will_do(tmp_path: Path, inner: str) -> None:
    source = btcv(tmp_path / "in", ["0001", "0002"], flat=inner == "flat")
    (source / "._img0001.nii.gz").write_bytes(b"\0\5\26\7")  # macOS leaves these
    (source / "img0001-0002.nii.gz").write_bytes(b"registered to another, as the owners' RegData is")
    done = import_dataset("synapse", source / inner if inner != "flat" else source, tmp_path / "out")
    assert (done.cases, done.labelled) == (2, 2)


def test_images_without_label_can_be_left_out(tmp_path: Path) -> None:
    done = import_dataset("synapse", btcv(tmp_path / "in", ["0001"], ["0061"]), tmp_path / "out", test_images=False)
    assert (done.cases, done.unlabelled) == (1, 0)
    assert any("1 image without label left out" in note for note in done.notes)


def test_a_label_without_image_and_a_doubled_file(tmp_path: Path) -> None:
    source = btcv(tmp_path / "in", ["0001", "0002"])
    image = source / "RawData" / "Training" / "img" / "img0002.nii.gz"
    (source / "copy").mkdir()
    (source / "copy" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(UserError, match=r"img0002\.nii\.gz: .*has the same name"):
        import_dataset("synapse", source, tmp_path / "out")
    (source / "copy" / image.name).unlink()
    image.unlink()
    with pytest.raises(UserError, match=r"label0002\.nii\.gz: a label without image; add img0002"):
        import_dataset("synapse", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_of_another_set(tmp_path: Path) -> None:
    source = btcv(tmp_path / "in", ["0001"])
    path = source / "RawData" / "Training" / "label" / "label0001.nii.gz"
    published = nibabel.load(path)
    save(path, np.where(np.asarray(published.dataobj), 14, 0).astype(np.uint8), published.affine)
    with pytest.raises(UserError, match=r"label0001\.nii\.gz: label value 14 is not in dataset\.json"):
        import_dataset("synapse", source, tmp_path / "out")
