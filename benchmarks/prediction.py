"""Prediction from file to file: time over the network's own in the same run, and peak memory of a large volume.

python benchmarks/prediction.py [--part overhead|trained|memory] [--size 512 512 600] [--spacing 1.5]

Networks of the part ``overhead`` are untrained, so that every class is as probable as the others: the worst case.
``trained`` trains one for a minute on synthetic CT.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor

from semialign.data.plan import Normalisation, Plan
from semialign.inference.predictor import predict_with

CLASSES = 14


def plan_of(patch: tuple[int, ...], spacing: float | None) -> Plan:
    """A plan as preparing makes it for a CT on a processor: five levels, widths 16 to 128."""
    dims, levels = len(patch), 5
    return Plan(
        dimensions=dims,
        spacing=None if spacing is None or dims == 2 else (spacing,) * 3,
        picture_size=None,
        normalisation=(Normalisation("ct", -160, 240, 0, 100),),
        patch_size=patch,
        widths=(16, 32, 64, 128, 128),
        strides=((1,) * dims, *[(2,) * dims] * (levels - 1)),
        kernels=((3,) * dims,) * levels,
        mirror_axes=(),
        batch_labelled=2,
        batch_unlabelled=2,
        made_for="a benchmark",
    )


class Timed:
    """A model that adds up the time of ``answer``, from windows to probabilities."""

    channel_names = ("CT",)
    device = torch.device("cpu")

    def __init__(self, plan: Plan, class_names: Sequence[str], answer: Callable[[Tensor], Tensor]) -> None:
        self.plan, self.class_names, self.answer = plan, list(class_names), answer
        self.seconds, self.windows = 0.0, 0

    def probabilities(self, windows: Tensor) -> Tensor:
        """Return the answer."""
        begin = time.perf_counter()
        answer = self.answer(windows)
        self.seconds += time.perf_counter() - begin
        self.windows += len(windows)
        return answer


def untrained(plan: Plan, classes: int) -> Timed:
    """A model of the plan's network as it starts."""
    from semialign.networks.build import network_of_plan
    from semialign.networks.layout import lay_out

    network = network_of_plan(plan, classes).eval()
    lay_out(network, Timed.device)

    def answer(windows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = network(windows).logits.softmax(1).float()
        return found

    return Timed(plan, [str(i) for i in range(classes)], answer)


def cheap(plan: Plan, classes: int) -> Timed:
    """A model that takes little time: a few products."""
    centres = torch.linspace(-2, 2, classes).reshape(1, -1, *[1] * plan.dimensions)
    return Timed(plan, [str(i) for i in range(classes)], lambda windows: torch.softmax(windows * centres, 1))


def write_volume(path: Path, size: tuple[int, ...]) -> None:
    """Write a CT-like int16 volume of 0.8 mm, smooth with noise."""
    rng = np.random.default_rng(0)
    plane = rng.normal(0, 200, size[:2]).astype(np.int16)
    volume = np.stack([np.roll(plane, k, 0) for k in range(size[2])], -1)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.8, -0.8, 0.8, 1.0])), path)


HEADING = f"{'input':<28}{'patch':<14}{'classes':>7}{'windows':>9}{'total s':>9}{'network s':>11}{'ratio':>7}"


def overhead(folder: Path) -> None:
    """Print file-to-file time over the network's time, for few and many classes, volumes and pictures."""
    from PIL import Image as Pillow

    print(HEADING)
    for size, patch, spacing, classes in [
        ((176, 176, 136), (96, 96, 96), None, 2),
        ((176, 176, 136), (96, 96, 96), None, CLASSES),
        ((200, 200, 100), (48, 48, 48), 1.6, CLASSES),
        ((768, 768), (256, 256), None, 2),
    ]:
        path = folder / ("a.nii" if len(size) == 3 else "a.png")
        if len(size) == 3:
            write_volume(path, size)
        else:
            Pillow.fromarray(np.random.default_rng(0).integers(0, 255, size).astype(np.uint8)).save(path)
        by, at = " x ".join(map(str, size)), f" at {spacing:g} mm" if spacing else ""
        timed(untrained(plan_of(patch, spacing), classes), path, folder / "out", by + at)


