"""Benchmark files: what they may say, what lies over what, and one-line errors with the nearest name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from semialign.common.errors import UserError
from semialign.config import TrainingSettings
from semialign.evaluation.benchmark_file import DEFAULT_MINUTES, Bench, load_bench, slug
from semialign.evaluation.benchmark_identity import Identity
from semialign.evaluation.benchmark_matrix import planned
from semialign.evaluation.benchmark_run import make_run

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "benchmarks").glob("*.yaml"))


def form(**changes: Any) -> dict[str, Any]:
    return {
        "name": "trial",
        "training": {"minutes": 2},
        "datasets": [{"name": "heart", "data": "heart", "split": "heart/split.json"}],
        "entries": [
            {"name": "labels only", "method": "supervised"},
            {"name": "mean teacher", "method": "mean-teacher"},
            {"name": "all labels", "method": "supervised", "labels": "all"},
        ],
    } | changes


def write(folder: Path, value: Any) -> Path:
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def test_defaults_are_the_rule_of_equal_time_three_seeds_and_supervised_references(tmp_path):
    bench = load_bench(write(tmp_path, form()))
    assert bench.seeds == (0, 1, 2)
    assert (bench.baseline, bench.ceiling) == ("labels only", "all labels")
    assert bench.output == Path("bench/trial")
    assert bench.length == "equal training time: 2 minutes a run"
    assert [e.resolved["training"]["minutes"] for e in bench.entries] == [2.0, 2.0, 2.0]
    assert bench.datasets[0].data == (tmp_path / "heart").resolve()


def test_a_file_that_says_no_length_gives_all_the_same_time(tmp_path):
    bench = load_bench(write(tmp_path, form(training={})))
    assert {e.resolved["training"]["minutes"] for e in bench.entries} == {DEFAULT_MINUTES}


def test_settings_lie_over_common_ones_and_steps_over_minutes_below_them(tmp_path):
    entries = form()["entries"]
    entries[1]["settings"] = {"steps": 70, "learning_rate": 0.5, "weight": 3}
    bench = load_bench(write(tmp_path, form(entries=entries, training={"minutes": 2, "clip_norm": 1})))
    first, second = (entry.resolved["training"] for entry in bench.entries[:2])
    assert (first["minutes"], second["minutes"], second["steps"]) == (2.0, None, 70)
    assert (first["clip_norm"], second["clip_norm"], second["learning_rate"]) == (1.0, 1.0, 0.5)
    assert bench.entries[1].resolved["method_settings"]["weight"] == 3.0
    assert bench.length.startswith("entries train for lengths of their own")


def test_recipes_are_read_beside_the_file_and_the_entry_lies_over_them(tmp_path):
    (tmp_path / "mine.yaml").write_text("method: cps\nsteps: 900\nlearning_rate: 0.3\n")
    entries = [{"name": "mine", "recipe": "mine.yaml", "settings": {"learning_rate": 0.1}}]
    bench = load_bench(write(tmp_path, form(entries=entries, training={})))
    found = bench.entries[0].resolved
    assert found["method"] == "cps"
    assert (found["training"]["steps"], found["training"]["learning_rate"]) == (900, 0.1)
    assert found["training"]["minutes"] is None
    assert (bench.baseline, bench.ceiling) == (None, None)


def test_overrides_reach_every_entry_and_take_a_folder_of_their_own(tmp_path):
    entries = form()["entries"]
    entries[1]["settings"] = {"minutes": 9}
    path = write(tmp_path, form(entries=entries))
    bench = load_bench(path, steps=5, seeds=[7])
    assert {(e.resolved["training"]["steps"], e.resolved["training"]["minutes"]) for e in bench.entries} == {(5, None)}
    assert bench.seeds == (7,)
    assert bench.overrides == {"steps": 5, "seeds": [7]}
    assert bench.output == Path("bench/trial-steps-5")
    assert load_bench(path, minutes=0.5).output == Path("bench/trial-minutes-0.5")
    assert load_bench(path, steps=5, output=tmp_path / "here").output == tmp_path / "here"
    assert load_bench(path, seeds=[1]).output == Path("bench/trial")


def several(**changes: Any) -> dict[str, Any]:
    data = [{"name": n, "data": n, "split": f"{n}/split.json"} for n in ("heart", "polyps", "lesions")]
    data[1]["minutes"] = 5
    entries = form()["entries"]
    entries[1] = {"name": "generated", "method": "semigda", "datasets": ["polyps", "lesions"]}
    return form(datasets=data, entries=entries, **changes)


def test_an_entry_runs_on_the_data_sets_it_names_for_the_time_they_give(tmp_path):
    path = write(tmp_path, several())
    bench = load_bench(path)
    runs = minutes_of_runs(bench)
    assert runs == {
        "heart": {"labels only": 2, "all labels": 2},
        "polyps": {"labels only": 5, "generated": 5, "all labels": 5},
        "lesions": {"labels only": 2, "generated": 2, "all labels": 2},
    }
    assert planned(bench) == 3 * (2 + 3 + 3)
    assert bench.length == (
        "equal training time on each data set (heart: 2 minutes a run; polyps: 5 minutes a run; "
        "lesions: 2 minutes a run)"
    )
    asked = minutes_of_runs(load_bench(path, minutes=1))
    assert {minutes for of in asked.values() for minutes in of.values()} == {1}


def test_minutes_lie_over_steps_below_them(tmp_path: Path) -> None:
    data = [{"name": name, "data": name, "split": f"{name}/split.json"} for name in ("heart", "polyps")]
    data[1]["minutes"] = 5
    entries = form()["entries"][:2]
    entries[1]["settings"] = {"minutes": 3}
    path = write(tmp_path, form(datasets=data, entries=entries, training={"steps": 70}))
    bench = load_bench(path)
    heart, polyps = ([e.settings for e in bench.entries_on(of)] for of in bench.datasets)
    assert [s.get("steps") for s in heart] == [70, None]
    assert [s.get("steps") for s in polyps] == [None, None]
    assert [s.get("minutes") for s in heart] == [None, 3]
    assert [s.get("minutes") for s in polyps] == [5, 5]
    assert {e.resolved["training"]["steps"] for e in bench.entries_on(bench.datasets[1])} == {TrainingSettings.steps}


def minutes_of_runs(bench: Bench) -> dict[str, dict[str, float]]:
    return {
        data.name: {e.name: e.resolved["training"]["minutes"] for e in bench.entries_on(data)}
        for data in bench.datasets
    }


def test_a_run_of_one_set_has_the_key_it_has_in_a_file_of_many(tmp_path):
    alone = load_bench(write(tmp_path, form(training={"minutes": 5})))
    (tmp_path / "many").mkdir()
    data = {"name": "heart", "data": "heart", "split": "heart/split.json", "minutes": 5}
    many = load_bench(write(tmp_path / "many", form(datasets=[data, {**data, "name": "again", "minutes": 1}])))
    same = Identity("same", "same", "same", ())
    keys = [
        make_run(b.datasets[0], b.entries_on(b.datasets[0])[0], 0, output=tmp_path, identity=same).key
        for b in (alone, many)
    ]
    assert keys[0] == keys[1]


def test_variables_in_paths(tmp_path, monkeypatch):
    data = [{"name": "heart", "data": "${TRIAL_DATA:-../else}/heart", "split": "${TRIAL_DATA:-../else}/heart/s.json"}]
    path = write(tmp_path, form(datasets=data))
    monkeypatch.delenv("TRIAL_DATA", raising=False)
    assert load_bench(path).datasets[0].data == (tmp_path.parent / "else" / "heart").resolve()
    monkeypatch.setenv("TRIAL_DATA", str(tmp_path / "there"))
    assert load_bench(path).datasets[0].split == (tmp_path / "there" / "heart" / "s.json").resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIAL_DATA", "from-here")
    assert load_bench(path).datasets[0].data == (tmp_path / "from-here" / "heart").resolve()


def test_variables_in_settings_make_paths(tmp_path, monkeypatch):
    entries = form()["entries"]
    entries[1] = {"name": "generated", "method": "semigda", "settings": {"autoencoder": "taef2"}}
    entries[1]["settings"]["weights"] = "${TRIAL_WEIGHTS:-../else}/taef2.safetensors"
    path = write(tmp_path, form(entries=entries))

    def found() -> dict[str, Any]:
        return load_bench(path).entries[1].resolved["method_settings"]

    monkeypatch.delenv("TRIAL_WEIGHTS", raising=False)
    assert found()["weights"] == str(tmp_path.parent.resolve() / "else" / "taef2.safetensors")
    assert found()["autoencoder"] == "taef2", "text without a variable stays as it is"
    monkeypatch.setenv("TRIAL_WEIGHTS", str(tmp_path))
    assert found()["weights"] == str(tmp_path.resolve() / "taef2.safetensors")
    entries[1]["settings"]["weights"] = "${NOT_SET_ANYWHERE}/taef2.safetensors"
    with pytest.raises(UserError, match="has no NOT_SET_ANYWHERE"):
        load_bench(write(tmp_path, form(entries=entries)))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"seedz": [0]}, "unknown key 'seedz'; did you mean 'seeds'?"),
    ({"seeds": [0, 0]}, "'seeds' must be different"),
    ({"seeds": []}, "at least one"),
    ({"seeds": 3}, "must be a list"),
    ({"datasets": []}, "'datasets' is missing or empty"),
    ({"datasets": [{"name": "heart", "data": "x", "splt": "y"}]}, "did you mean 'split'?"),
    ({"datasets": [{"name": "heart", "data": "x"}]}, "'split' is missing"),
    ({"datasets": [{"name": "heart"}]}, "give either data or phantom"),
    ({"datasets": [{"name": "heart", "phantom": {"cases": 9}, "split": "y"}]}, "leave out 'split'"),
    ({"datasets": [{"name": "heart", "phantom": {"casses": 9}}]}, "did you mean 'cases'?"),
    ({"datasets": [{"name": "?", "phantom": {}}]}, "needs a name"),
    ({"datasets": [{"name": "heart", "data": "x", "split": "y", "group_by": "("}]}, "not a regular expression"),
    ({"datasets": [{"name": "heart", "data": "${NOT_SET_ANYWHERE}/x", "split": "y"}]}, "has no NOT_SET_ANYWHERE"),
    ({"entries": [{"name": "A b", "method": "cps"}, {"name": "a-b", "method": "cps"}]}, "would share a folder"),
    ({"entries": [{"name": "a"}]}, "entry 'a': name a method or a recipe"),
    ({"entries": [{"name": "a", "method": "cpss"}]}, "entry 'a': unknown method 'cpss'; did you mean 'cps'?"),
    ({"entries": [{"name": "a", "method": "cps", "labels": "al"}]}, "did you mean 'all'?"),
    ({"entries": [{"name": "a", "method": "cps", "settings": {"lerning_rate": 1}}]}, "did you mean 'learning_rate'?"),
    ({"entries": [{"name": "a", "method": "cps", "settings": {"seed": 1}}]}, "list 'seeds' at the top"),
    ({"entries": [{"name": "a", "recipe": "none.yaml"}]}, "no such file"),
    ({"training": {"minutes": -1}}, "must be more than 0"),
    ({"training": {"minuts": 1}}, "did you mean 'minutes'?"),
    (
        {"datasets": [{"name": "heart", "data": "x", "split": "y", "minutes": 0}]},
        "data set 'heart': minutes 0: must be more than 0",
    ),
    (
        {"entries": [{"name": "a", "method": "cps", "datasets": ["hart"]}]},
        "entry 'a': unknown data set 'hart'; did you mean 'heart'?",
    ),
    ({"baseline": "label only"}, "'baseline': unknown entry 'label only'; did you mean 'labels only'?"),
    ({"baseline": "all labels"}, "must have labels: split"),
    ({"ceiling": "mean teacher"}, "must have labels: all"),
    ({"name": ""}, "'name' is missing"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_mistakes_are_one_line_that_names_the_file(tmp_path, changes, message):
    path = write(tmp_path, form(**changes))
    with pytest.raises(UserError) as caught:
        load_bench(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_bench(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="a benchmark holds"):
        load_bench(write(tmp_path, [1, 2]))
    with pytest.raises(UserError, match="give one of them"):
        load_bench(write(tmp_path, form()), steps=1, minutes=1)


def test_slug():
    assert slug("Mean teacher + SCDL, 10 %") == "mean-teacher-+-scdl-10"


@pytest.mark.parametrize("path", [*FILES, ROOT / "scripts" / "demo.yaml"], ids=lambda path: path.stem)
def test_shipped_files_are_sound(path):
    bench = load_bench(path)
    assert bench.length.startswith("equal training time")
    assert bench.baseline is not None
    if path.stem not in ("semigda-ablation", "screening"):  # which show no share of the gap
        assert bench.ceiling is not None
    if path.parent.name == "benchmarks":
        assert len(bench.seeds) >= 3 or "one seed" in bench.description


def test_the_repository_ships_the_benchmarks():
    assert {"comparison", "lesion-pictures", "scdl-abdomen", "semigda-ablation"} <= {path.stem for path in FILES}
    names = {data.name for data in load_bench(ROOT / "benchmarks" / "comparison.yaml").datasets}
    assert {"hippocampus, 4 labelled", "left atrium", "acdc", "abdomen", "kvasir", "busi"} <= names
