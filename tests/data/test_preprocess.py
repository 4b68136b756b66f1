"""Normalising and placing: one body, however it was stored, looks the same to the network."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from raw_data import describe, organ, pictures, save_picture, save_volume
from scipy import ndimage

from semialign.common.errors import UserError
from semialign.data.dataset import load_dataset
from semialign.data.plan import Normalisation, Plan
from semialign.data.preprocess import normalise, preprocess_image, preprocess_label


def plan(*normalisation: Normalisation, dimensions: int = 3, **more: object) -> Plan:
    """A plan of which preprocessing reads the geometry and the normalisation."""
    values = {"spacing": (1.0, 1.0, 1.0) if dimensions == 3 else None, "picture_size": None} | more
    return Plan(
        dimensions=dimensions,
        normalisation=normalisation or (Normalisation("z-score"),),
        patch_size=(16,) * dimensions,
        widths=(8,),
        strides=((1,) * dimensions,),
        kernels=((3,) * dimensions,),
        mirror_axes=(),
        batch_labelled=2,
        batch_unlabelled=2,
        made_for="test",
        **values,  # type: ignore[arg-type]
    )


def body(spacing: tuple[float, ...], axes: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One smooth body of 40 x 32 x 24 mm sampled at ``spacing``, stored along ``axes``: image, label, affine."""
    shape = [round(length / s) for length, s in zip((40, 32, 24), spacing, strict=True)]
    at = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"))
    distance = np.sqrt((((at.T - (15, 12, 10)) / (9, 7, 6)) ** 2).sum(-1)).T
    image = (100 * np.exp(-(distance**2)) + at[0]).astype(np.float32)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.array(spacing) / 2
    stored = nibabel.Nifti1Image(image, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    stored = stored.as_reoriented(turn)
    label = nibabel.Nifti1Image((distance < 1).astype(np.uint8), affine).as_reoriented(turn)
    return np.asarray(stored.dataobj), np.asarray(label.dataobj), stored.affine


def test_mixed_spacings_and_orientations_come_out_alike(tmp_path: Path) -> None:
    describe(tmp_path)
    forms = [((1.0, 1.0, 1.0), "RAS"), ((1.0, 1.0, 1.0), "LPI"), ((0.8, 1.0, 1.5), "SAR"), ((2.0, 1.6, 1.0), "PIL")]
    for i, (spacing, axes) in enumerate(forms):
        image, label, affine = body(spacing, axes)
        save_volume(tmp_path / "imagesTr" / f"{i}_0000.nii.gz", image, affine=affine)
        save_volume(tmp_path / "labelsTr" / f"{i}.nii.gz", label, affine=affine)
    dataset, how = load_dataset(tmp_path), plan()
    images = [preprocess_image(c, how)[0] for c in dataset.cases.values()]
    labels = [preprocess_label(c, how, dataset) for c in dataset.cases.values()]
    for image, label in zip(images, labels, strict=True):
        assert image.shape == label.shape == (40, 32, 24)
        assert image.dtype == np.float32
        assert label.dtype == np.int16
        assert np.corrcoef(image.ravel(), images[0].ravel())[0, 1] > 0.995
        dice = 2 * (label & labels[0]).sum() / (label.sum() + labels[0].sum())
        assert dice > 0.93
    np.testing.assert_array_equal(images[1], images[0])  # turned, not resampled
    np.testing.assert_array_equal(labels[1], labels[0])


def test_z_score_is_the_cases_own() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-4, 1.0, 1e5):
        found = normalise((rng.normal(7, 1, (1, 30, 30, 30)) * scale).astype(np.float32), plan())
        assert found.mean() == pytest.approx(0, abs=1e-3)
        assert found.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scheme", ["z-score", "picture"])
@pytest.mark.parametrize("outlier", [1e4, -1e6])
def test_an_outlier_does_not_destroy_the_rest(scheme: str, outlier: float) -> None:
    usual = np.random.default_rng(0).normal(50, 10, (1, 30, 30, 30)).astype(np.float32)
    hot = usual.copy()
    hot[0, 3, 3, 3] = outlier
    how = plan(Normalisation("z-score") if scheme == "z-score" else Normalisation("picture", -20.0, 120.0, 50.0, 10.0))
    clean, dirty = normalise(usual, how), normalise(hot, how)
    assert abs(dirty[0, 3, 3, 3]) < 10
    dirty[0, 3, 3, 3] = clean[0, 3, 3, 3]
    np.testing.assert_allclose(dirty, clean, atol=0.1)


