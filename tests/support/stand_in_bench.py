"""A benchmark in which training and prediction are stood in for; imported by the tests of benchmarks."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from semialign.common.files import write_json, write_yaml
from semialign.data.phantom import phantom
from semialign.inference.predictor import PredictionSummary
from semialign.training.checkpoint import save_checkpoint

CASES, TEST = 12, 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "pictures"
    return phantom(out, cases=CASES, labelled=2, validation=2, test=TEST, dimensions=2, size=(32, 32), workers=1)


class Clock:
    """Stands in for the module ``time``: a quarter of a second goes by between two looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.25
        return self.now


class Stand:
    """Stands in for training and prediction: quick, and a function of data, method, seed and steps alone."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Any]] = []
        self.predicted: list[tuple[str, str, tuple[str, ...]]] = []
        self.on_train: Callable[[dict[str, Any]], None] = lambda options: None
        self.before_result: Callable[[dict[str, Any]], None] = lambda options: None
        self.best_step = 5

    def train(self, data: Path, **options: Any) -> Path:
        self.trained.append({"data": data, **options})
        self.on_train(options)
        run = options["output"]
        assert options["resume"] == (run / "config.yaml").exists()
        write_yaml(run / "config.yaml", {"method": options["method"], "seed": options["settings"]["seed"]})
        save_checkpoint(run / "last.pt", {"place": {"steps_done": 10}})
        save_checkpoint(run / "best.pt", {"place": {"steps_done": self.best_step}})
        self.before_result(options)
        result = {"steps": 10, "training_seconds": 3.0, "peak_memory_bytes": 2**30, "versions": {"torch": "0"}}
        write_json(run / "result.json", result)
        return Path(run)

    def predict(self, runs: Any, inputs: Any, output: Path, *, checkpoint: str, **options: Any) -> PredictionSummary:
        (run,) = runs
        inputs = [image for case in inputs for image in case.images]
        config = yaml.safe_load((run / "config.yaml").read_text())
        self.predicted.append((str(run), checkpoint, tuple(path.name for path in inputs)))
        output.mkdir(parents=True, exist_ok=True)
        say = options.get("progress") or (lambda what, done, of: None)
        there = [path for path in inputs if (output / path.name.replace("_0000", "")).exists()]  # and are kept
        say("cases", len(there), len(inputs))
        for place, path in enumerate((path for path in inputs if path not in there), len(there) + 1):
            case = path.name.removesuffix("_0000.png")
            label = np.asarray(Image.open(path.parents[1] / "labelsTr" / f"{case}.png"))
            key = f"{config} {checkpoint} {case}".encode()
            shift = 1 + hashlib.blake2b(key, digest_size=1).digest()[0] % 6
            unfinished = output / f".{case}.png"
            Image.fromarray(np.roll(label, shift, 0)).save(unfinished)
            unfinished.replace(output / f"{case}.png")
            say("cases", place, len(inputs))
        return PredictionSummary()


@pytest.fixture
def stand(monkeypatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr("semialign.training.train.train", stand.train)
    monkeypatch.setattr("semialign.inference.predictor.predict", stand.predict)
    monkeypatch.setattr("semialign.evaluation.benchmark_run.count_parameters", lambda run, accelerator: 1234)
    monkeypatch.setattr("semialign.evaluation.benchmark_machine.time", Clock())
    monkeypatch.setattr("semialign.evaluation.benchmark_run.free_memory", lambda: None)  # no network was made
    return stand


@pytest.fixture
def trial(tmp_path, pictures) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        value = {
            "name": "trial",
            "output": "out",
            "seeds": [0, 1],
            "training": {"steps": 10},
            "datasets": [{"name": "pictures", "data": str(pictures), "split": str(pictures / "split.json")}],
            "entries": [
                {"name": "labels only", "method": "supervised"},
                {"name": "mean teacher", "method": "mean-teacher", "settings": {"weight": 0.5}},
                {"name": "all labels", "method": "supervised", "labels": "all"},
            ],
        } | changes
        (tmp_path / "trial.yaml").write_text(yaml.safe_dump(value))
        return tmp_path / "trial.yaml"

    return write
