"""Recipes: what a file may hold, how bases, plans and splits take effect, and that every shipped one trains."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from owners_data import SIZE, amos22, btcv
from raw_data import LABELS, describe, organ, save_volume, volumes
from raw_data import write_split as write_file

from semialign.cli.main import main
from semialign.common.errors import UserError
from semialign.data.importers import import_dataset
from semialign.data.plan import load_plan
from semialign.data.plan_overlay import laid_over
from semialign.data.planning import Budget, make_plan
from semialign.data.prepare import prepare
from semialign.data.splits import PARTS, published_splits, read_split_file
from semialign.recipes.load import load_recipe, recipe_names, settings_of
from semialign.training.resolve import resolve
from semialign.training.train import train

# Name to published split; each as GA-CPS alone and with SCDL.
PUBLISHED = {
    "synapse-20": "synapse-ga-20p",
    "synapse-10": "synapse-ga-10p",
    "amos-2": "amos-2p",
    "amos-5": "amos-5p",
    "amos-10": "amos-10p",
}
PROTOCOLS = [f"{name}-{what}" for name in PUBLISHED for what in ("ga-cps", "scdl-ga-cps")]
SMALL = {"widths": [2, 4, 8, 16, 32], "patch_size": [32, 16, 16]}


def write(path: Path, **values: Any) -> str:
    """A recipe file."""
    path.write_text(yaml.safe_dump(values))
    return str(path)


def planned(recipe: str) -> Any:
    """The plan that a recipe makes of an ordinary CT set's, or of grey pictures'."""
    pictures = (load_recipe(recipe).get("plan") or {}).get("dimensions") == 2
    seen = {
        "picture": pictures,
        "median_size": [600, 500] if pictures else [250, 250, 120],
        "median_spacing": None if pictures else [1.4, 1.4, 3.0],
        "intensities": [{"low": -100.0, "high": 300.0, "mean": 80.0, "std": 90.0}],
    }
    budget = Budget("tests", 64**3, 256**2, 256**2, (8, 16, 32), 4, 1.0, 0.0)
    plan = make_plan(seen, channel_names=["CT"], class_names=["background", "a", "b"], budget=budget)
    return laid_over(plan, load_recipe(recipe).get("plan") or {}, recipe)


def test_the_protocols_are_shipped() -> None:
    assert set(PROTOCOLS) <= set(recipe_names())
    texts = [load_recipe(name)["description"] for name in recipe_names()]
    assert len(set(texts)) == len(texts)


def test_the_documentation_lists_all_recipes_and_splits() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for page, names in (
        ("reference/recipes.md", recipe_names()),
        ("how-to/published-protocols.md", published_splits()),
    ):
        text = (docs / page).read_text(encoding="utf-8")
        assert [name for name in names if f"`{name}`" not in text] == []
    for line in text.splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if cells[0] in published_splits():
            value = read_split_file(Path(cells[0]))
            assert [int(cell) for cell in cells[1:5]] == [len(value[part]) for part in PARTS]


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_sound(name: str) -> None:
    from semialign.evaluation.aggregate import RULES

    recipe = load_recipe(name)
    resolve(None, name, {})  # raises for any unknown or wrong setting
    planned(name)  # raises for any field of the plan that does not fit
    assert "base" not in recipe
    assert recipe.get("split", "amos-2p") in published_splits()
    assert recipe.get("rule", "default") in RULES
    assert not {"description", "plan", "split", "rule"} & set(settings_of(recipe))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_as_published(name: str) -> None:
    recipe, plan = load_recipe(name), planned(name)
    method, training, own, plugins = resolve(None, name, {})
    family, _, rest = name.partition("-")
    assert (method, list(plugins)) == ("ga-cps", ["scdl"] if "scdl" in rest else [])
    assert (recipe["split"], recipe["rule"]) == (PUBLISHED[f"{family}-{rest.split('-')[0]}"], "ga")
    assert (training.optimiser, training.learning_rate, training.momentum) == ("sgd", 0.01, 0.9)
    assert (training.weight_decay, training.clip_norm, training.steps) == (1e-4, None, 17000)
    assert (training.lr_decay_steps, training.warmup_steps, training.minutes) == (None, 0, None)
    assert (training.augmentation, training.foreground) == ("none", 0.0)
    assert training.steps // training.validations == (500 if family == "synapse" else 1000)
    assert (own["weight"], own["start"], own["rampup_steps"], own["on_labelled"]) == (0.1, 0.0, 17000, True)
    assert (own["keep_start"], own["keep_labelled"], own["keep_pseudo"], own["gamma"]) == (10.0, 10.0, 100.0, 0.5)
    assert (plan.network, plan.norm, plan.dropout, plan.widths[0]) == ("vnet", "batch", False, 16)
    assert (plan.patch_size, plan.batch_labelled, plan.batch_unlabelled) == ((96, 96, 96), 2, 2)
    grid = ((1.5, 1.5, 2.0), None) if family == "synapse" else (None, (160, 160, 80))
    assert (plan.spacing, plan.volume_size) == grid
    (window,) = plan.normalisation
    ends = np.clip([-3000.0, -125.0, 75.0, 275.0, 3000.0], window.low, window.high)
    np.testing.assert_allclose((ends - window.mean) / window.std, [0, 0, 0.5, 1, 1])


COUNTS = {"polyps": (145, 435), "isic": (207, 622), "busi": (52, 155), "bcss": (272, 816)}  # SemiGDA's, 10 and 30 %


@pytest.mark.parametrize("name", COUNTS)
def test_semigdas_counts_and_schedules(name: str) -> None:
    for share, count in zip((10, 30), COUNTS[name], strict=True):
        recipe = f"{name}-{share}-semigda"
        method, training, own, _ = resolve(None, recipe, {})
        plan = planned(recipe)
        assert (method, own["autoencoder"], own["size"], own["weight"]) == ("semigda", "sd", "paper", 0.1)
        assert f"for {count} labelled ({share} %" in load_recipe(recipe)["description"]
        assert (plan.patch_size, plan.batch_labelled, plan.batch_unlabelled) == ((224, 224), 2, 2)
        assert plan.picture_size == (None if name == "bcss" else (224, 224))
        passes = training.steps * plan.batch_labelled / count
        assert passes * own["align_share"] == pytest.approx(200)
        assert passes == 550


def test_a_recipe_lies_over_its_base(tmp_path: Path) -> None:
    base = {"method": "cps", "weight": 0.3, "minutes": 9, "plan": {"spacing": [1, 1, 1], "mirror_axes": []}}
    write(tmp_path / "base.yaml", **base)
    (tmp_path / "inner").mkdir()
    name = write(tmp_path / "inner" / "own.yaml", base="../base.yaml", weight=0.5, plan={"spacing": [2, 2, 2]})
    laid = {"method": "cps", "weight": 0.5, "minutes": 9, "plan": {"spacing": [2, 2, 2], "mirror_axes": []}}
    assert load_recipe(name) == laid
    # Minutes rule over steps, so that a base's may not outlive the steps that lie over them.
    assert "minutes" not in load_recipe(write(tmp_path / "steps.yaml", base="base.yaml", steps=7))
    shipped = load_recipe(write(tmp_path / "of-shipped.yaml", base="mean-teacher-classic", weight=0.7))
    assert shipped == load_recipe("mean-teacher-classic") | {"weight": 0.7}


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "itself": ({"base": "own.yaml"}, "its base leads back to it"),
    "a circle": ({"base": "other.yaml"}, "its base leads back to it"),
    "unknown base": ({"base": "mean-teacher-clasic"}, "unknown base 'mean-teacher-clasic'; did you mean"),
    "no base file": ({"base": "none.yaml"}, "no such file"),
    "base of another kind": ({"base": ["cps"]}, "base must be a recipe's name or file"),
    "plan of another kind": ({"plan": [1]}, "plan must hold fields of the plan"),
    "split of another kind": ({"split": {"labelled": ["a"]}}, "split must be a name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_recipe_is_named(fault: str, tmp_path: Path) -> None:
    values, words = FAULTS[fault]
    write(tmp_path / "other.yaml", base="own.yaml")
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path / "own.yaml", **values))
    assert words in str(error.value)
    assert ".yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set: a and b labelled, c not."""
    return volumes(tmp_path_factory.mktemp("raw"))


PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"patch_sise": [1]}, "unknown key 'patch_sise'; did you mean 'patch_size'"),
    "wrong type": ({"patch_size": 64}, "'patch_size' must be a list"),
    "misfit": ({"patch_size": [17, 16, 16]}, "must be multiples of"),
    "two sizes": ({"volume_size": [16, 16, 16]}, "set one of the two to null"),
    "channels": ({"normalisation": [{"scheme": "z-score"}] * 2}, "for 2 channels, not 1; choose another recipe"),
}


@pytest.mark.parametrize("fault", PLANS)
def test_a_plan_that_does_not_fit_is_named(fault: str, raw: Path, tmp_path: Path) -> None:
    fields, words = PLANS[fault]
    recipe = write(tmp_path / "own.yaml", plan=fields)
    with pytest.raises(UserError) as error:
        prepare(raw, recipe=recipe, output=tmp_path / "out", accelerator="cpu")
    assert words in str(error.value)
    assert recipe in str(error.value)
    assert not (tmp_path / "out" / "plan.yaml").exists()


def test_a_plan_has_a_folder_of_its_own(tmp_path: Path) -> None:
    data = volumes(tmp_path / "raw")
    split = write_file(tmp_path / "mine.json", labelled=["a", "b"], unlabelled=["c"])
    recipe = write(tmp_path / "coarse.yaml", method="supervised", plan={"spacing": [2, 2, 2]})
    plain, coarse = prepare(data, split, accelerator="cpu"), prepare(data, split, recipe=recipe, accelerator="cpu")
    assert (plain.folder, coarse.folder) == (data / "prepared" / "mine", data / "prepared" / "mine-coarse")
    assert (plain.plan.spacing, coarse.plan.spacing) == ((1, 1, 1), (2, 2, 2))
    assert [s.store.image("a").shape[1:] for s in (plain, coarse)] == [(20, 18, 16), (10, 9, 8)]
    assert "recipe" in coarse.plan.made_for
    # A recipe without a plan prepares what everybody does.
    plainer = write(tmp_path / "plainer.yaml", method="supervised")
    assert prepare(data, split, recipe=plainer, accelerator="cpu").folder == plain.folder
    run = train(
        data, recipe=recipe, split=split, output=tmp_path / "run", accelerator="cpu", report=False,
        settings={"steps": 1, "workers": 0},
    )  # fmt: skip
    assert load_plan(coarse.folder / "plan.yaml") == coarse.plan
    assert yaml.safe_load((run / "config.yaml").read_text())["plan"]["spacing"] == [2, 2, 2]
    assert sorted(p.name for p in (data / "prepared").iterdir()) == ["mine", "mine-coarse"]