@pytest.mark.parametrize("shape", [(1000, 1000, 3), (1024, 1024, 3), (3, 1000, 1000), (1000, 3, 1000)])
def test_large_volumes_are_seen_through_all_slices(shape: tuple[int, ...]) -> None:
    # The middle slice of the short axis alone holds anything; a step of 3 would see the first ones only.
    image = np.zeros((1, *shape), np.float32)
    middle = tuple(slice(1, 2) if n == 3 else slice(None) for n in shape)
    image[0][middle] = np.random.default_rng(0).normal(100, 10, image[0][middle].shape)
    found = normalise(image, plan())
    assert found[0][middle].min() > found.min() + 1
    assert found.std() == pytest.approx(1, abs=1e-3)


def test_a_constant_channel_becomes_zero() -> None:
    for value in (0.0, 0.1, 1e6 + 0.3):
        assert (normalise(np.full((1, 5, 5, 5), value, np.float32), plan()) == 0).all()


def test_ct_has_a_fixed_window() -> None:
    array = np.array([-2000.0, -100, 40, 300, 9000], np.float32).reshape(1, 5, 1, 1)
    found = normalise(array, plan(Normalisation("ct", -100.0, 300.0, 40.0, 20.0)))
    np.testing.assert_allclose(found.ravel(), [-7, -7, 0, 13, 13])


def test_channels_are_normalised_each_by_its_own() -> None:
    array = np.stack([np.full((4, 4), 30.0), np.full((4, 4), 8.0)]).astype(np.float32)
    how = plan(Normalisation("picture", mean=10.0, std=5.0), Normalisation("picture", mean=0.0, std=4.0), dimensions=2)
    np.testing.assert_array_equal(normalise(array, how)[:, 0, 0], [4, 2])
    with pytest.raises(UserError, match="1 channels where the plan has 2"):
        normalise(array[:1], how)


@pytest.mark.parametrize(("ignore", "kind"), [(2, np.uint8), (255, np.uint8), (65535, np.uint16), (33000, np.int32)])
def test_the_ignore_value_becomes_minus_one(tmp_path: Path, ignore: int, kind: type) -> None:
    image, label = organ()
    label = label.astype(kind)
    label[:4] = ignore
    describe(tmp_path, {"background": 0, "organ": 1, "ignore": ignore})
    save_volume(tmp_path / "imagesTr" / "a_0000.nii.gz", image)
    save_volume(tmp_path / "labelsTr" / "a.nii.gz", label)
    dataset = load_dataset(tmp_path)
    found = preprocess_label(dataset.cases["a"], plan(), dataset)
    assert (found[:4] == -1).all()
    np.testing.assert_array_equal(found[4:], label[4:])
    coarse = preprocess_label(dataset.cases["a"], plan(spacing=(2.0, 2.0, 2.0)), dataset)
    assert (coarse[:2] == -1).all()
    assert set(np.unique(coarse)) == {-1, 0, 1}


def test_the_raw_image_is_not_changed(tmp_path: Path) -> None:
    root = pictures(tmp_path)
    dataset = load_dataset(root)
    how = plan(*[Normalisation("picture", mean=9.0, std=3.0)] * 3, dimensions=2)
    first, second = (preprocess_image(dataset.cases["a"], how) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_pictures_are_brought_to_one_size(tmp_path: Path) -> None:
    describe(tmp_path)
    image, label = organ((40, 60))
    grey = np.clip(image + 60, 0, 255).astype(np.uint8)
    for i, zoom in enumerate((1, 2)):
        save_picture(
            tmp_path / "imagesTr" / f"{i}_0000.png", ndimage.zoom(grey, zoom, order=1, grid_mode=True, mode="nearest")
        )
        save_picture(tmp_path / "labelsTr" / f"{i}.png", np.kron(label, np.ones((zoom, zoom), np.uint8)))
    dataset, how = load_dataset(tmp_path), plan(dimensions=2, picture_size=(40, 60))
    small, large = (preprocess_image(c, how) for c in dataset.cases.values())
    assert small.shape == large.shape == (1, 40, 60)
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.95
    of_small, of_large = (preprocess_label(c, how, dataset) for c in dataset.cases.values())
    np.testing.assert_array_equal(of_small, of_large)


def test_a_label_on_another_grid_is_refused(tmp_path: Path) -> None:
    image, label = organ()
    describe(tmp_path)
    save_volume(tmp_path / "imagesTr" / "a_0000.nii.gz", image)
    save_volume(tmp_path / "labelsTr" / "a.nii.gz", label, spacing=(1, 1, 3))
    dataset = load_dataset(tmp_path)
    with pytest.raises(UserError, match=r"a.nii.gz: label has spacing 1 x 1 x 3 mm instead of 1 x 1 x 1 mm"):
        preprocess_label(dataset.cases["a"], plan(), dataset)
