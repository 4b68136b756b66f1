"""Which cases a list of files and folders holds."""

import json
from pathlib import Path

import pytest
from PIL import Image

from semialign.common.errors import UserError
from semialign.data.dataset import Case
from semialign.inference.inputs import check_outputs, find_cases, output_path, require_channel_order


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


def grouped(inputs: list[Path], channels: int = 1) -> dict[str, list[str]]:
    return {case.id: [p.name for p in case.images] for case in find_cases(inputs, channels)}


def test_channel_numbers_of_one_channel(tmp_path: Path) -> None:
    touch(tmp_path / "all", "b_0000.nii.gz", "a_0000_0000.nii.gz")
    assert grouped([tmp_path / "all"]) == {"a_0000": ["a_0000_0000.nii.gz"], "b": ["b_0000.nii.gz"]}
    # Frames are numbered too: where there is a _0001, numbers belong to the names.
    touch(tmp_path / "frames", "film_0000.png", "film_0001.png")
    assert list(grouped([tmp_path / "frames"])) == ["film_0000", "film_0001"]
    # A case keeps its name whatever else is given.
    mixed = touch(tmp_path / "mixed", "x_0000.nii", "y.nii", "z_0007.nii")
    assert list(grouped(mixed)) == ["x", "y", "z_0007"]
    assert list(grouped(mixed[:1])) == ["x"]
    assert list(grouped([tmp_path / "frames" / "film_0000.png"])) == ["film_0000"]


def test_several_channels(tmp_path: Path) -> None:
    files = touch(tmp_path, "a_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "b_0001.nii.gz")
    expected = {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_0000.nii.gz", "b_0001.nii.gz"]}
    assert grouped([tmp_path], 2) == expected
    assert grouped(files, 2) == expected
    files[0].unlink()
    with pytest.raises(UserError, match="a_0001: missing or too many; the model takes 2 channels"):
        find_cases([tmp_path], 2)
    with pytest.raises(UserError, match="c_0001: missing"):
        find_cases(touch(tmp_path / "other", "c_0000.nii.gz"), 2)
    touch(tmp_path, "a_0002.nii.gz")
    with pytest.raises(UserError, match="a_0001: missing"):
        find_cases([tmp_path], 2)


def test_a_file_without_a_channel_number_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "p1_0000.nii.gz", "p1_0001.nii.gz", "extra.nii.gz")
    with pytest.raises(UserError, match=r"extra\.nii\.gz: no channel number, unlike files beside it"):
        find_cases([tmp_path], 2)


def test_rgb_pictures_hold_their_channels(tmp_path: Path) -> None:
    touch(tmp_path / "set", "a_0000.png", "b_0000.png")
    assert list(grouped([tmp_path / "set"], 3)) == ["a", "b"]
    touch(tmp_path / "frames", "film_0007.png", "film_0008.png")
    assert list(grouped([tmp_path / "frames"], 3)) == ["film_0007", "film_0008"]
    touch(tmp_path / "apart", "a_0000.png", "a_0001.png", "a_0002.png")
    assert list(grouped([tmp_path / "apart"], 3)) == ["a"]
    assert list(grouped(touch(tmp_path, "polyp.jpg"), 3)) == ["polyp"]


def test_a_data_set_folder_and_what_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "dataset.json")
    touch(tmp_path / "labelsTr", "a.nii.gz")
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "notes.txt", ".hidden_0000.nii.gz", "c_0000.raw")
    assert list(grouped([tmp_path])) == ["a"]


def test_dicom_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("patient1", "patient2_0000"):
        for path in touch(tmp_path / name, "IM1", "IM2", ".DS_Store"):
            path.write_bytes(bytes(128) + b"DICM")
    touch(tmp_path / "docs", "readme")
    assert grouped([tmp_path]) == {"patient1": ["patient1"], "patient2": ["patient2_0000"]}
    monkeypatch.setattr(
        "semialign.inference.inputs.dicom_series", lambda folder: {"1": []} if "1" in str(folder) else {}
    )
    assert grouped([tmp_path / "patient1"]) == {"patient1": ["patient1"]}
    monkeypatch.chdir(tmp_path / "patient1")
    assert [case.id for case in find_cases([Path(".")], 1)] == ["patient1"]
    case = find_cases([tmp_path / "patient1"], 1)[0]
    assert output_path(case, Path("out")) == Path("out/patient1.nii.gz")


