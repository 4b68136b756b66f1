"""What a training step on a processor gains by keeping freed memory instead of giving it back to the system.

    python benchmarks/memory.py [--rounds 3]

Steps of a 3D U-Net on 4 x 32^3 and 4 x 64^3 and of a 2D one on 4 x 96^2, under bfloat16, with the C library as it is
and as ``semialign train`` sets it. Each way has processes of its own, in turns, since what was set cannot be unset:
medians over the rounds of each process's median step, their ratio, the pages that the system gave in a step, and the
ratio of the whole processes' peaks of memory. Linux with glibc alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from semialign.common.allocator import keep_freed_memory
from semialign.networks.unet import UNet

SIDES = {"4 x 96^2": (96, 2), "4 x 32^3": (32, 3), "4 x 64^3": (64, 3)}


def measure(side: int, dimensions: int, repeats: int = 7) -> dict[str, float]:
    """Return the median seconds and pages of a step, and the process's peak of memory in MB."""
    levels = 4
    network = UNet(
        1,
        2,
        widths=(16, 32, 64, 128),
        strides=((1,) * dimensions, *((2,) * dimensions for _ in range(levels - 1))),
        kernels=((3,) * dimensions,) * levels,
    )
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stubs lack it
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    image = torch.randn(4, 1, *(side,) * dimensions).contiguous(memory_format=layout)
    seconds, pages = [], []
    for _ in range(2 + repeats):  # the first two warm up
        faults, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(image).logits.float().square().mean()
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - begin)
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[2:]), "pages": statistics.median(pages[2:]), "peak": peak}


def apart(patches: str, kept: bool) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", patches, *(["--keep"] if kept else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        if arguments.keep and not keep_freed_memory():
            raise SystemExit("this C library or environment does not let a process keep its memory")
        print(json.dumps(measure(*SIDES[arguments.one])))
        return
    columns = ("patches", "usual, s", "kept, s", "usual / kept", "pages a step", "peak, kept / usual")
    table = Table(*columns, title=f"{torch.get_num_threads()} threads")
    for patches in SIDES:
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for kept in found:
                found[kept].append(apart(patches, kept))
        usual, kept_ones = (
            {name: statistics.median(one[name] for one in found[kept]) for name in ("seconds", "pages", "peak")}
            for kept in (False, True)
        )
        table.add_row(
            patches,
            f"{usual['seconds']:.3f}",
            f"{kept_ones['seconds']:.3f}",
            f"{usual['seconds'] / kept_ones['seconds']:.2f}",
            f"{usual['pages']:.0f} / {kept_ones['pages']:.0f}",
            f"{kept_ones['peak'] / usual['peak']:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
