"""The two-stream loader: labelled and unlabelled patches of a step, a function of seed, step and rank alone."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from semialign.common.errors import UserError, require_known
from semialign.common.seeding import derive_seed, numpy_rng, torch_rng
from semialign.common.types import Batch
from semialign.data.geometry import with_axis
from semialign.data.plan import Plan
from semialign.data.store import Store, read_box
from semialign.data.symmetries import symmetries_of, turned
from semialign.data.transforms import OUTSIDE, STRENGTHS, intensities, random_field, random_matrix, source_box, warp


class TwoStream(Dataset[Batch]):
    """Item ``step`` is that step's whole batch.

    Cases are drawn without replacement, epoch by epoch, over all ranks together: two ranks see different cases of one
    order. ``batch`` is (labelled, unlabelled) patches a rank; a stream without cases is empty. Under a plan of slices a
    patch is of one slice of a volume, any one, or one that shows the class it is placed on. ``symmetries`` (2D):
    patches are flipped and turned by quarters, as far as the plan flips at all, and changed in no other way.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        labelled: Sequence[str],
        unlabelled: Sequence[str],
        batch: tuple[int, int],
        seed: int,
        stage: str = "train",
        foreground: float = 0.5,
        augmentation: str = "default",
        symmetries: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.store, self.plan = store, plan
        self.cases = {"labelled": list(labelled), "unlabelled": list(unlabelled)}
        self.batch = {"labelled": batch[0], "unlabelled": batch[1] if unlabelled else 0}
        self.seed, self.stage, self.rank, self.world = seed, stage, rank, world
        self.foreground = foreground
        require_known(augmentation, STRENGTHS, "augmentation")
        self.strength = STRENGTHS["none" if symmetries else augmentation]
        mirror = () if augmentation == "none" else plan.mirror_axes
        self.mirror = () if symmetries else mirror
        self.spacing = plan.spacing or (1.0,) * plan.dimensions
        self.symmetries = symmetries_of(plan.patch_size, self.spacing, mirror) if symmetries else ()

    def of_batch(self, labelled: int, unlabelled: int) -> "TwoStream":
        """Return the same stream with other numbers of patches a rank; where a number stays, so do the patches."""
        other = copy(self)
        other.batch = {"labelled": labelled, "unlabelled": unlabelled if self.cases["unlabelled"] else 0}
        return other

    def label_voxels(self, num_classes: int) -> Tensor:
        """Return the voxels (C,) of every class in the stored labels of the labelled cases."""
        total = torch.zeros(num_classes, dtype=torch.int64)
        for case in self.cases["labelled"]:
            label = torch.from_numpy(np.asarray(self.store.label(case)[:]).astype(np.int64))
            total += torch.bincount(label[label >= 0], minlength=num_classes)
        return total

    def label_epochs(self) -> float:
        """Return how often a step, of all ranks together, sees a voxel of the labelled cases, on average."""
        shapes = np.array([self.store.about(case)["shape"] for case in self.cases["labelled"]], dtype=np.float64)
        axis, patch = self.plan.slice_axis, self.plan.patch_size
        inside = np.minimum(shapes, patch if axis is None else with_axis(patch, axis, 1)).prod(1)
        return float(self.batch["labelled"] * self.world * inside.mean() / shapes.prod(1).sum())

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of ``step``."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: a sum's last bits depend on the number of threads
        try:
            image_l, label_l, index_l, symmetry_l = self._stream("labelled", step)
            image_u, _, index_u, symmetry_u = self._stream("unlabelled", step)
        finally:
            torch.set_num_threads(threads)
        return Batch(image_l, label_l, image_u, index_l, index_u, symmetry_l, symmetry_u)

    def _stream(self, name: str, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        count = self.batch[name]
        chosen = [self._case(name, (step * self.world + self.rank) * count + i) for i in range(count)]
        images: list[Tensor] = []
        labels: list[Tensor] = []
        drawn: list[int] = []
        for i, index in enumerate(chosen):
            rng = numpy_rng(self.seed, self.stage, step, self.rank, name, i)
            image, label = self._patch(self.cases[name][index], rng, name == "labelled")
            if self.symmetries:
                drawn.append(self.symmetries[rng.integers(len(self.symmetries))])
                image, label = turned(image, drawn[-1]), None if label is None else turned(label, drawn[-1])
            images.append(image)
            if label is not None:
                labels.append(label)
        indices = torch.tensor(chosen, dtype=torch.int64)
        symmetries = torch.tensor(drawn, dtype=torch.int64) if self.symmetries else None
        if not images:
            empty = torch.zeros(0, len(self.plan.normalisation), *self.plan.patch_size)
            return empty, torch.zeros(0, *self.plan.patch_size, dtype=torch.int64), indices, symmetries
        generator = torch_rng(self.seed, self.stage, step, self.rank, name, "intensities")
        # The unlabelled stream stays weak: its method makes the strong form, and the teacher needs the weak one.
        strength = self.strength if name == "labelled" else STRENGTHS["none"]
        image = intensities(torch.stack(images), strength, generator)
        return image, torch.stack(labels) if labels else torch.zeros(0), indices, symmetries

    def _case(self, name: str, position: int) -> int:
        cases = len(self.cases[name])
        epoch, place = divmod(position, cases)
        return int(numpy_rng(self.seed, self.stage, name, "order", epoch).permutation(cases)[place])

    def _patch(self, case: str, rng: np.random.Generator, labelled: bool) -> tuple[Tensor, Tensor | None]:
        about, patch, axis = self.store.about(case), self.plan.patch_size, self.plan.slice_axis
        matrix = random_matrix(rng, self.strength, self.spacing, self.mirror, patch)
        field = random_field(rng, self.strength, patch)
        size = np.array(patch if axis is None else with_axis(patch, axis, 1))
        centre = self._centre(rng, np.array(about["shape"]), size, about["points"] if labelled else {})
        plane = None if axis is None else int(centre[axis])
        centre = centre if axis is None else np.delete(centre, axis)
        low, high = source_box(matrix, centre, patch, field)
        box = torch.from_numpy(self._box(self.store.image(case), low, high, plane, 0.0).astype(np.float32))
        label = None
        if labelled:
            label = torch.from_numpy(self._box(self.store.label(case), low, high, plane, OUTSIDE).astype(np.int64))
        return warp(box, label, matrix, centre - low, patch, field)

    def _box(self, array: Any, low: np.ndarray, high: np.ndarray, plane: int | None, outside: float) -> np.ndarray:
        """Return a box of ``array``'s last axes, or one of its slice ``plane``."""
        axis = self.plan.slice_axis
        if axis is None or plane is None:
            return read_box(array, low.tolist(), high.tolist(), outside)
        low, high = np.insert(low, axis, plane), np.insert(high, axis, plane + 1)
        return read_box(array, low.tolist(), high.tolist(), outside).squeeze(axis - len(low))

    def _centre(
        self, rng: np.random.Generator, shape: np.ndarray, patch: np.ndarray, points: dict[int, np.ndarray]
    ) -> np.ndarray:
        # Half-voxel centres for even patches, so that a patch without rotation falls on whole voxels.
        half = (patch - 1) / 2
        low, high = half, shape - 1 - half
        middle = np.floor((shape - patch) / 2) + half
        centre = np.where(high > low, low + np.floor(rng.random(len(shape)) * (high - low + 1)), middle)
        if points and rng.random() < self.foreground:
            of_class = points[sorted(points)[rng.integers(len(points))]]
            point = of_class[rng.integers(len(of_class))] + (half % 1)
            jitter = np.where(patch > 1, np.floor(rng.uniform(-0.25, 0.25, len(shape)) * patch), 0)  # a slice stays
            centre = np.where(high > low, np.clip(point + jitter, low, np.maximum(low, high)), middle)
        return np.asarray(centre)


def batches(data: TwoStream, steps: range, workers: int) -> Iterator[Batch]:
    """Yield the batches of ``steps`` in order; ``workers`` processes load ahead and change no number."""
    loader: DataLoader[Any] = DataLoader(
        _Carried(data),
        batch_size=None,
        sampler=_Steps(steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        # DataLoader draws a base seed from here rather than from the global generator, whose state belongs to the step.
        generator=torch.Generator().manual_seed(derive_seed(data.seed, "loader")),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Carried(Dataset[Batch | UserError]):
    """Returns a user's mistake instead of raising it: a worker would wrap its traceback around the one line."""

    def __init__(self, data: TwoStream) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self.data[step]
        except UserError as error:
            return UserError(str(error))


class _Steps(torch.utils.data.Sampler[int]):
    def __init__(self, steps: range) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
