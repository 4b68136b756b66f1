"""A finished run's page: predict and score its validation cases, pick pictures, write ``report.html``."""

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError, require_known
from semialign.common.files import read_json, read_yaml
from semialign.data.dataset import Dataset, load_dataset
from semialign.data.splits import PARTS, Split, load_split
from semialign.evaluation.certainty import load_certainty
from semialign.evaluation.report import PictureCase, Report, write_report
from semialign.evaluation.report_cases import chosen, picture_case
from semialign.evaluation.report_tables import human
from semialign.evaluation.run_scores import Scored, score_part
from semialign.training.run_folder import require_finished

Say = Callable[[str, int, int], None]
REPORTABLE = ("validation", "test", "labelled")


def report_run(
    run: Path,
    *,
    data: Path | None = None,
    part: str | None = None,
    checkpoint: str = "best",
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Path:
    """Write ``RUN/report.html`` and return its path.

    ``part``: whose cases are scored and shown: ``validation`` (default), ``test``, or ``labelled`` (default where
    nothing was set aside; these trained the model, and the page says so). Predictions and scores go to ``RUN/PART``.
    ``data``: the data set's folder, where it has moved. Raises :class:`UserError` for a folder that is no finished run.
    """
    run = Path(run)
    require_known(checkpoint, ("best", "last"), "checkpoint")
    root = Path(data) if data else run_data(run)
    dataset = load_dataset(root)
    split = load_split(run / "split.json", dataset)
    part = part or ("validation" if split.validation else "labelled")
    require_known(part, REPORTABLE, "part")
    scored = score_part(run, dataset, split, part, checkpoint=checkpoint, accelerator=accelerator, progress=progress)
    write_report(run / "report.html", _report(run, dataset, split, part, scored))
    return run / "report.html"


def run_data(run: Path) -> Path:
    """Return the data set's folder of a finished run. Raises :class:`UserError` where it has moved, or is none."""
    require_finished(run)
    if not (run / "data.json").exists():
        inner = run / "evaluation"
        also = f"; did you mean {inner}?" if (inner / "summary.json").exists() else ""
        raise UserError(f"{run}: no run, benchmark or evaluation lies here (no data.json){also}")
    root = Path(read_json(run / "data.json")["root"])
    if not root.exists():
        raise UserError(f"{root}: the data set of {run} is no longer there; name its folder with --data")
    return root


def _report(run: Path, dataset: Dataset, split: Split, part: str, scored: Scored) -> Report:
    config, result = read_yaml(run / "config.yaml"), read_json(run / "result.json")
    evaluation = scored.evaluation
    notes = list(evaluation.notes())
    if part == "labelled":
        notes.append("these cases trained the model: their scores say nothing about new scans; set some aside")
    elif part == "validation" and scored.checkpoint.stem == "best":
        notes.append("these cases chose the checkpoint: their scores are a little too good; test cases tell")
    mean = evaluation.summary["mean"]["dice"]
    costs = _costs(result, scored)
    facts = [
        (f"Mean Dice ({part}, {len(scored.files)} cases)", "–" if mean is None else f"{mean:.3f}"),
        ("Method", ", ".join([config["method"], *config.get("plugins", ())])),
        ("Checkpoint", scored.checkpoint.stem),
        *costs[:1],
        *(fact for fact in costs if fact[0] == "Peak memory"),
    ]
    rows = [row | {"part": part, "entropy": scored.entropy[row["id"]]} for row in evaluation.case_rows()]
    return Report(
        title=f"{dataset.name}: {config['method']}",
        summary=facts,
        glance=_glance(run / "fingerprint.json"),
        members={name: getattr(split, name) for name in PARTS},
        log=run / "log.csv",
        validation=run / "validation.csv",
        proxies=run / "proxies.csv",
        class_rows=evaluation.class_rows(),
        group_rows=evaluation.group_rows(),
        spread={metric: evaluation.spread(metric) for metric in ("dice", "hd95")},
        case_rows=rows,
        cases=_pictures(dataset, part, scored),
        calibration=scored.calibration,
        costs=costs,
        unit={"pixels": "px"}.get(evaluation.summary["units"], "mm"),
        settings=config | {"versions_in_training": result.get("versions", {})},
        class_names=dataset.class_names,
        notes=notes,
    )


def _costs(result: Mapping[str, Any], scored: Scored) -> list[tuple[str, str]]:
    found = []
    steps, seconds, peak = (result.get(key) for key in ("steps", "training_seconds", "peak_memory_bytes"))
    if steps and seconds is not None:
        found.append(("Training", f"{steps} steps, {seconds / 60:.1f} minutes"))
        found.append(("Time of a step", f"{human(seconds / steps)} s"))
    if peak:
        found.append(("Peak memory", f"{peak / 2**30:.1f} GiB"))
    if result.get("peak_gpu_bytes"):
        found.append(("Peak memory of the GPU", f"{result['peak_gpu_bytes'] / 2**30:.1f} GiB"))
    took = list(scored.seconds.values())
    if took:
        each = f"{human(statistics.median(took))} s in the median ({human(min(took))} to {human(max(took))} s)"
        found.append(("Prediction of a case", f"{each}, with its calibration; reading image and label not counted"))
    found.append(("Checkpoint on disk", f"{scored.checkpoint.stat().st_size / 2**20:.1f} MiB"))
    return found


def _glance(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    fingerprint = read_json(path)

    def both(name: str) -> str:
        ends = [fingerprint[f"{end}_{name}"] for end in ("smallest", "median", "largest")]
        return ", ".join(" x ".join(f"{v:g}" for v in end) for end in ends)

    glance: dict[str, Any] = {
        "cases": fingerprint.get("parts", {}),
        "class_frequencies": fingerprint["class_frequencies"],
    }
    glance["size, voxels (smallest, median, largest)"] = both("size")
    if not fingerprint["picture"]:
        glance["spacing, mm (smallest, median, largest)"] = both("spacing")
    if fingerprint["warnings"]:
        glance["notes"] = fingerprint["warnings"]
    return dict(json.loads(json.dumps(glance)))


def _pictures(dataset: Dataset, part: str, scored: Scored) -> list[PictureCase]:
    dice, shown = scored.evaluation.case_dice(), []
    for case, title in chosen(dice).items():
        label, sure = dataset.cases[case].label, load_certainty(scored.certainty[case])
        assert label is not None
        shown.append(
            picture_case(
                dataset,
                case,
                label=label,
                prediction=scored.files[case],
                title=title,
                part=part,
                dice=dice[case],
                entropy=sure.entropy if sure is not None else None,
            )
        )
    return shown
