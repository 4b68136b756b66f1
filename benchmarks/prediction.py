"""Prediction from file to file: time over the network's own in the same run, and peak memory of a large volume.

python benchmarks/prediction.py [--part overhead|memory] [--size 512 512 600] [--spacing 1.5]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
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
    """A model that adds up the time spent in its network."""

    channel_names = ("CT",)
    device = torch.device("cpu")

    def __init__(self, plan: Plan, classes: int, cheap: bool) -> None:
        from semialign.networks.build import network_of_plan
        from semialign.networks.layout import lay_out

        self.plan, self.class_names = plan, [str(i) for i in range(classes)]
        self.network = None if cheap else network_of_plan(plan, classes).eval()
        if self.network is not None:
            lay_out(self.network, self.device)
        self.seconds, self.windows = 0.0, 0

    def probabilities(self, windows: Tensor) -> Tensor:
        """The network's, or for little time those of a few products."""
        begin = time.perf_counter()
        if self.network is None:
            centres = torch.linspace(-2, 2, len(self.class_names)).reshape(1, -1, *[1] * (windows.ndim - 2))
            answer = torch.softmax(windows * centres, 1)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                answer = self.network(windows).logits.softmax(1).float()
        self.seconds += time.perf_counter() - begin
        self.windows += len(windows)
        return answer


def write_volume(path: Path, size: tuple[int, ...]) -> None:
    """Write a CT-like int16 volume of 0.8 mm, smooth with noise."""
    rng = np.random.default_rng(0)
    plane = rng.normal(0, 200, size[:2]).astype(np.int16)
    volume = np.stack([np.roll(plane, k, 0) for k in range(size[2])], -1)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.8, -0.8, 0.8, 1.0])), path)


def overhead(folder: Path) -> None:
    """Print file-to-file time over the network's time, for few and many classes, volumes and pictures."""
    from PIL import Image as Pillow

    print(f"{'input':<28}{'patch':<14}{'classes':>7}{'windows':>9}{'total s':>9}{'network s':>11}{'ratio':>7}")
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
        model = Timed(plan_of(patch, spacing), classes, cheap=False)
        model.probabilities(torch.zeros(1, 1, *patch))  # the first call sets kernels up
        model.seconds, model.windows = 0.0, 0
        begin = time.perf_counter()
        summary = predict_with([model], [path], folder / "out", overwrite=True)
        total = time.perf_counter() - begin
        assert not summary.failed, summary.failed
        by, at = " x ".join(map(str, size)), f" at {spacing:g} mm" if spacing else ""
        print(
            f"{by + at:<28}{'x'.join(map(str, patch)):<14}{classes:>7}{model.windows:>9}{total:>9.2f}"
            f"{model.seconds:>11.2f}{total / model.seconds:>7.3f}",
            flush=True,
        )


def memory(folder: Path, size: tuple[int, ...], spacing: float | None, probabilities: bool) -> None:
    """Print peak memory of this process after predicting one large volume with a model that costs little."""
    path = folder / "large.nii"
    write_volume(path, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = Timed(plan_of((128, 128, 128), spacing), CLASSES, cheap=True)
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
    parser.add_argument("--part", choices=("overhead", "memory", "all"), default="all")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 600))
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--probabilities", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part == "memory":
            memory(Path(folder), tuple(arguments.size), arguments.spacing, arguments.probabilities)
            return
        overhead(Path(folder))
    if arguments.part == "all":
        for extra in ([], ["--spacing", "1.5"], ["--probabilities"]):
            size = [str(n) for n in arguments.size]
            subprocess.run([sys.executable, __file__, "--part", "memory", "--size", *size, *extra], check=True)


if __name__ == "__main__":
    main()
