"""Several runs of a benchmark at once: the same results, killed or not, and no process that outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stand_in_bench import pictures, stand, trial
from stand_in_worker import WORKER

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.evaluation import benchmark_jobs
from semialign.evaluation.benchmark import Told, bench, list_runs
from semialign.evaluation.benchmark_jobs import gpus, number_of_jobs, surroundings

__all__ = ["pictures", "stand", "trial"]  # fixtures

ENTRIES = [{"name": "labels only", "method": "supervised"}, {"name": "mean teacher", "method": "mean-teacher"}]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs go to processes in which training is stood in for; the folder says what they do."""
    monkeypatch.setattr(benchmark_jobs, "WORKER", WORKER)
    monkeypatch.setenv("STAND_IN", str(tmp_path / "stand"))
    (tmp_path / "stand").mkdir()
    return tmp_path / "stand"


def told(output: Path) -> list[dict[str, Any]]:
    """What decides the page, of every run in ``bench.json``."""
    keys = ("entry", "seed", "key", "state", "settings", "cases", "steps", "parameters", "checkpoints")
    keys += ("predict_seconds",)
    return [{key: run[key] for key in keys} for run in read_json(output / "bench.json")["runs"]]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that nobody has asked about, still has a number.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_two_at_once_give_what_one_gives_and_one_that_dies_is_tried_again(trial, stand, workers, tmp_path):
    file = trial(entries=ENTRIES, seeds=[0])
    bench(file, output=tmp_path / "one", jobs=1)
    (workers / "die").touch()
    seen: list[Told] = []
    lines: list[str] = []
    options: dict[str, Any] = {"output": tmp_path / "two", "jobs": 2, "accelerator": "cpu"}
    result = bench(file, **options, watch=seen.append, tell=lines.append)
    reason = "its process was ended (signal 9), perhaps for want of memory"
    assert result.failed == {"pictures, mean teacher, seed 0": reason}
    assert f"Failed: mean teacher, seed 0: {reason}" in (tmp_path / "two" / "bench.md").read_text(encoding="utf-8")
    assert ("pictures, labels only, seed 0", "running", "train", 1, 10) in [
        (t.title, t.state, t.what, t.done, t.of) for t in seen
    ]
    assert {t.state for t in seen} == {"running", "finished", "failed"}
    assert any(line.startswith("  pictures, labels only, seed 0: mean Dice") for line in lines)
    (workers / "die").unlink()
    value = bench(file, **options).value
    assert told(tmp_path / "two") == told(tmp_path / "one")
    assert [row["side_by_side"] for row in value["results"]] == [2, 2]
    assert "Up to 2 runs ran side by side and shared its cores" in (tmp_path / "two" / "bench.md").read_text(
        encoding="utf-8"
    )
    assert "side by side" not in (tmp_path / "one" / "bench.md").read_text(encoding="utf-8")


def test_data_that_are_not_here_stop_none_of_the_others(trial, stand, workers, pictures, tmp_path):
    here = {"name": "here", "data": str(pictures), "split": str(pictures / "split.json")}
    gone = {"name": "gone", "data": "nowhere", "split": "nowhere/split.json"}
    file = trial(entries=ENTRIES, seeds=[0], datasets=[gone, here])
    result = bench(file, only=["here"], jobs=2, accelerator="cpu")
    assert result.failed == {}
    assert [run["state"] for run in result.value["runs"]] == ["finished"] * 2
    text = (tmp_path / "out" / "bench.md").read_text(encoding="utf-8")
    assert "Left out, though the file names it: gone (" in text
    assert "nowhere: no such" in text


def test_runs_side_by_side_load_with_processes_of_their_own(trial, tmp_path):
    training = {"steps": 2, "workers": 1, "validations": 0}
    file = trial(entries=ENTRIES[:1], training=training)
    command = [sys.executable, "-m", "semialign.cli.main", "bench", str(file), "--output", str(tmp_path / "out")]
    command += ["--jobs", "2", "--accelerator", "cpu"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)  # it hung here for ever
    assert done.returncode == 0, done.stderr
    assert [run["state"] for run in told(tmp_path / "out")] == ["finished", "finished"]


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells processes apart by /proc")
def test_killed_it_leaves_no_process_and_a_second_call_ends_the_same(trial, stand, workers, tmp_path):
    file, killed = trial(entries=ENTRIES), tmp_path / "killed"
    bench(file, output=tmp_path / "one", jobs=1)
    (workers / "sleep").write_text("1")
    command = [*WORKER, "bench", str(file), str(killed)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not any(state == "finished" for _, state in list_runs(file, output=killed)):
        assert time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    while any(alive(int(path.stem)) for path in workers.glob("*.pid")):
        assert time.monotonic() < until
        time.sleep(0.05)
    states = [state for _, state in list_runs(file, output=killed)]
    assert 0 < states.count("finished") < 4
    (workers / "sleep").write_text("0")
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert told(killed) == told(tmp_path / "one")


def test_shares_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_jobs.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 6, 7}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = [surroundings(slot, 2, []) for slot in (0, 1)]
    assert [cores for _, cores in found] == [{0, 1, 2}, {3, 6, 7}]
    assert {environment["OMP_NUM_THREADS"] for environment, _ in found} == {"3"}
    assert [surroundings(slot, 8, [])[1] for slot in (0, 7)] == [{0}, {1}]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert surroundings(0, 2, [])[0]["OMP_NUM_THREADS"] == "1"


def test_every_run_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus("auto") == ["0", "1"]
    assert gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7a")
    assert gpus("cuda") == ["5", "GPU-7a"]
    found = [surroundings(slot, 3, ["5", "GPU-7a"]) for slot in range(3)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment, _ in found] == ["5", "GPU-7a", "5"]
    assert {cores for _, cores in found} == {None}


def test_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (number_of_jobs(None, "auto"), number_of_jobs(None, "cpu"), number_of_jobs(3, "auto")) == (4, 1, 3)
    with pytest.raises(UserError, match="--jobs 0: must be at least 1"):
        number_of_jobs(0, "auto")
