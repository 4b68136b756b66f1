"""Whether labelling what ``semialign suggest`` chooses beats labelling as many cases drawn at random.

    python benchmarks/suggest.py [--minutes 2 | --steps N] [--seeds 0 1 2] [--set KEY=VALUE ...]
                                 [--output bench/suggest]

Hippocampus (in the folder that SEMIALIGN_DATA names), 4 labelled cases. For every seed: train, choose 4 more with
``suggest``, draw 4 more at random three times from the same unlabelled cases, train anew on each 8, score the test
cases. All runs share one plan, and no validation case is used. Every run has its own folder under ``--output``; what is
done is not done again, and ``suggest.json`` there is written after every run.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from semialign.common.errors import UserError
from semialign.common.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
MORE, DRAWS = 4, 3


class Experiment:
    """The runs of all seeds, and what is known of them so far."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from semialign.data.dataset import load_dataset
        from semialign.data.splits import load_split

        data = Path(os.environ.get("SEMIALIGN_DATA", ROOT.parent / "shared" / "data")) / "hippocampus"
        self.dataset, self.output = load_dataset(data), arguments.output
        self.split = load_split(data / "split-4-labelled.json", self.dataset)
        length = {"steps": arguments.steps} if arguments.steps else {"minutes": arguments.minutes}
        own = dict(arguments.set)
        self.settings = {**length, "validations": 0, **own}
        self.method, self.accelerator, self.seeds = arguments.method, arguments.accelerator, arguments.seeds
        self.about = {"method": self.method, **length, **own, "more": MORE, "draws": DRAWS, "checkpoint": "last"}
        self.runs: dict[str, dict[str, Any]] = {}

    def seed(self, seed: int, say: Any) -> None:
        """Do everything of one seed that is not done yet."""
        from semialign.common.seeding import numpy_rng
        from semialign.suggestion.results import moved
        from semialign.suggestion.suggest import suggest

        folder = self.output / f"seed-{seed}"
        base = self.score(folder / "four", self.split, seed, say)
        path = folder / "suggested.json"
        if not path.exists():
            chosen = suggest(
                base,
                self.dataset.root,
                count=MORE,
                output=folder / "suggest",
                checkpoint="last",
                accelerator=self.accelerator,
                progress=say,
            )
            for reason in chosen.failed.values():
                raise UserError(reason)
            write_json(path, chosen.cases)
        self.score(folder / "suggested", moved(self.split, read_json(path), run=base.name), seed, say)
        for draw in range(DRAWS):
            drawn = numpy_rng(seed, "draw", draw).choice(sorted(self.split.unlabelled), MORE, replace=False).tolist()
            self.score(folder / f"random-{draw}", moved(self.split, drawn, run="at random"), seed, say)

    def score(self, run: Path, split: Any, seed: int, say: Any) -> Path:
        """Train on ``split`` and score its test cases, unless that is done; return the run's folder."""
        record = run / "score.json"
        if not record.exists():
            print(f"{run.relative_to(self.output)}: {len(split.labelled)} labelled", flush=True)
            write_json(record, {"about": self.about, **self._trained(run, split, seed, say)})
        found = read_json(record)
        if found["about"] != self.about:
            raise UserError(f"{run}: was made with other settings; choose another --output")
        self.runs[run.relative_to(self.output).as_posix()] = found
        self.write()
        return run

    def _trained(self, run: Path, split: Any, seed: int, say: Any) -> dict[str, Any]:
        from semialign.evaluation.evaluate import evaluate
        from semialign.inference.predictor import predict
        from semialign.training.train import train

        if not (run / "result.json").exists():
            train(
                self.dataset.root,
                method=self.method,
                split=split,
                prepared=self.output / "prepared",
                output=run,
                resume=(run / "config.yaml").exists(),
                settings={**self.settings, "seed": seed},
                accelerator=self.accelerator,
                report=False,
                progress=say,
            )
        images = [image for case in split.test for image in self.dataset.cases[case].images]
        done = predict([run], images, run / "test", checkpoint="last", accelerator=self.accelerator, progress=say)
        for reason in done.failed.values():
            raise UserError(reason)
        about = self.dataset.root / "dataset.json"
        scored = evaluate(run / "test", self.dataset.root / "labelsTr", dataset_json=about, cases=list(split.test))
        result = read_json(run / "result.json")
        kept = {key: result[key] for key in ("steps", "training_seconds")}
        added = [case for case in split.labelled if case not in set(self.split.labelled)]
        return {"added": added, "mean_dice": scored.summary["mean"]["dice"], "case_dice": scored.case_dice(), **kept}

    def difference(self) -> dict[str, Any] | None:
        """Return suggested minus random over the seeds that are complete, cases drawn with replacement."""
        from dataclasses import asdict

        from semialign.evaluation.statistics import mean_over_seeds, paired_bootstrap

        seeds = self.complete()
        if not seeds:
            return None
        suggested = [self.runs[f"seed-{seed}/suggested"]["case_dice"] for seed in seeds]
        random = [self.runs[f"seed-{seed}/random-{draw}"]["case_dice"] for seed in seeds for draw in range(DRAWS)]
        found = paired_bootstrap(mean_over_seeds(suggested), mean_over_seeds(random))
        return {"seeds": seeds, **asdict(found), "verdict": verdict(found.low, found.high)}

    def complete(self) -> list[int]:
        """Return the seeds of which every run is scored."""
        names = ["four", "suggested", *(f"random-{draw}" for draw in range(DRAWS))]
        return [seed for seed in self.seeds if all(f"seed-{seed}/{name}" in self.runs for name in names)]

    def write(self) -> None:
        """Write what is known so far."""
        found = {"about": self.about, "difference": self.difference(), "runs": self.runs}
        write_json(self.output / "suggest.json", found)

    def show(self) -> None:
        """Print the table of mean test Dice, and the difference."""
        length = f"{self.about['steps']} steps" if "steps" in self.about else f"{self.about['minutes']:g} minutes"
        table = Table(title=f"Test Dice, {self.method}, {length}, {len(self.split.test)} cases")
        for heading in ("seed", "4 labelled", "8: suggested", "8: at random, mean", "each draw", "draws beaten"):
            table.add_column(heading)
        for seed in self.complete():
            four, suggested = (self.runs[f"seed-{seed}/{name}"]["mean_dice"] for name in ("four", "suggested"))
            draws = [self.runs[f"seed-{seed}/random-{draw}"]["mean_dice"] for draw in range(DRAWS)]
            beaten = f"{sum(suggested > draw for draw in draws)} of {DRAWS}"
            each = ", ".join(f"{draw:.3f}" for draw in draws)
            mean = sum(draws) / DRAWS
            table.add_row(str(seed), f"{four:.3f}", f"{suggested:.3f}", f"{mean:.3f}", each, beaten)
        Console(width=120).print(table)
        found = self.difference()
        if found is not None:
            print(
                f"suggested - random: {found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}, 95 % over "
                f"{found['cases']} cases, p {found['p_value']:.3f}), seeds {found['seeds']}: {found['verdict']}"
            )


def verdict(low: float, high: float) -> str:
    """Return in words what an interval of the difference says."""
    if low > 0:
        return "the suggested cases beat random ones"
    return "the suggested cases are worse than random ones" if high < 0 else "no difference is shown"


def key_and_value(text: str) -> tuple[str, Any]:
    """Return the name and the value of a setting that is written ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: a setting is written KEY=VALUE")
    return key, yaml.safe_load(value)


def main() -> int:
    """Run what is left of the experiment; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=2.0)
    length.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", default="mean-teacher")
    parser.add_argument("--set", nargs="+", type=key_and_value, default=[], metavar="KEY=VALUE")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--output", type=Path, default=Path("bench/suggest"))
    from semialign.cli.screen import progress_bars

    try:
        experiment = Experiment(parser.parse_args())
        for seed in experiment.seeds:
            with progress_bars() as say:
                experiment.seed(seed, say)
        experiment.show()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
