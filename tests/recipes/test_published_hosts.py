"""Recipes of the published hosts: what they set, and that each kind trains on a tiny set of the owner's channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from raw_data import LABELS, describe, organ, save_volume
from raw_data import write_split as write_file

from semialign.data.plan_overlay import laid_over
from semialign.data.planning import Budget, make_plan
from semialign.data.splits import read_split_file
from semialign.recipes.load import load_recipe, recipe_names
from semialign.training.resolve import resolve
from semialign.training.train import train

PATCH = {"magic": (96, 96, 96), "dhc": (128, 128, 64), "atrium": (112, 112, 80), "slice": (256, 256, 1)}
SCDL_HOSTS = ("ga-magicnet", "dhc", "generic-ssl")
HOSTS: dict[str, tuple[Any, ...]] = {  # method, split, rule, steps, learning rate, weight decay, patch
    "synapse-20-magicnet": ("magicnet", "synapse-ga-20p", "ga", 70000, 0.01, 1e-4, "magic"),
    "synapse-20-ga-magicnet": ("ga-magicnet", "synapse-ga-20p", "ga", 17000, 0.01, 1e-4, "magic"),
    "amos-5-ga-magicnet": ("ga-magicnet", "amos-5p", "ga", 17000, 0.01, 1e-4, "magic"),
    "synapse-20-dhc": ("dhc", "synapse-ad-20p", "dhc", 2400, 0.03, 3e-5, "dhc"),
    "amos-2-dhc": ("dhc", "amos-2p", "dhc", 31800, 0.03, 3e-5, "dhc"),
    "amos-5-dhc": ("dhc", "amos-5p", "dhc", 20600, 0.03, 3e-5, "dhc"),
    "amos-10-dhc": ("dhc", "amos-10p", "dhc", 29400, 0.03, 3e-5, "dhc"),
    "synapse-20-generic-ssl": ("generic-ssl", "synapse-ad-20p", "dhc", 2400, 0.01, 3e-5, "dhc"),
    "amos-5-generic-ssl": ("generic-ssl", "amos-5p", "dhc", 30900, 0.01, 3e-5, "dhc"),
    "left-atrium-10-generic-ssl": ("generic-ssl", "left-atrium-10p", "default", 10800, 0.01, 3e-5, "atrium"),
    "left-atrium-10-bcp": ("bcp", "left-atrium-10p", None, 17000, 0.01, 1e-4, "atrium"),
    "left-atrium-20-bcp": ("bcp", "left-atrium-20p", None, 17000, 0.01, 1e-4, "atrium"),
    "acdc-10-bcp": ("bcp", None, None, 40000, 0.01, 1e-4, "slice"),
}
PLUGGED = {f"{data}-{host}": f"{data}-scdl-{host}" for data in ("synapse-20", "amos-5") for host in SCDL_HOSTS}


def _plan(recipe: str) -> Any:
    seen = {
        "picture": False,
        "median_size": [250, 250, 120],
        "median_spacing": [1.4, 1.4, 3.0],
        "intensities": [{"low": -100.0, "high": 300.0, "mean": 80.0, "std": 90.0}],
    }
    budget = Budget("tests", 64**3, 256**2, 256**2, (8, 16, 32), 4, 1.0, 0.0)
    plan = make_plan(seen, channel_names=["CT"], class_names=["background", "a", "b"], budget=budget)
    return laid_over(plan, load_recipe(recipe)["plan"], recipe)


@pytest.mark.parametrize("name", HOSTS)
def test_a_protocol_is_as_published(name: str) -> None:
    method, split, rule, steps, rate, decay, patch = HOSTS[name]
    recipe, plan = load_recipe(name), _plan(name)
    found, training, own, plugins = resolve(None, name, {})
    assert (found, list(plugins), recipe.get("split"), recipe.get("rule")) == (method, [], split, rule)
    assert (training.steps, training.learning_rate, training.weight_decay) == (steps, rate, decay)
    assert (training.optimiser, training.momentum, training.clip_norm, training.minutes) == ("sgd", 0.9, None, None)
    assert plan.patch_size == PATCH[patch]
    assert plan.network == ("unet" if patch == "slice" else "vnet")
    assert plan.widths[0] == (32 if method in ("dhc", "generic-ssl") else 16)
    if method == "ga-magicnet":
        assert (own["keep_start"], own["keep_labelled"]) == (10.0, 10.0)
    if method != "bcp":
        assert (own["rampup_steps"], own.get("start", 0.0)) == (steps, 0.0)
        assert (plan.batch_labelled, plan.batch_unlabelled) == (2, 2)
    if patch == "dhc":  # 300 passes over the unlabelled (200 for one), two a step
        unlabelled = len(read_split_file(Path(split))["unlabelled"])
        assert steps == -(-unlabelled // 2) * (200 if name == "amos-5-dhc" else 300)
    if name.startswith("left-atrium"):
        assert (training.validations, read_split_file(Path(split))["validation"]) == (0, [])


def test_bcp_has_its_published_stages() -> None:
    for name, steps in (("left-atrium-10-bcp", [2000, 15000]), ("acdc-10-bcp", [10000, 30000])):
        _, training, own, _ = resolve(None, name, {})
        assert [round(training.steps * share) for share in (own["pretrain"], 1 - own["pretrain"])] == steps
        assert own["dice"] == ("batch" if name.startswith("acdc") else "per-sample")
        assert (own["ema_decay"], own["weight"]) == (0.99, 0.5)


def test_scdl_lies_over_its_hosts_with_the_papers_settings() -> None:
    paper = load_recipe("synapse-20-scdl-ga-cps")["scdl"]
    for name, plugged in PLUGGED.items():
        assert plugged in recipe_names()
        over, under = load_recipe(plugged), load_recipe(name)
        assert over["scdl"] == paper
        assert over["weight_decay"] == 1e-4
        own = ("plugins", "scdl", "description", "weight_decay")
        assert [{k: v for k, v in of.items() if k not in own} for of in (over, under)] == [
            {k: v for k, v in under.items() if k not in own}
        ] * 2


SMALL = {"widths": [2, 4, 8, 16, 32], "patch_size": [32, 32, 16]}
GRIDS: dict[str, dict[str, Any]] = {
    "synapse-20-ga-magicnet": {"spacing": [1, 1, 1]},
    "synapse-20-scdl-dhc": {"volume_size": [32, 32, 16]},
    "left-atrium-10-generic-ssl": {"spacing": [1, 1, 1]},
    "acdc-10-bcp": {"spacing": [1, 1, 5], "patch_size": [32, 32, 1]},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "acdc-10-bcp" else pytest.mark.full) for n in GRIDS])
def test_a_protocol_trains(name: str, tmp_path: Path) -> None:
    data = describe(tmp_path / "raw", LABELS, ("CT" if name.startswith("synapse") else "MRI",))
    thick = (32, 32, 6) if name.startswith("acdc") else (34, 34, 20)
    for number, case in enumerate("abc"):
        image, label = organ(thick, number)
        save_volume(data / "imagesTr" / f"{case}_0000.nii.gz", image, (1, 1, 5 if thick[2] == 6 else 1))
        if case != "c":
            save_volume(data / "labelsTr" / f"{case}.nii.gz", label, (1, 1, 5 if thick[2] == 6 else 1))
    split = write_file(tmp_path / "split.json", labelled=["a"], unlabelled=["c"], validation=["b"])
    small: dict[str, Any] = {"steps": 4, "validations": 1, "workers": 0, "precision": "float32"}
    small |= {} if "bcp" in name else {"rampup_steps": 4}
    small |= {"scdl": {"embedding": 8, "samples": 4}} if "scdl" in name else {}
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({"base": name, "plan": SMALL | GRIDS[name], **small}))
    run = train(
        data, recipe=str(recipe), split=split, prepared=tmp_path / "ready", output=tmp_path / "run", accelerator="cpu",
        report=False,
    )  # fmt: skip
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["method"] == HOSTS[name.replace("scdl-", "")][0]
    assert np.isfinite(np.genfromtxt(run / "log.csv", delimiter=",", names=True)["loss"]).all()
    assert (run / "best.pt").exists()