def test_a_plan_that_stands_may_not_contradict_the_recipe(raw: Path, tmp_path: Path) -> None:
    recipe, out = write(tmp_path / "own.yaml", plan={"spacing": [2, 2, 2]}), tmp_path / "out"
    prepare(raw, recipe=recipe, output=out, accelerator="cpu")
    (out / "plan.yaml").write_text((out / "plan.yaml").read_text().replace("batch_labelled: 2", "batch_labelled: 1"))
    assert prepare(raw, recipe=recipe, output=out, accelerator="cpu").plan.batch_labelled == 1  # an edit beside it
    write(tmp_path / "own.yaml", plan={"spacing": [3, 2, 2]})
    with pytest.raises(UserError, match=r"plan.yaml: spacing is \[2.0, 2.0, 2.0\], but plan of recipe .* \[3.0, 2.0"):
        prepare(raw, recipe=recipe, output=out, accelerator="cpu")


def test_the_recipes_split_is_used_where_none_is_given(tmp_path: Path, raw: Path) -> None:
    parts = {part: ids for part, ids in read_split_file(Path("synapse-ga-20p")).items() if isinstance(ids, list)}
    data = describe(tmp_path / "raw", channels=("CT",))
    for number, case in enumerate(case for ids in parts.values() for case in ids):
        image, label = organ((8, 8, 8), number)
        save_volume(data / "imagesTr" / f"{case}_0000.nii.gz", image)
        save_volume(data / "labelsTr" / f"{case}.nii.gz", label)
    recipe = write(tmp_path / "tiny.yaml", base="synapse-20-ga-cps", plan=SMALL)
    ready = prepare(data, recipe=recipe, accelerator="cpu", workers=1)
    assert ready.folder == data / "prepared" / "synapse-ga-20p-tiny"
    assert {part: list(getattr(ready.split, part)) for part in parts} == parts
    # One that is given counts more; and a recipe's split must fit the data.
    split = write_file(tmp_path / "own.json", labelled=["0001"], unlabelled=["0002"])
    assert prepare(data, split, recipe=recipe, accelerator="cpu", workers=1).split.labelled == ("0001",)
    with pytest.raises(UserError, match='synapse-ga-20p: "labelled" names case 0002, which the data set lacks'):
        prepare(raw, recipe=recipe, output=tmp_path / "out", accelerator="cpu")


