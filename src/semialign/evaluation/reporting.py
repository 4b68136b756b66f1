"""``report``: the page of whatever lies in a folder, a run, a benchmark or an evaluation."""

from collections.abc import Callable
from pathlib import Path

from semialign.common.errors import UserError

Say = Callable[[str, int, int], None]


def report(
    folder: Path,
    *,
    data: Path | None = None,
    part: str | None = None,
    checkpoint: str = "best",
    accelerator: str = "auto",
    progress: Say | None = None,
) -> Path:
    """Write the ``report.html`` of a run, of a benchmark's output or of an evaluation, and return its path.

    Of a run, the cases of ``part`` (``validation``, ``test`` or ``labelled``; by default validation cases, or labelled
    ones where there are none) are predicted with ``checkpoint`` (``best`` or ``last``) on ``accelerator`` and scored
    first, unless they are already. A benchmark and an evaluation hold their figures, and get the page alone. ``data``:
    the data set's folder, where it has moved. Raises :class:`UserError` for a folder that is none of them.
    """
    folder = Path(folder)
    if folder.name in ("bench.json", "summary.json") and folder.is_file():
        folder = folder.parent
    kind = _kind(folder)
    if kind != "run" and part is not None:
        raise UserError(f"--part {part}: {folder} is no run, and holds its figures already; leave it out")
    if kind == "benchmark":
        from semialign.evaluation.benchmark_page import report_bench

        return report_bench(folder)
    if kind == "evaluation":
        from semialign.evaluation.evaluation_report import report_evaluation

        return report_evaluation(folder, data=data)
    from semialign.evaluation.run_report import report_run

    return report_run(folder, data=data, part=part, checkpoint=checkpoint, accelerator=accelerator, progress=progress)


def _kind(folder: Path) -> str:
    if not folder.exists():
        raise UserError(f"{folder}: no such folder")
    if (folder / "bench.json").exists():
        return "benchmark"
    if (folder / "summary.json").exists():
        return "evaluation"
    return "run"
