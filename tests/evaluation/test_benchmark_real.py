"""A benchmark with real training, prediction and scoring, on a phantom that it makes itself."""

import yaml

from semialign.evaluation.benchmark import bench


def test_real_runs_on_a_phantom(tmp_path):
    made = {"cases": 9, "labelled": 2, "validation": 2, "test": 3, "dimensions": 2, "size": [64, 64]}
    value = {
        "name": "tiny",
        "seeds": [0],
        "training": {"steps": 4, "validations": 2, "workers": 0, "batch_labelled": 2, "batch_unlabelled": 2},
        "datasets": [{"name": "lesions", "phantom": made}],
        "entries": [
            {"name": "labels only", "method": "supervised"},
            {"name": "mean teacher", "method": "mean-teacher"},
            {"name": "all labels", "method": "supervised", "labels": "all"},
        ],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(value))
    result = bench(path, output=tmp_path / "out")
    assert result.failed == {}
    rows = {row["entry"]: row for row in result.value["results"]}
    assert {name: row["cases"]["labelled"] for name, row in rows.items()} == {
        "labels only": 2, "mean teacher": 2, "all labels": 4,
    }  # fmt: skip
    for row in rows.values():
        assert set(row["checkpoints"]) == {"last", "best"}
        assert row["steps"]["median"] == 4
        assert 0 <= row["checkpoints"]["last"]["dice"]["mean"] <= 1
        assert row["predict_seconds"]["median"] > 0
        assert row["peak_memory_bytes"]["median"] is None or row["peak_memory_bytes"]["median"] > 2**20
    # A mean teacher trains two networks, and predicts with one.
    parameters = {row["parameters"]["median"] for row in rows.values()}
    assert len(parameters) == 1
    assert parameters.pop() > 10_000
    assert len(result.value["pairs"]) == 6  # of each checkpoint three
    run = tmp_path / "out" / "runs" / "lesions" / "mean-teacher" / "seed-0"
    assert len(list((run / "predictions" / "last").glob("*.png"))) == 3
    assert (run / "evaluation" / "last" / "cases.csv").exists()
    stamp = (run / "last.pt").stat().st_mtime_ns
    assert bench(path, output=tmp_path / "out").value == result.value
    assert (run / "last.pt").stat().st_mtime_ns == stamp