def test_plan_and_split_are_no_settings_of_a_run(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(raw), "--accelerator", "cpu", "--set", "plan.spacing=[2,2,2]"]) == 2
    assert "'plan' is no setting of a run; write it into a recipe file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_prepare_and_train_agree_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, split = volumes(tmp_path / "raw"), write_file(tmp_path / "s.json", labelled=["a", "b"], unlabelled=["c"])
    plan = {"spacing": None, "volume_size": [16, 16, 8]}
    recipe = write(tmp_path / "sized.yaml", method="supervised", steps=1, plan=plan)
    options = [str(data), "--split", str(split), "--recipe", recipe, "--accelerator", "cpu"]
    assert main(["prepare", *options]) == 0
    assert "of volumes resized to 16 x 16 x 8" in capsys.readouterr().out
    assert main(["train", *options, "--output", str(tmp_path / "run"), "--set", "workers=0"]) == 0
    assert [p.name for p in (data / "prepared").iterdir()] == ["s-sized"]


def test_a_benchmark_keeps_plans_apart(tmp_path: Path) -> None:
    from semialign.evaluation.benchmark import list_runs

    data, split = volumes(tmp_path / "raw", 3), write_file(tmp_path / "s.json", labelled=["a"], test=["b"])
    write(tmp_path / "one.yaml", method="cps", plan={"spacing": [2, 2, 2]})
    write(tmp_path / "two.yaml", base="one.yaml", method="supervised")
    form = {"name": "b", "seeds": [0], "datasets": [{"name": "d", "data": str(data), "split": str(split)}]}
    recipes = ({"recipe": "one.yaml"}, {"recipe": "two.yaml"}, {"method": "cps"})
    form["entries"] = [{"name": str(i), **entry} for i, entry in enumerate(recipes)]
    path = write(tmp_path / "bench.yaml", **form)
    first, second, bare = (run for run, _ in list_runs(Path(path), output=tmp_path / "out"))
    assert first.prepared == second.prepared != bare.prepared
    write(tmp_path / "one.yaml", method="cps", plan={"spacing": [3, 3, 3]})
    changed = list_runs(Path(path), output=tmp_path / "out")[0][0]
    assert changed.prepared != first.prepared
    assert changed.key != first.key


