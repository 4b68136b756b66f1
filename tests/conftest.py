"""Shared fixtures: two tiny data sets of blobs, prepared once, and tiny trainings on them, each made once.

Nothing here comes from the package's own phantoms, so that a fault there cannot hide one here.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings

# A shared machine may stall for a second at any moment: no test has a deadline. The same examples every time.
settings.register_profile("semialign", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("semialign")

# Before torch is imported: the tests' networks are so small that threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LABELLED, UNLABELLED, VALIDATION = ("a", "b"), ("c", "d", "e"), ("g", "h")
CLASSES = {2: ["background", "spot"], 3: ["background", "ball", "hole"]}

WAITING = ("mean-teacher", "cps", "ga-cps")
# In a few steps nothing is learnt, and unlabelled patches would never be looked at.
AT_ONCE = {"learnt": None, "start": 0.3}


class Tiny(NamedTuple):
    """A tiny prepared data set: ``raw`` as a user has it, ``split`` its split file, ``folder`` the prepared one."""

    dims: int
    raw: Path
    split: Path
    folder: Path
    prepared: Any


class Case(NamedTuple):
    """One cell of the matrix of methods: plug-in ``None`` for the bare method."""

    method: str
    plugin: str | None
    dims: int

    def __str__(self) -> str:
        return f"{self.method}{'+' + self.plugin if self.plugin else ''}-{self.dims}d"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--all``."""
    parser.addoption("--all", action="store_true", help="also run the tests marked full: the whole matrix")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked full unless ``--all`` is given."""
    if config.getoption("--all"):
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="part of the large matrix; run with --all"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise every test that takes ``case`` over methods, plug-ins and dimensions."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(_matrix()), ids=str)


def _matrix() -> Iterator[Any]:
    """Yield the matrix; the everyday run has every method in 2D or 3D by turns, and every plug-in on one method."""
    from semialign.methods import METHODS
    from semialign.methods.base import method_class
    from semialign.plugins import PLUGINS

    for number, method in enumerate(METHODS):
        kind = method_class(method)
        for plugin in (None, *(PLUGINS if kind.takes_plugins else ())):
            for dims in kind.dimensions:
                turn = kind.dimensions[number % len(kind.dimensions)]
                sampled = dims == turn if plugin is None else method == "mean-teacher" and dims == 3
                yield pytest.param(Case(method, plugin, dims), marks=[] if sampled else [pytest.mark.full])


@pytest.fixture(scope="session")
def tiny_2d(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """RGB pictures of 48 x 48 with one bright spot."""
    return _make_tiny(tmp_path_factory.mktemp("tiny2d"), 2)


@pytest.fixture(scope="session")
def tiny_3d(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Volumes of 24 x 24 x 12 at 1 x 1 x 2 mm with a bright ball and a dark one, and a strip nobody annotated."""
    return _make_tiny(tmp_path_factory.mktemp("tiny3d"), 3)


@pytest.fixture(scope="session")
def tiny(tiny_2d: Tiny, tiny_3d: Tiny) -> dict[int, Tiny]:
    """Both, by dimensions."""
    return {2: tiny_2d, 3: tiny_3d}


@pytest.fixture(scope="session")
def small_train(tiny: dict[int, Tiny]) -> Callable[..., Path]:
    """Train ``case`` into ``output`` on its tiny data set; keywords are settings that lie over the small ones."""

    def run(case: Case, output: Path, *, resume: bool = False, **settings: Any) -> Path:
        from semialign.training.train import train

        data = tiny[case.dims]
        few = {"ua-mt": {"passes": 2}, **dict.fromkeys(WAITING, AT_ONCE)}.get(case.method, {})
        values: dict[str, Any] = {**SMALL, **few, **settings, "plugins": [case.plugin] if case.plugin else []}
        return train(
            data.raw,
            method=case.method,
            split=data.split,
            prepared=data.folder,
            output=output,
            settings=values,
            accelerator="cpu",
            report=False,
            resume=resume,
        )

    return run


# Enough for every method to learn the blobs; float32, since bit-equality is asked for on any processor.
SMALL = {
    "steps": 50,
    "log_steps": 10,
    "optimiser": "sgd",
    "learning_rate": 0.03,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "clip_norm": 12.0,
    "validations": 2,
    "checkpoint_steps": 25,
    "workers": 0,
    "precision": "float32",
}


