"""What SCDL costs: time and peak memory of a training step with and without it, and of its losses done plainly.

    python benchmarks/scdl.py [--repeats 3] [--quick]

Each row is a ratio of two processes of its own, run one after the other: seconds are the fastest of the repeats, memory
is the peak above what the process held before its first step. ``--quick`` leaves the V-Net at 96^3 out (it takes
minutes).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

CLASSES = 14


def method_step(network: str, plugged: bool) -> Callable[[], Any]:
    """Return a supervised training step (forward, losses, backward) of two labelled and two unlabelled patches."""
    from semialign.common.types import Batch, Progress
    from semialign.methods.base import build_method
    from semialign.networks.layout import lay_out
    from semialign.networks.unet import UNet
    from semialign.networks.vnet import VNet

    cube = 96 if network == "vnet" else 48

    def make() -> Any:
        if network == "vnet":
            return VNet(1, CLASSES, widths=(16, 32, 64, 128, 256))
        strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
        return UNet(1, CLASSES, widths=(16, 32, 64, 128), strides=strides, kernels=((3, 3, 3),) * 4)

    torch.manual_seed(0)
    method = build_method("cps", make, {"start": 0.0}, {"scdl": {}} if plugged else {})
    lay_out(method, torch.device("cpu"))
    size = (cube,) * 3
    image, label = torch.randn(4, 1, *size), torch.randint(0, CLASSES, (2, *size))
    batch = Batch(image[:2], label, image[2:], torch.arange(2), torch.arange(2))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = method(batch, Progress("train", 500, 1000))
        total.backward()
        method.zero_grad()

    return step


def losses(plain: bool, samples: int, tokens: int = 12**3) -> Callable[[], Any]:
    """Return P2E and E2P of 4 x ``tokens`` embeddings, ours or plainly, forward and backward."""
    from semialign.losses import proxy

    torch.manual_seed(0)
    embeddings = torch.randn(4, tokens, 256, requires_grad=True)
    mean, sigma = torch.randn(CLASSES, 256, requires_grad=True), torch.rand(CLASSES, 256, requires_grad=True)
    weights = torch.rand(4, tokens, CLASSES).softmax(2)

    def plainly() -> Tensor:
        drawn = mean[:, None] + sigma[:, None] * torch.randn(CLASSES, samples, 256)
        every = torch.einsum("bld,csd->bcls", F.normalize(embeddings, dim=2), F.normalize(drawn, dim=2))
        return every.mean(3).transpose(1, 2)

    def short() -> Tensor:
        return proxy.mean_cosines(embeddings, proxy.mean_directions(mean, sigma, torch.randn(samples, 256)))

    def step() -> None:
        cosines = plainly() if plain else short()
        loss = proxy.proxy_to_embedding(cosines, weights) + 0.1 * proxy.embedding_to_proxy(cosines, weights)
        torch.autograd.grad(loss, [embeddings, mean, sigma])

    return step


CASES: dict[str, Callable[[], Callable[[], Any]]] = {
    "vnet": lambda: method_step("vnet", False),
    "vnet scdl": lambda: method_step("vnet", True),
    "unet": lambda: method_step("unet", False),
    "unet scdl": lambda: method_step("unet", True),
    "losses": lambda: losses(False, 50),
    "losses 1024": lambda: losses(False, 1024),
    "losses plain": lambda: losses(True, 50),
}


def measure(case: str, repeats: int) -> None:
    """Print seconds and peak bytes of ``case`` as JSON; run in a process of its own."""
    if case.startswith("losses"):  # what is loaded at the first call is not the losses'
        losses(case == "losses plain", 50, tokens=8)()
        repeats *= 5  # milliseconds each
    step = CASES[case]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([min(seconds[1:]), peak * 1024]))


def main() -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.repeats)
        return
    rows = [
        ("CPS, V-Net 16, 4 x 96^3, 14 classes: with SCDL", "without", "vnet scdl", "vnet"),
        ("CPS, U-Net 16, 4 x 48^3, 14 classes: with SCDL", "without", "unet scdl", "unet"),
        ("its losses by way of every sample, 50 of them", "ours, 50 samples", "losses plain", "losses"),
        ("its losses by way of every sample, 50 of them", "ours, 1024 samples", "losses plain", "losses 1024"),
    ]
    table = Table("what", "over", "time", "peak memory")
    for what, over, one, other in rows[arguments.quick :]:
        found = []
        for case in (one, other):
            command = [sys.executable, __file__, "--one", case, "--repeats", str(arguments.repeats)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        time_ratio, memory_ratio = (a / b for a, b in zip(*found, strict=True))
        table.add_row(what, over, f"{time_ratio:.2f}", f"{memory_ratio:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