def test_evaluate_takes_split_and_rule_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, predicted = tmp_path / "labelsTr", tmp_path / "predicted"
    describe(tmp_path, {**LABELS, "absent": 2})
    for number, case in enumerate([*read_split_file(Path("synapse-ga-20p"))["test"], "0001"]):
        for folder in (labels, predicted):
            save_volume(folder / f"{case}.nii.gz", organ((8, 8, 8), number)[1])
    options = ["evaluate", str(predicted), str(labels), "--recipe", "synapse-20-ga-cps"]
    assert main(options) == 0
    summary = json.loads((predicted / "evaluation" / "summary.json").read_text())
    assert (summary["rule"], summary["cases"]) == ("ga", 6)
    assert summary["classes"]["absent"]["dice"]["mean"] == 1.0  # as that rule has it
    assert main([*options, "--rule", "dhc"]) == 0
    assert json.loads((predicted / "evaluation" / "summary.json").read_text())["rule"] == "dhc"
    assert main([*options, "--part", "validation"]) == 2  # not predicted
    assert "no prediction for 4 of 4 cases" in capsys.readouterr().err


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Phantoms in the owners' forms, imported, with a split of some of the published ids."""
    root = tmp_path_factory.mktemp("owners")
    btcv(root / "btcv", ["0002", "0023", "0001", "0006", "0004"], ["0061"])
    import_dataset("synapse", root / "btcv", root / "synapse", near_copy_threshold=1.0)
    training, validation = ["amos_0078", "amos_0514", "amos_0001", "amos_0004"], ["amos_0008"]
    amos22(root / "amos22", training, validation, ["amos_0002"])
    import_dataset("amos", root / "amos22", root / "amos", near_copy_threshold=1.0)
    parts = {
        "synapse": (["0002", "0023"], ["0001", "0061"], ["0006"], ["0004"]),
        "amos": (training[:2], [training[2], "amos_0002"], training[3:], validation),
    }
    return {
        name: (root / name, write_file(root / f"{name}.json", **dict(zip(PARTS, ids, strict=True))))
        for name, ids in parts.items()
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_trains_on_the_owners_files(name: str, owners: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    from semialign.inference.predictor import predict

    family = name.split("-")[0]
    data, split = owners[family]
    grid: dict[str, Any] = {"spacing": [13, 13, 13]} if family == "synapse" else {"volume_size": [28, 20, 18]}
    # Of maps of a voxel or two, PyTorch's bfloat16 convolutions on a processor may give gradients that are no numbers.
    small: dict[str, Any] = {"steps": 2, "validations": 1, "workers": 0, "rampup_steps": 2, "precision": "float32"}
    small |= {"scdl": {"embedding": 8, "samples": 4}} if "scdl" in name else {}
    recipe = write(tmp_path / "tiny.yaml", base=name, plan=SMALL | grid, **small)
    run = train(
        data, recipe=recipe, split=split, prepared=tmp_path / "prepared", output=tmp_path / "run", accelerator="cpu",
        report=name == "amos-5-scdl-ga-cps",
    )  # fmt: skip
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["method"], list(config["plugins"])) == ("ga-cps", ["scdl"] if "scdl" in name else [])
    assert config["plan"]["normalisation"][0]["low"] == -125
    assert len(config["class_names"]) == (14 if family == "synapse" else 16)
    assert np.isfinite(np.genfromtxt(run / "log.csv", delimiter=",", names=True)["loss"]).all()
    assert (run / "best.pt").exists()
    (test,) = json.loads(split.read_text())["test"]
    image = data / "imagesTr" / f"{test}_0000.nii.gz"
    assert not predict([run], [image], tmp_path / "out", accelerator="cpu").failed
    ours, theirs = nibabel.load(tmp_path / "out" / f"{test}.nii.gz"), nibabel.load(image)
    assert ours.shape == theirs.shape == SIZE  # resized for the network alone
    np.testing.assert_allclose(ours.affine, theirs.affine)