@pytest.fixture(scope="session")
def trained(small_train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The run folder of a case trained with the small settings; made at the first call, then shared: read only."""
    made: dict[Case, Path] = {}

    def get(case: Case) -> Path:
        if case not in made:
            made[case] = small_train(case, tmp_path_factory.mktemp("trained") / str(case))
        return made[case]

    return get


@pytest.fixture(scope="session")
def any_case() -> Case:
    """A case of the everyday run, where a test needs some trained run and does not care which."""
    return Case("mean-teacher", None, 3)


@pytest.fixture(scope="session")
def small_method() -> Callable[..., Any]:
    """Build a method over a network of two levels, one channel: plug-in, dimensions, classes, seed and own settings."""

    def make(
        name: str, dims: int = 2, *, plugin: str | None = None, classes: int = 3, seed: int = 0, **own: Any
    ) -> Any:
        import torch

        from semialign.methods.base import build_method
        from semialign.networks.unet import UNet

        def network() -> UNet:
            strides = ((1,) * dims, (2,) * dims)
            return UNet(1, classes, widths=(4, 8), strides=strides, kernels=((3,) * dims, (3,) * dims))

        torch.manual_seed(seed)
        own = AT_ONCE | own if name in WAITING else own
        return build_method(name, network, own, {plugin: {}} if plugin else {})

    return make


@pytest.fixture(scope="session")
def small_batch() -> Callable[..., Any]:
    """Make a batch of random patches for such a method; about a fifth of the labelled voxels are -1."""

    def make(dims: int = 2, *, labelled: int = 2, unlabelled: int = 2, classes: int = 3, seed: int = 0) -> Any:
        import torch

        from semialign.common.types import Batch

        generator, size = torch.Generator().manual_seed(seed), (16, 16) if dims == 2 else (8, 8, 8)
        image_l = torch.randn(labelled, 1, *size, generator=generator)
        label = torch.randint(0, classes, (labelled, *size), generator=generator)
        label[torch.rand(label.shape, generator=generator) < 0.2] = -1
        image_u = torch.randn(unlabelled, 1, *size, generator=generator)
        return Batch(image_l, label, image_u, torch.arange(labelled), torch.arange(unlabelled))

    return make


def _make_tiny(root: Path, dims: int) -> Tiny:
    from semialign.data.plan import write_plan
    from semialign.data.prepare import prepare

    raw = root / "raw"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for number, case in enumerate(LABELLED + UNLABELLED + VALIDATION):
        (_write_picture if dims == 2 else _write_volume)(raw, case, number, labelled=case not in UNLABELLED)
    channels = {"0": "red", "1": "green", "2": "blue"} if dims == 2 else {"0": "MR"}
    labels = {name: value for value, name in enumerate(CLASSES[dims])} | ({"ignore": 3} if dims == 3 else {})
    (raw / "dataset.json").write_text(json.dumps({"name": "Tiny", "channel_names": channels, "labels": labels}))
    split = raw / "split-tiny.json"
    parts = {"labelled": LABELLED, "unlabelled": UNLABELLED, "validation": VALIDATION}
    split.write_text(json.dumps({part: list(ids) for part, ids in parts.items()}))
    folder = root / "prepared"
    write_plan(folder / "plan.yaml", _plan(dims))
    return Tiny(dims, raw, split, folder, prepare(raw, split, output=folder, accelerator="cpu"))


def _plan(dims: int) -> Any:
    from semialign.data.plan import Normalisation, Plan

    common = {"batch_labelled": 2, "batch_unlabelled": 2, "made_for": "tests", "dimensions": dims}
    if dims == 2:
        return Plan(
            spacing=None,
            picture_size=(48, 48),
            normalisation=(Normalisation("picture", mean=100.0, std=40.0),) * 3,
            patch_size=(32, 32),
            widths=(8, 16, 16),
            strides=((1, 1), (2, 2), (2, 2)),
            kernels=((3, 3),) * 3,
            mirror_axes=(0, 1),
            **common,
        )
    return Plan(
        spacing=(1.0, 1.0, 2.0),
        picture_size=None,
        normalisation=(Normalisation("z-score"),),
        patch_size=(16, 16, 8),
        widths=(8, 16, 16),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
        kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        mirror_axes=(0,),
        **common,
    )


def _write_volume(raw: Path, case: str, number: int, *, labelled: bool) -> None:
    import nibabel

    rng = np.random.default_rng(number)
    size, shape = np.array([1.0, 1.0, 2.0]), (24, 24, 12)
    where = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, size, strict=True)), indexing="ij"), -1)
    label = np.zeros(shape, np.uint8)
    for value, x in ((1, 7.0), (2, 17.0)):
        centre = np.array([x, 12.0, 11.0]) + rng.uniform(-1.5, 1.5, 3)
        label[((where - centre) ** 2).sum(-1) < rng.uniform(4.0, 5.0) ** 2] = value
    image = rng.normal(0, 20, shape) + 100.0 * (label == 1) - 100.0 * (label == 2)
    affine = np.diag([*size, 1.0])
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), raw / "imagesTr" / f"{case}_0000.nii.gz")
    if labelled:
        label[:, :2] = 3
        nibabel.save(nibabel.Nifti1Image(label, affine), raw / "labelsTr" / f"{case}.nii.gz")


def _write_picture(raw: Path, case: str, number: int, *, labelled: bool) -> None:
    from PIL import Image

    rng = np.random.default_rng(100 + number)
    rows, columns = np.meshgrid(np.arange(48), np.arange(48), indexing="ij")
    centre, radius = rng.uniform(14, 34, 2), rng.uniform(8, 11)
    spot = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    image = rng.normal(90, 15, (48, 48, 3)) + spot[..., None] * np.array([90, 50, 20])
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(raw / "imagesTr" / f"{case}_0000.png")
    if labelled:
        Image.fromarray(spot.astype(np.uint8)).save(raw / "labelsTr" / f"{case}.png")
