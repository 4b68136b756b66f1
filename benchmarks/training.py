"""Where a training step's time goes, as ratios inside one run: loading, precision, the loss.

    python benchmarks/training.py [--steps 20]

Prints for a small 3D and a 2D set made on the fly: the whole loop's time over the time of forward, losses, backward and
optimiser alone, on all cores and with one core left to the loader; float32 over bfloat16; channels first in memory over
last, as they lie in training; and the segmentation loss with 14 classes over the network's own time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from semialign.common.types import Batch, Progress
from semialign.config import TrainingSettings
from semialign.data.loader import TwoStream, batches
from semialign.data.phantom import phantom
from semialign.data.prepare import Prepared, prepare
from semialign.losses.segmentation import dice_ce
from semialign.methods.base import Method, build_method
from semialign.networks.build import network_of_plan
from semialign.networks.layout import lay_out
from semialign.networks.unet import UNet

CPU = torch.device("cpu")


def build(prepared: Prepared, name: str, *, last: bool = True) -> Method:
    """Return method ``name`` on the data set's own plan; ``last``: laid out in memory as in training."""
    torch.manual_seed(0)
    own = {"learnt": None} if name == "mean-teacher" else {}  # or it would see labels alone
    method = build_method(name, lambda: network_of_plan(prepared.plan, prepared.dataset.num_classes), own, {})
    if last:
        lay_out(method, CPU)
    return method


def step(method: Method, optimiser: torch.optim.Optimizer, batch: Batch, number: int, low: bool) -> None:
    """Forward, losses, backward, optimiser, teacher: all that a method runs."""
    progress = Progress("train", 1000 + number, 2000)  # past the part on labels alone
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        total, _ = method(batch, progress)
    optimiser.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(method.parameters(), 12.0)
    optimiser.step()
    method.after_step(progress)


def loop_over_step(prepared: Prepared, name: str, steps: int, workers: int) -> tuple[float, float]:
    """Return (loop, pure) seconds a step: with the loader and default augmentation, and with the batch at hand."""
    plan, split = prepared.plan, prepared.split
    data = TwoStream(
        prepared.store,
        plan,
        labelled=split.labelled,
        unlabelled=split.unlabelled if name != "supervised" else (),
        batch=(plan.batch_labelled, plan.batch_unlabelled),
        seed=0,
    )
    method = build(prepared, name)
    optimiser = method.optimisers("train", TrainingSettings())[0]
    batch = data[0]
    step(method, optimiser, batch, 0, True)
    loop = pure = 0.0
    stream = batches(data, range(10**9), workers)
    for _ in range(4):  # the loader's start and its first batches are not a step's cost
        step(method, optimiser, next(stream), 1, True)
    for _ in range(3):  # in turns, so that a noisy machine hits both alike
        begin = time.perf_counter()
        for number in range(steps):
            step(method, optimiser, next(stream), number, True)
        loop += time.perf_counter() - begin
        time.sleep(1.0)  # the loader fills its queue and is idle while the pure steps run
        begin = time.perf_counter()
        for number in range(steps):
            step(method, optimiser, batch, number, True)
        pure += time.perf_counter() - begin
    return loop / (3 * steps), pure / (3 * steps)


def in_turns(prepared: Prepared, steps: int, slow: tuple[bool, bool], fast: tuple[bool, bool]) -> tuple[float, float]:
    """Return seconds a step of the supervised method two ways, each (bfloat16, channels last in memory)."""
    data = TwoStream(
        prepared.store,
        prepared.plan,
        labelled=prepared.split.labelled,
        unlabelled=(),
        batch=(prepared.plan.batch_labelled, 0),
        seed=0,
    )
    batch, times = data[0], [0.0, 0.0]
    methods = [build(prepared, "supervised", last=last) for _, last in (slow, fast)]
    optimisers = [method.optimisers("train", TrainingSettings())[0] for method in methods]
    for number in range(steps + 1):
        for way, (low, _) in enumerate((slow, fast)):
            begin = time.perf_counter()
            step(methods[way], optimisers[way], batch, number, low)
            times[way] += (time.perf_counter() - begin) * (number > 0)  # the first one sets kernels up
    return times[0] / steps, times[1] / steps


def loss_ratio(steps: int) -> tuple[float, float]:
    """Return (loss, network) seconds, forward and backward, of 14 classes at 2 x 96^3, default widths."""
    torch.manual_seed(0)
    network = UNet(1, 14, widths=(16, 32, 64, 128), strides=((1, 1, 1), *((2, 2, 2),) * 3), kernels=((3, 3, 3),) * 4)
    lay_out(network, CPU)
    image, label = torch.randn(2, 1, 96, 96, 96), torch.randint(0, 14, (2, 96, 96, 96))
    loss_time = network_time = 0.0
    for number in range(steps + 1):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image).logits
        forward = time.perf_counter() - begin
        leaf = logits.detach().requires_grad_()
        begin = time.perf_counter()
        dice_ce(leaf, label).backward()
        loss = time.perf_counter() - begin
        begin = time.perf_counter()
        logits.backward(leaf.grad)
        if number:
            loss_time, network_time = loss_time + loss, network_time + forward + time.perf_counter() - begin
    return loss_time / steps, network_time / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps, cores = parser.parse_args().steps, torch.get_num_threads()
    table = Table("what", "seconds", "over", "seconds", "ratio", title=f"{cores} threads")

    def row(what: str, over: str, times: tuple[float, float]) -> None:
        table.add_row(what, f"{times[0]:.4f}", over, f"{times[1]:.4f}", f"{times[0] / times[1]:.2f}")

    with tempfile.TemporaryDirectory() as folder:
        made = {
            "3D": phantom(Path(folder) / "volumes", cases=6, labelled=2, organs=5, size=(64, 64, 40), seed=0),
            "2D": phantom(Path(folder) / "pictures", cases=16, labelled=4, dimensions=2, size=(256, 256), seed=0),
        }
        for name, data in made.items():
            ready = prepare(Path(data), Path(data) / "split.json")
            for method in ("supervised", "mean-teacher"):
                row(f"{name} {method}: whole loop", "step alone", loop_over_step(ready, method, steps, 1))
                if cores > 1:
                    torch.set_num_threads(cores - 1)
                    spared = loop_over_step(ready, method, steps, 1)
                    row(f"{name} {method}, a core to spare: whole loop", "step alone", spared)
                    torch.set_num_threads(cores)
            as_trained = True, True
            row(f"{name} float32 step", "bfloat16 step", in_turns(ready, steps, (False, True), as_trained))
            row(f"{name} step, channels first", "last", in_turns(ready, steps, (True, False), as_trained))
    row("14 classes, 2 x 96^3: loss", "network", loss_ratio(max(2, steps // 5)))
    Console().print(table)


if __name__ == "__main__":
    main()