def test_channels_named_outright_as_dicom_folders_are_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semialign.inference.inputs.dicom_series", lambda folder: {"1": []})
    folders = [tmp_path / "p_0000", tmp_path / "p_0001"]
    for folder in folders:
        touch(folder, "IM1")
    assert grouped(folders, 2) == {"p": ["p_0000", "p_0001"]}
    assert grouped([folders[1]], 1) == {"p_0001": ["p_0001"]}


def test_a_case_is_taken_as_it_is(tmp_path: Path) -> None:
    # A preview beside the slices would be taken for the image if the folder were searched again.
    touch(tmp_path / "p_0000", "IM1", "preview.jpg")
    case = Case("p", (tmp_path / "p_0000",), tmp_path / "p.nii.gz")
    assert find_cases([case], 1) == [case]
    assert output_path(case, Path("out")) == Path("out/p.nii.gz")


def test_channels_in_another_order_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    touch(data / "imagesTr", "a_0000.nii.gz", "a_0001.nii.gz")
    about = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": {"background": 0, "lesion": 1}}
    (data / "dataset.json").write_text(json.dumps(about))
    require_channel_order([data, *touch(tmp_path, "b_0000.nii.gz")], ("FLAIR", "T1"))
    require_channel_order([data], ("PD", "T2"))  # other names may mean the same
    with pytest.raises(UserError, match=r"dataset\.json: its channels are FLAIR, T1, the model's T1, FLAIR"):
        require_channel_order([data], ("T1", "FLAIR"))


def test_coloured_frames_are_not_taken_for_channels(tmp_path: Path) -> None:
    for name in ("v_0000.png", "v_0001.png", "v_0002.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert list(grouped([tmp_path], 3)) == ["v_0000", "v_0001", "v_0002"]
    for path in tmp_path.iterdir():
        Image.new("L", (4, 4)).save(path)
    assert list(grouped([tmp_path], 3)) == ["v"]


def test_nothing_to_predict(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_cases([tmp_path / "empty"], 1)
    with pytest.raises(UserError, match="no such file"):
        find_cases([tmp_path / "gone.nii.gz"], 1)
    with pytest.raises(UserError, match="nothing to predict"):
        find_cases([], 1)
    assert list(grouped(touch(tmp_path, "a.xyz"))) == ["a.xyz"]  # named outright: the reader will say what is wrong


def test_outputs_must_not_collide(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one", "a.nii.gz"), touch(tmp_path / "two", "a.nii.gz")
    with pytest.raises(UserError, match="the same name"):
        check_outputs(find_cases([*one, *two], 1), tmp_path / "out")
    # Another format would be another file, but a case is looked for by its name.
    with pytest.raises(UserError, match="the same name"):
        check_outputs(find_cases([*one, *touch(tmp_path / "two", "a.mha")], 1), tmp_path / "out")
    numbered = [*touch(tmp_path / "one", "b_0000.nii.gz"), *touch(tmp_path / "two", "b_0000.nii.gz")]
    with pytest.raises(UserError, match="the same name"):
        check_outputs(find_cases(numbered, 1), tmp_path / "out")
    with pytest.raises(UserError, match="the same name"):
        check_outputs(find_cases([numbered[0], *touch(tmp_path / "one", "b.nii.gz")], 1), tmp_path / "out")
    with pytest.raises(UserError, match="the same channel"):
        find_cases([*numbered, *touch(tmp_path / "two", "b_0000.mha")], 2)
    with pytest.raises(UserError, match="is an input"):
        check_outputs(find_cases(one, 1), tmp_path / "two" / ".." / "one")
    check_outputs(find_cases(one, 1), tmp_path / "two")
