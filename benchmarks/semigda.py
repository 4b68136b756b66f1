"""What SemiGDA's frozen autoencoder costs: a step of stage align with kept latents, a step of segment, predicting.

    python benchmarks/semigda.py [--repeats 5] [--side 224] [--size small] [--device cpu]

Stage align: seconds of a step with kept latents, over the same step with no frozen encoder at all, and of encoding at
every step over that too; in turns inside one process, medians of the repeats. Stage segment and prediction: median
seconds, pictures a second, and the peak of memory above what the process held before its first step, each in a process
of its own. ``taef2`` where SEMIALIGN_TAEF2 names its file; ``--sd`` adds Stable Diffusion's, of its real size and
random weights. All under bfloat16.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

BATCH = 2  # labelled pictures, and as many unlabelled ones
CASES = 32  # of each kind, which the kept latents are of


def method(autoencoder: str, size: str) -> Any:
    """Return SemiGDA over ``autoencoder``, three channels, two classes."""
    from semialign.methods import semigda
    from semialign.methods.base import build_method
    from semialign.networks.autoencoders.base import freeze
    from semialign.networks.unet import UNet

    torch.manual_seed(0)
    own: dict[str, Any] = {"autoencoder": autoencoder, "size": size}
    if autoencoder == "taef2":
        own["weights"] = os.environ["SEMIALIGN_TAEF2"]
    if autoencoder == "sd":
        from semialign.networks.autoencoders.stable_diffusion import StableDiffusion

        made = freeze(StableDiffusion.untrained()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        semigda.load_autoencoder = lambda name, weights: made  # type: ignore[assignment,misc]
    return build_method(
        "semigda", lambda: UNet(3, 2, widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3))), own, {}
    )


def learning(built: Any, stage: str) -> list[torch.optim.Optimizer]:
    """Freeze what ``stage`` does not train; its optimisers."""
    from semialign.config import TrainingSettings

    for name, parameter in built.named_parameters():
        parameter.requires_grad_(name.startswith(built.stage_settings(stage).parameters))
    optimisers: list[torch.optim.Optimizer] = built.optimisers(stage, TrainingSettings())
    return optimisers


def batch_of(side: int, device: str) -> Any:
    """Return a batch of random pictures and labels, each of another case, in some symmetry."""
    from semialign.common.types import Batch

    image, label = torch.rand(2 * BATCH, 3, side, side), torch.randint(0, 2, (BATCH, side, side))
    cases, symmetries = torch.randperm(CASES), torch.randint(0, 8, (2 * BATCH,))
    indices = cases[:BATCH], cases[BATCH : 2 * BATCH]
    parts = (image[:BATCH], label, image[BATCH:], *indices, symmetries[:BATCH], symmetries[BATCH:])
    return Batch(*(part.to(device) for part in parts))


def stepper(built: Any, stage: str, device: str) -> Callable[[Any], None]:
    """Return one training step of ``stage`` on a batch: forward, losses, backward, optimisers."""
    from semialign.common.types import Progress

    optimisers = learning(built.to(device), stage)

    def step(batch: Any) -> None:
        for optimiser in optimisers:
            optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            total, _ = built(batch, Progress(stage, 60, 100))
        total.backward()
        for optimiser in optimisers:
            optimiser.step()

    return step


def timed(run: Callable[[], Any], device: str) -> float:
    """Return the seconds of ``run``."""
    begin = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def align(autoencoder: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return seconds of a step of stage align: with kept latents, with no encoder, encoding at every step."""
    from semialign.data.kept_latents import KeptLatents, make_kept

    built, device = method(autoencoder, arguments.size), arguments.device
    step, frozen, side = stepper(built, "align", device), built.frozen, arguments.side // 8
    channels = built.network.autoencoder.latent_channels
    given = [torch.randn(n, channels, side, side, device=device) for n in (2 * BATCH, BATCH)]
    seconds: dict[str, list[float]] = {"kept": [], "without": [], "encoding": []}
    with tempfile.TemporaryDirectory() as folder:
        path, size = Path(folder) / "latents", {"count": 3 * 8 * CASES, "shape": (channels, side, side)}
        make_kept(path, **size)
        kept = KeptLatents(path, **size)
        means, frozen.labelled = frozen.means, CASES
        for number in range(arguments.repeats + 1):
            batch = batch_of(arguments.side, device)
            for name in seconds:
                frozen.kept = kept if name == "kept" else None
                frozen.means = (lambda *parts: tuple(given)) if name == "without" else means
                if name == "kept":
                    frozen.means(batch, built._pictures(batch), built.code.encode(batch.label_l))  # now they are
                took = timed(lambda batch=batch: step(batch), device)  # type: ignore[misc]
                seconds[name] += [took] if number else []  # the first one warms up
        frozen.kept = None
    return {name: statistics.median(values) for name, values in seconds.items()}


def segment(autoencoder: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return seconds and peak bytes of a step of stage segment, and pictures predicted in a second."""
    device = arguments.device
    built = method(autoencoder, arguments.size)
    step, before = stepper(built, "segment", device), _peak(device)
    steps = [timed(lambda: step(batch_of(arguments.side, device)), device) for _ in range(arguments.repeats + 1)]
    peak, images = _peak(device) - before, torch.rand(2 * BATCH, 3, arguments.side, arguments.side, device=device)

    @torch.inference_mode()
    def predict() -> None:
        with torch.autocast(device, torch.bfloat16):
            built.predict(images)

    built.eval()
    predicting = statistics.median([timed(predict, device) for _ in range(arguments.repeats + 1)][1:])
    return {"step": statistics.median(steps[1:]), "peak": peak, "predicted": len(images) / predicting}


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def apart(what: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure ``what`` in a process of its own."""
    options = [f"--{name}={getattr(arguments, name)}" for name in ("repeats", "side", "size", "device")]
    command = [sys.executable, __file__, "--one", what, *options]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Measure every autoencoder and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sd", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        stage, autoencoder = arguments.one.split()
        print(json.dumps((align if stage == "align" else segment)(autoencoder, arguments)))
        return
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} threads"
    title = f"{2 * BATCH} pictures of {arguments.side} x {arguments.side} a step, size {arguments.size}, {where}"
    table = Table("autoencoder", "align: kept / no encoder", "encoding / no encoder", title=title)
    costs = Table("autoencoder", "segment: s a step", "pictures/s", "peak memory, MB", "predict: pictures/s")
    for name in ("own", *(["taef2"] if "SEMIALIGN_TAEF2" in os.environ else []), *(["sd"] if arguments.sd else [])):
        found, cost = apart(f"align {name}", arguments), apart(f"segment {name}", arguments)
        table.add_row(name, *(f"{found[how] / found['without']:.3f}" for how in ("kept", "encoding")))
        rate = 2 * BATCH / cost["step"]
        row = (f"{cost['step']:.3f}", f"{rate:.2f}", f"{cost['peak'] / 2**20:.0f}", f"{cost['predicted']:.2f}")
        costs.add_row(name, *row)
    for each in (table, costs):
        Console(width=110).print(each)


if __name__ == "__main__":
    main()
