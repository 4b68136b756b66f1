"""A script that trains on two processes and writes down what each of them saw; Fabric starts it once a process.

It watches from outside: nothing in the package knows of it. ``python two_ranks.py JSON`` with the arguments of
:func:`semialign.training.train.train`, and ``watch``, the folder for the notes. ``fail``: the first process finds the
disk full at step 3.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def _hash(tensors: Any) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def main(arguments: dict[str, Any]) -> None:
    """Train; every process writes ``rank-N.json``, and the first keeps the checkpoint of step 3."""
    import torch

    from semialign.common.errors import UserError
    from semialign.data.kept_latents import KeptLatents
    from semialign.data.loader import TwoStream
    from semialign.methods.base import Method
    from semialign.training.loop import Loop
    from semialign.training.train import train

    watch, fail = Path(arguments.pop("watch")), arguments.pop("fail", False)
    notes: dict[str, Any] = {"labelled": [], "unlabelled": [], "images": [], "seeds": [], "kept": []}
    get, run_all, save, forward = TwoStream.__getitem__, Loop.run_all, Loop._save, Method.forward
    put = KeptLatents._put

    def noted(self: TwoStream, step: int) -> Any:
        batch = get(self, step)
        notes["labelled"] += batch.index_l.tolist()
        notes["unlabelled"] += batch.index_u.tolist()
        notes["images"].append(_hash([batch.image_l, batch.image_u]))
        return batch

    def stepped(self: Method, *arguments: Any) -> Any:
        notes["seeds"].append(torch.initial_seed())
        return forward(self, *arguments)

    def kept(self: KeptLatents, place: int, *rest: Any) -> None:
        notes["kept"].append([self.path.name, place])
        put(self, place, *rest)

    def run(self: Loop) -> Any:
        place = run_all(self)
        own = {"weights": _hash(self.method.state_dict().values()), "steps": place.steps_done, "best": place.best}
        (watch / f"rank-{self.fabric.global_rank}.json").write_text(json.dumps(notes | own))
        return place

    def saved(self: Loop, name: str, *rest: Any) -> None:
        save(self, name, *rest)
        if fail and self.first:
            raise UserError(f"{self.run / name}: the disk is full")
        if self.first and name == "last.pt" and self.place.steps_done == 3:
            shutil.copytree(self.run, watch / "at-step-3")

    TwoStream.__getitem__, Loop.run_all, Loop._save = noted, run, saved  # type: ignore[assignment,method-assign]
    KeptLatents._put = kept  # type: ignore[method-assign]
    Method.forward = stepped  # type: ignore[method-assign]
    (watch / f"process-{os.getpid()}").touch()
    try:
        train(Path(arguments.pop("data")), **{k: Path(v) if k in _PATHS else v for k, v in arguments.items()})
    except UserError as error:
        sys.exit(f"error: {error}")


_PATHS = ("split", "prepared", "output")

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
