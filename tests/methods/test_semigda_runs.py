"""SemiGDA as a user runs it: stages, kept latents, resuming, weights from elsewhere, predicting, refusals."""

import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semialign.common.errors import UserError
from semialign.common.types import Progress
from semialign.methods.base import build_method
from semialign.networks.autoencoders.base import Autoencoder, weights_hash
from semialign.networks.autoencoders.own import OwnAutoencoder, load_own
from semialign.training.checkpoint import load_checkpoint

SETTINGS = {"steps": 10, "autoencoder_share": 0.2, "align_share": 0.4, "checkpoint_steps": 1, "log_steps": 1}
SETTINGS |= {"validations": 1, "workers": 0, "precision": "float32", "batch_unlabelled": 1}
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def whole_pictures(tiny_2d: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny pictures under a plan whose patch is the whole picture, as plans of pictures are by default."""
    from semialign.data.plan import write_plan
    from semialign.data.prepare import prepare

    folder = tmp_path_factory.mktemp("whole-pictures")
    plan = dataclasses.replace(tiny_2d.prepared.plan, picture_size=(32, 32), patch_size=(32, 32))
    write_plan(folder / "plan.yaml", plan)
    prepared = prepare(tiny_2d.raw, tiny_2d.split, output=folder, accelerator="cpu")
    return tiny_2d._replace(folder=folder, prepared=prepared)


@pytest.fixture(scope="module")
def run_semigda(whole_pictures: Any) -> Train:
    """Train on them; keywords are settings."""

    def run(output: Path, *, resume: bool = False, method: str = "semigda", **settings: Any) -> Path:
        from semialign.training.train import train

        data = whole_pictures
        options: dict[str, Any] = {"split": data.split, "prepared": data.folder, "accelerator": "cpu", "report": False}
        return train(
            data.raw, method=method, output=output, resume=resume, settings={**SETTINGS, **settings}, **options
        )

    return run


@pytest.fixture(scope="module")
def run(run_semigda: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; beside it lie copies of it as it was after 1, 2, ... steps, and how often it was calibrated."""
    from semialign.training.loop import Loop

    folder, save, calibrate = tmp_path_factory.mktemp("semigda"), Loop._save, OwnAutoencoder.calibrate
    calibrated: list[int] = []

    def saved(self: Loop, name: str, *rest: Any) -> None:
        save(self, name, *rest)
        if name == "last.pt":
            shutil.copytree(self.run, folder / f"after-{self.place.steps_done}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_save", saved)
        patch.setattr(
            OwnAutoencoder, "calibrate", lambda self, *given: (calibrated.append(1), calibrate(self, *given))[1]
        )
        made = run_semigda(folder / "whole")
    assert len(calibrated) == 1
    return made


def _after(run: Path, steps: int) -> Path:
    return run.parent / f"after-{steps}"


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return [{**row, "seconds": ""} for row in csv.DictReader(handle)]


def _model(run: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = load_checkpoint(run / "last.pt")["model"]
    return model


def _moved(run: Path, before: int, after: int) -> set[str]:
    """Return the parts of the network that changed between two moments."""
    one, other = _model(_after(run, before)), _model(_after(run, after))
    changed = (name.split(".") for name in one if not torch.equal(one[name], other[name]))
    return {part for where, part, *_ in changed if where == "network"}


def test_what_each_stage_changes(run: Path) -> None:
    assert _moved(run, 1, 2) == {"stored"}
    assert _moved(run, 3, 6) == {"mapper", "encoder"}, "the autoencoder is bit-equal from here on"
    assert _moved(run, 7, 10) == {"mapper", "encoder", "image_adapter", "mask_adapter"}
    scales = [float(_model(_after(run, n))["network.stored.latent_scale"]) for n in range(1, 11)]
    assert scales[:2] == [1.0, 1.0]
    assert scales[2] != 1.0
    assert set(scales[2:]) == {scales[2]}


def test_only_the_last_stage_is_validated(run: Path) -> None:
    assert [row["step"] for row in _rows(run / "validation.csv")] == ["10"]
    assert load_checkpoint(run / "best.pt")["place"]["stage"] == "segment"


def test_the_trained_autoencoder_is_written_for_other_runs(run: Path, run_semigda: Train, tmp_path: Path) -> None:
    stored = {n.removeprefix("network.stored."): v for n, v in _model(run).items() if ".stored." in n}
    own = load_own(run / "autoencoder.pt")
    assert all(torch.equal(v, stored[n]) for n, v in own.state_dict().items())
    other = run_semigda(tmp_path / "run", weights=str(run / "autoencoder.pt"), steps=4)
    assert not any(".stored." in name for name in _model(other))
    assert load_checkpoint(other / "last.pt")["external"] == {"autoencoder": weights_hash(own)}
    assert {row["step"] for row in _rows(other / "log.csv") if row.get("supervised mapped")} == {"3", "4"}


def test_an_exported_model_predicts_the_same(run: Path, tmp_path: Path) -> None:
    from semialign.inference.export import export
    from semialign.inference.model import load_trained

    written = export(run, tmp_path / "model.pt", checkpoint="last")
    picture = torch.randn(2, len(load_trained(run).channel_names), 32, 32)
    with torch.inference_mode():
        one, other = (load_trained(m, checkpoint="last").method.eval().predict(picture) for m in (run, written.path))
    assert torch.equal(one, other)
    kept, fit = load_checkpoint(written.path)["model"], load_checkpoint(run / "last.pt")["model"]["fusion.loss"]
    assert torch.equal(kept["fusion.loss"], fit)
    assert fit[0] != fit[1], "the shares of the two outputs differ, so that they must be kept"


# --- Resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 8], ids=lambda n: f"after-{n}")
def test_resumes_bit_equal_within_and_between_stages(
    run: Path, run_semigda: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    calibrated: list[int] = []
    calibrate = OwnAutoencoder.calibrate
    monkeypatch.setattr(
        OwnAutoencoder, "calibrate", lambda self, *given: (calibrated.append(1), calibrate(self, *given))[1]
    )
    shutil.copytree(_after(run, steps), tmp_path / "run")
    resumed = run_semigda(tmp_path / "run", resume=True, steps=3, seed=7)  # what it was started with counts
    assert len(calibrated) == (steps <= 2)
    states = [load_checkpoint(r / "last.pt") for r in (run, resumed)]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    assert str(states[0]["optimisers"]) == str(states[1]["optimisers"])
    assert _rows(run / "log.csv") == _rows(resumed / "log.csv")


# --- Kept latents -----------------------------------------------------------------------------------------------------


def test_the_file_of_latents_lives_as_long_as_its_stage(run: Path) -> None:
    there = {n: len(list(_after(run, n).glob("latents-*"))) for n in range(1, 11)}
    assert there == dict.fromkeys((1, 2), 0) | dict.fromkeys((3, 4, 5, 6), 1) | dict.fromkeys((7, 8, 9, 10), 0)
    assert not list(run.glob("latents-*"))


def _aligning(data: Any, folder: Path, **settings: Any) -> tuple[Any, Any]:
    """Return the method at the beginning of stage ``align``, and what that stage trains on."""
    from semialign.data.loader import TwoStream
    from semialign.networks.build import network_of_plan

    prepared, split = data.prepared, data.prepared.split
    torch.manual_seed(0)
    method = build_method("semigda", lambda: network_of_plan(prepared.plan, 2), settings, {}, plan=prepared.plan)
    torch.nn.init.uniform_(method.network.stored.moments.gain, 0.5, 1.0)  # else all see a thumbnail alone
    asked = method.stage_settings("align")
    stream = TwoStream(
        prepared.store,
        prepared.plan,
        labelled=split.labelled,
        unlabelled=split.unlabelled,
        batch=(2, 2),
        seed=3,
        stage="align",
        symmetries=asked.symmetries,
    )
    method.begin_stage("align", 0, stream, folder)
    return method, stream


def test_kept_latents_give_the_losses_of_encoding(
    whole_pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, data = _aligning(whole_pictures, tmp_path)
    kept, encoded, shapes = method.frozen.kept, method.network.autoencoder.encode, []

    def encode(picture: torch.Tensor) -> Any:
        shapes.append(len(picture))
        return encoded(picture)

    monkeypatch.setattr(method.network.autoencoder, "encode", encode)
    losses = []
    for step in [*range(8), *range(8)]:
        batch = data[step]
        both = []
        for how in (kept, None):
            method.frozen.kept = how
            both.append(method(batch, Progress("align", step, 8))[1])
        for name in both[0]:
            assert both[0][name].item() == pytest.approx(both[1][name].item(), rel=1e-4), name
        losses.append(both[0]["align labelled"].item())
    assert losses[:8] == losses[8:], "to the last bit, once they are kept"
    assert len(set(losses)) == 8
    made = {(i, int(s)) for b in map(data.__getitem__, range(8)) for i, s in zip(b.index_l, b.symmetry_l, strict=True)}
    assert shapes.count(1) >= 2 * len({(int(i), s) for i, s in made}), "pictures and their codes, one at a time"
    shapes.clear()
    method.frozen.kept = kept
    method(data[3], Progress("align", 3, 8))
    assert shapes == [], "nothing is encoded again"


def test_latents_of_other_weights_are_not_taken(whole_pictures: Any, tmp_path: Path) -> None:
    method, data = _aligning(whole_pictures, tmp_path)
    method(data[0], Progress("align", 0, 8))
    (before,) = tmp_path.glob("latents-*")
    _aligning(whole_pictures, tmp_path)
    assert list(tmp_path.glob("latents-*")) == [before]
    with torch.no_grad():
        method.network.stored.latent_scale.mul_(2)
    method.begin_stage("align", 1, data, tmp_path)
    (after,) = tmp_path.glob("latents-*")
    assert after != before


def test_patches_and_keep_false_are_encoded_at_every_step(tiny_2d: Any, whole_pictures: Any, tmp_path: Path) -> None:
    # Patches of 32 of pictures of 48: no two are the same.
    for data, settings in ((tiny_2d, {}), (whole_pictures, {"keep": False})):
        method, stream = _aligning(data, tmp_path, **settings)
        assert stream[0].symmetry_l is None
        assert method.frozen.kept is None
        assert method(stream[0], Progress("align", 0, 8))[0].isfinite()
    assert not list(tmp_path.glob("latents-*"))


# --- Weights from elsewhere -------------------------------------------------------------------------------------------


def _write_taef2(path: Path, seed: int) -> Autoencoder:
    from safetensors.torch import save_file

    from semialign.networks.autoencoders.taef2 import TaeF2

    torch.manual_seed(seed)
    autoencoder = TaeF2()
    save_file(autoencoder.state_dict(), path)
    return autoencoder


def _predict(run: Path, data: Any) -> np.ndarray:
    from semialign.inference.model import load_trained

    image = np.asarray(data.prepared.store.image("g")[:]).astype(np.float32)
    probabilities = load_trained(run, accelerator="cpu").probabilities(torch.from_numpy(image)[None])
    return probabilities.numpy()


def test_taef2_is_named_by_hash_and_found_again(
    run_semigda: Train, whole_pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "taef2.safetensors"
    autoencoder = _write_taef2(weights, seed=1)
    few = {"autoencoder": "taef2", "weights": "taef2.safetensors", "steps": 4, "batch_labelled": 1}
    run = run_semigda(tmp_path / "run", **few)
    state = load_checkpoint(run / "last.pt")
    assert state["external"] == {"autoencoder": weights_hash(autoencoder)}
    assert sum(v.numel() for v in state["model"].values()) < sum(p.numel() for p in autoencoder.parameters()) + 2e6
    assert not any("conv.0" in name and "_kept" in name for name in state["model"])
    assert state["method_settings"]["weights"] == str(weights)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert np.isfinite(_predict(run, whole_pictures)).all()
    _write_taef2(weights, seed=2)
    for act in (lambda: _predict(run, whole_pictures), lambda: run_semigda(run, resume=True)):
        with pytest.raises(UserError, match=r"pt: was trained with another autoencoder.*config\.yaml") as error:
            act()
        assert "\n" not in str(error.value)
    weights.unlink()
    with pytest.raises(UserError, match=r"taef2\.safetensors: no such weights file"):
        _predict(run, whole_pictures)


def test_stable_diffusions_from_a_folder(run_semigda: Train, whole_pictures: Any, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from semialign.networks.autoencoders.stable_diffusion import StableDiffusion

    torch.manual_seed(0)
    made = StableDiffusion.untrained(widths=(8, 16, 16, 24), layers=1, groups=4)
    made.vae.save_pretrained(tmp_path / "vae")
    run = run_semigda(tmp_path / "run", autoencoder="sd", weights=str(tmp_path / "vae"), steps=4, sampling=1.0)
    state = load_checkpoint(run / "last.pt")
    assert state["external"] == {"autoencoder": weights_hash(made)}
    assert not any(".vae." in name for name in state["model"])
    assert np.isfinite(_predict(run, whole_pictures)).all()


# --- What is refused --------------------------------------------------------------------------------------------------


def test_volumes_are_refused_before_they_are_stored(tiny_3d: Any, tmp_path: Path) -> None:
    from semialign.training.train import train

    with pytest.raises(UserError, match=r"takes pictures and slices of volumes.*--dimensions 2") as error:
        train(
            tiny_3d.raw,
            method="semigda",
            split=tiny_3d.split,
            prepared=tmp_path / "prepared",
            output=tmp_path / "run",
            accelerator="cpu",
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "prepared" / "store").exists()
    assert not (tmp_path / "run").exists()


def test_slices_of_volumes_are_taken(tiny_3d: Any, tmp_path: Path) -> None:
    from semialign.training.train import train

    run = train(
        tiny_3d.raw,
        method="semigda",
        split=tiny_3d.split,
        prepared=tmp_path / "prepared",
        output=tmp_path / "run",
        dimensions=2,
        settings={**SETTINGS, "steps": 5},
        accelerator="cpu",
        report=False,
    )
    assert _rows(run / "validation.csv")[-1]["step"] == "5"


def test_a_patch_that_the_autoencoder_cannot_halve_is_refused(tiny_2d: Any) -> None:
    plan = dataclasses.replace(tiny_2d.prepared.plan, patch_size=(36, 32))
    from semialign.networks.build import network_of_plan

    with pytest.raises(UserError, match=r"patch_size \[36, 32\] must be multiples of 8; change plan.yaml"):
        build_method("semigda", lambda: network_of_plan(plan, 2), {}, {}, plan=plan)


def test_a_run_without_unlabelled_pictures(whole_pictures: Any, tmp_path: Path, recwarn: Any) -> None:
    from semialign.data.splits import Split
    from semialign.training.train import train

    split = Split(whole_pictures.prepared.split.labelled, ())
    (tmp_path / "prepared").mkdir()
    shutil.copy(whole_pictures.folder / "plan.yaml", tmp_path / "prepared")
    run = train(
        whole_pictures.raw,
        method="semigda",
        split=split,
        prepared=tmp_path / "prepared",
        output=tmp_path / "run",
        settings={**SETTINGS, "steps": 4},
        accelerator="cpu",
        report=False,
    )
    assert all(float(row["align unlabelled"] or 0) == 0 for row in _rows(run / "log.csv"))
    assert any("semigda trains on labels alone" in str(w.message) for w in recwarn)
