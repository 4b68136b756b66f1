"""Records of runs with figures worked out by hand, and the results they come to."""

from typing import Any

from semialign.evaluation.benchmark_pairs import compare_pairs
from semialign.evaluation.benchmark_summary import summarise

ENTRIES = ("labels only", "mean teacher", "all labels")


def record(
    entry: str, seed: int, dice: dict[str, float | None], *, best: dict[str, float | None] | None = None, **changes: Any
) -> Any:
    """A finished run on one class, whose figures follow from ``dice`` by case; ``None``: rightly nothing found."""

    def checkpoint(of_all: dict[str, float | None]) -> dict[str, Any]:
        of = {case: value for case, value in of_all.items() if value is not None}
        mean = sum(of.values()) / len(of) if of else None
        missed = sum(value == 0 for value in of.values())
        counts = {"scored": len(of) - missed, "missed": missed, "absent": 1, "spurious": 0}
        far = None if mean is None else 10 * mean
        moments = {"dice": {"mean": mean}, "hd95": {"mean": far}, "asd": {"mean": None}}
        return {
            "case_dice": of,
            "scores": [{"case": case, "class": "liver", "dice": value} for case, value in of_all.items()],
            "summary": {
                "mean": {"dice": mean, "hd95": far, "asd": None},
                "classes": {"liver": {**counts, **moments}},
                "infinite": missed,
                "units": "mm",
                "rule": "default",
                "rule_text": "absent classes left out",
            },
        }

    return {
        "dataset": "heart",
        "entry": entry,
        "seed": seed,
        "labels": "all" if entry == "all labels" else "split",
        "settings": {"method": "supervised", "training": {"plugins": []}},
        "protocol": "by hand",
        "cases": {"labelled": 2, "unlabelled": 5, "validation": 1, "test": len(dice)},
        "group_by": None,
        "machine": "a machine",
        "state": "finished",
        "training_seconds": 60.0 + seed,
        "steps": 100 + 10 * seed,
        "predict_seconds": 0.5,
        "parameters": 1_500_000,
        "peak_memory_bytes": 2**31,
        "checkpoints": {"last": checkpoint(dice), **({"best": checkpoint(best)} if best else {})},
    } | changes


def three_entries() -> list[Any]:
    return [
        record("labels only", 0, {"a": 0.5, "b": 0.3}, best={"a": 0.6, "b": 0.4}),
        record("labels only", 1, {"a": 0.6, "b": 0.4}, best={"a": 0.6, "b": 0.4}),
        record("mean teacher", 0, {"a": 0.7, "b": 0.4}, best={"a": 0.7, "b": 0.6}),
        record("mean teacher", 1, {"a": 0.6, "b": 0.5}, best={"a": 0.7, "b": 0.6}),
        record("all labels", 0, {"a": 0.9, "b": 0.8}, best={"a": 0.9, "b": 0.8}),
        record("all labels", 1, {"a": 0.9, "b": 0.8}, best={"a": 0.8, "b": 0.9}),
    ]


def summed(records: list[Any], **changes: Any) -> dict[str, Any]:
    options = {"entries": ENTRIES, "baseline": "labels only", "ceiling": "all labels"} | changes
    return {row["entry"]: row for row in summarise(records, **options)}


CLASSES = ("liver", "kidney", "cyst", "duct")
FREQUENCIES = {"liver": 0.1, "kidney": 0.1, "cyst": 0.001, "duct": 0.0}  # head: liver, kidney; tail: cyst, duct
OTHER = {"liver": 0.001, "kidney": 0.001, "cyst": 0.1, "duct": 0.1}


def grouped(entry: str, seed: int, cases: dict[str, list[float | None]], **changes: Any) -> Any:
    """A finished run whose cases list the Dice of all classes; the ASD is 10 times as much, infinite at 0."""
    rows = [{"case": c, "class": n, "dice": d} for c, of in cases.items() for n, d in zip(CLASSES, of, strict=True)]
    classes: dict[str, Any] = {}
    for place, name in enumerate(CLASSES):
        dice = [of[place] for of in cases.values() if of[place] is not None]
        finite = [10 * value for value in dice if value]
        classes[name] = {
            "dice": {"mean": mean(dice)},
            "hd95": {"mean": None},
            "asd": {"mean": mean(finite)},
            "scored": len(finite),
            "missed": len(dice) - len(finite),
            "absent": len(cases) - len(dice),
            "spurious": 0,
        }
    made = record(entry, seed, {"a": 0.5}, class_frequencies=FREQUENCIES, **changes)
    made["checkpoints"]["last"]["scores"] = rows
    made["checkpoints"]["last"]["summary"]["classes"] = classes
    return made


def mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None


def two_groups() -> list[Any]:
    return [
        grouped("labels only", 0, {"a": [0.9, 0.7, 0.0, 0.0], "b": [0.7, 0.5, 0.2, None]}),
        grouped("labels only", 1, {"a": [0.9, 0.7, 0.0, 0.0], "b": [0.7, 0.5, 0.4, None]}),
        grouped("mean teacher", 0, {"a": [0.9, 0.7, 0.3, 0.1], "b": [0.7, 0.5, 0.6, None]}),
        grouped("all labels", 0, {"a": [0.9, 0.9, 0.9, 0.9], "b": [0.9, 0.9, 0.9, None]})
        | {"class_frequencies": OTHER},
    ]


def page(records: list[Any], **changes: Any) -> dict[str, Any]:
    value = {
        "name": "trial",
        "description": "What it is.",
        "file": "trial.yaml",
        "length": "equal training time: 2 minutes a run",
        "overrides": {},
        "seeds": [0, 1],
        "datasets": ["heart"],
        "entries": list(ENTRIES),
        "baseline": "labels only",
        "ceiling": "all labels",
        "versions": {"semialign": "9.9"},
        "commit": "c0ffee",
    } | changes
    names = {"entries": value["entries"], "baseline": value["baseline"], "ceiling": value["ceiling"]}
    pairs = compare_pairs(records, entries=value["entries"])
    return value | {"results": summarise(records, **names), "pairs": pairs}


def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table with that title, without its head."""
    table = text.split(f"**{title}")[1].split("**")[1].split("\n- ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines][2:]