def timed(model: Timed, path: Path, output: Path, what: str) -> None:
    """Predict ``path`` and print a row of the table."""
    patch, classes = model.plan.patch_size, len(model.class_names)
    model.probabilities(torch.zeros(1, 1, *patch))  # the first call sets kernels up
    model.seconds, model.windows = 0.0, 0
    begin = time.perf_counter()
    summary = predict_with([model], [path], output, overwrite=True)
    total = time.perf_counter() - begin
    assert not summary.failed, summary.failed
    print(
        f"{what:<28}{'x'.join(map(str, patch)):<14}{classes:>7}{model.windows:>9}{total:>9.2f}"
        f"{model.seconds:>11.2f}{total / model.seconds:>7.3f}",
        flush=True,
    )


def trained(folder: Path, size: tuple[int, ...] = (200, 200, 100)) -> None:
    """Print the same for a network trained on synthetic CT at twice the spacing of the images."""
    from semialign.data.dataset import load_dataset
    from semialign.data.image_io import read_grid
    from semialign.data.phantom import phantom
    from semialign.data.splits import load_split
    from semialign.inference.model import load_trained
    from semialign.training.train import train

    data = phantom(folder / "ct", cases=6, labelled=3, validation=0, test=3, size=size, seed=0)
    test = load_split(data / "split.json", load_dataset(data)).test
    images = [data / "imagesTr" / f"{case}_0000.nii.gz" for case in test]
    spacing = [round(2 * n, 3) for n in read_grid(images[0]).spacing]
    recipe = folder / "coarse.yaml"
    recipe.write_text(f"method: supervised\nplan: {{spacing: {spacing}, patch_size: [48, 48, 48]}}\n")
    settings = {"minutes": 1, "validations": 0}
    told = {"settings": settings, "output": folder / "run", "report": False}
    run = train(data, recipe=str(recipe), split=data / "split.json", dimensions=3, **told)
    model = load_trained(run, checkpoint="last")
    watched = Timed(model.plan, model.class_names, model.probabilities)
    print(HEADING)
    for image in images:
        timed(watched, image, folder / "out", " x ".join(map(str, size)) + ", trained")


def memory(folder: Path, size: tuple[int, ...], spacing: float | None, probabilities: bool) -> None:
    """Print peak memory of this process after predicting one large volume with a model that costs little."""
    path = folder / "large.nii"
    write_volume(path, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = cheap(plan_of((128, 128, 128), spacing), CLASSES)
    begin = time.perf_counter()
    summary = predict_with([model], [path], folder / "out", overlap=0.5, probabilities=probabilities)
    assert not summary.failed, summary.failed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{' x '.join(map(str, size))}, {CLASSES} classes, network at {f'{spacing:g}' if spacing else '0.8'} mm"
        f"{', probabilities written' if probabilities else ''}: peak memory {peak / 2**20:.2f} GiB "
        f"(before: {before / 2**20:.2f}), {time.perf_counter() - begin:.0f} s, of which model {model.seconds:.0f} s"
    )


def main() -> None:
    """Run the parts asked for; memory in a process of its own, so that its peak is its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("overhead", "trained", "memory", "all"), default="all")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 600))
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--probabilities", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part == "memory":
            memory(Path(folder), tuple(arguments.size), arguments.spacing, arguments.probabilities)
            return
        if arguments.part != "trained":
            overhead(Path(folder))
        if arguments.part != "overhead":
            trained(Path(folder))
    if arguments.part == "all":
        for extra in ([], ["--spacing", "1.5"], ["--probabilities"]):
            size = [str(n) for n in arguments.size]
            subprocess.run([sys.executable, __file__, "--part", "memory", "--size", *size, *extra], check=True)


if __name__ == "__main__":
    main()
