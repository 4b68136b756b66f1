"""SemiGDA (arXiv 2604.23274, CVPR 2026): pictures segmented by generation from two aligned latent distributions."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from semialign.common.errors import UserError
from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Batch, Progress, StepOutput
from semialign.config import TrainingSettings
from semialign.data.kept_latents import remove_kept
from semialign.data.loader import TwoStream
from semialign.data.transforms import random_cuboid
from semialign.data.unit_range import UnitRange
from semialign.losses import latent
from semialign.losses.annotation_code import label_code
from semialign.methods.base import Method, StageSettings, lean_batch, make_optimiser
from semialign.methods.semigda_fusion import Fusion
from semialign.methods.semigda_latents import FrozenLatents
from semialign.methods.semigda_settings import LEARNING, SemiGDASettings, require_sides
from semialign.networks.autoencoders import load_autoencoder
from semialign.networks.autoencoders.base import weights_hash
from semialign.networks.autoencoders.own import OwnAutoencoder, autoencoder_losses, save_own
from semialign.networks.generative_segmenter import GenerativeSegmenter

_TO_CALIBRATE = 8  # batches


class SemiGDA(Method):
    """Two latents, one mapped from the image's, one encoded, aligned, and decoded by one frozen decoder."""

    Settings = SemiGDASettings
    settings: SemiGDASettings
    stages: tuple[str, ...] = ("autoencoder", "align", "segment")
    takes_plugins = False
    dimensions = (2,)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        s, network, plan = self.settings, self.make_network(), self.plan
        s.require_sound()
        if self.plugins:
            raise UserError("semigda: has no network that plug-ins fit; leave them out")
        self.stages = s.stages()
        self.unit_range = UnitRange(plan)
        self.code = label_code(s.code, int(network.num_classes))  # type: ignore[arg-type]
        gpu = plan is not None and plan.made_for.startswith("gpu")
        self.network = GenerativeSegmenter(
            load_autoencoder(s.autoencoder, weights=s.weights),
            size=("paper" if gpu else "small") if s.size == "auto" else s.size,
            stored=s.own,
            image_adapter=s.cdsa and s.image_adapter,
            mask_adapter=s.cdsa and s.mask_adapter,
        )
        require_sides(plan, self.network.autoencoder.factor)
        self.external = {} if s.own else {"autoencoder": weights_hash(self.network.autoencoder)}
        self.frozen = FrozenLatents(self.network)
        self.fusion = Fusion(s.fusion)

    def stage_settings(self, stage: str) -> StageSettings:
        """Name each stage's share, what learns in it and how pictures are augmented."""
        return StageSettings(
            self.settings.shares()[stage],
            parameters=LEARNING[stage],
            symmetries=stage == "align" and self.settings.keeps(self.plan),
            validates=stage == "segment",
        )

    def optimisers(self, stage: str, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
        """Return the paper's optimisers of ``stage``, each over its part of what learns."""
        learning = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        asked = self.settings.optimisers(stage, settings).items()
        return [make_optimiser([p for name, p in learning if name.startswith(part)], how) for part, how in asked]

    def begin_stage(self, stage: str, step: int, data: TwoStream, folder: Path) -> None:
        """Measure the scale of a newly trained autoencoder's latents, and open or remove the kept ones."""
        if self.settings.own and step == 0 and stage == self.stages[1]:
            batches = [data[i] for i in range(_TO_CALIBRATE)]
            device, own = self.unit_range.factor.device, cast(OwnAutoencoder, self.network.autoencoder)
            codes = [self.code.encode(batch.label_l.to(device)) for batch in batches]
            own.calibrate([self._pictures(batch) for batch in batches], codes)
            if data.rank == 0:
                save_own(folder / "autoencoder.pt", own)
        if self.stage_settings(stage).symmetries:
            self.frozen.keep(data, folder)
        else:
            self.frozen.forget()
            if data.rank == 0:
                remove_kept(folder)

    def wants_unlabelled(self, progress: Progress) -> bool:
        """Whether unlabelled pictures count yet; without them a step of stage ``segment`` costs half."""
        return progress.stage != "segment" or progress.step >= self.settings.start * progress.max_steps

    def joint_batch(self, stage: str, labelled: int, unlabelled: int) -> tuple[int, int]:
        """Return how many pictures of either kind a step has once unlabelled ones count."""
        return lean_batch(labelled, unlabelled) if self.settings.lean and stage == "segment" else (labelled, unlabelled)

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the losses of the stage at hand."""
        code, s, labelled = self.code.encode(batch.label_l), self.settings, len(batch.image_l)
        picture = self._pictures(batch)
        if progress.stage == "autoencoder":
            own = cast(OwnAutoencoder, self.network.autoencoder)
            return StepOutput(autoencoder_losses(own, torch.cat([picture, code])), [], {})
        ramp = sigmoid_rampup(progress.step, progress.max_steps if s.rampup_steps is None else s.rampup_steps)
        if progress.stage == "align":
            mean, anchor = self.frozen.means(batch, picture, code)
            losses = latent.alignment(*self.network.latents(mean, picture)[:2], anchor=anchor, weight=s.weight * ramp)
            return StepOutput(losses, [], {"ramp": ramp})
        target = None
        if s.mix and len(batch.image_u) > 1 and 3 * progress.step >= progress.max_steps:
            with torch.no_grad():
                target = latent.hard_pseudo_labels(self._memberships(picture[labelled:]))
            mixed, target = latent.mix_pairs(picture[labelled:], target, mask=random_cuboid(picture))
            picture = torch.cat([picture[:labelled], mixed])
        encoded = self.network.encode(picture)
        sampled = bool(torch.rand(()) < s.sampling)
        latents = self.network.latents(self.network.autoencoder.sample(encoded) if sampled else encoded.mean, picture)
        p, q = (self.code.memberships(out) for out in self.network.decode(latents, encoded.features))
        losses = {}
        if s.dam:
            losses = latent.alignment(*latents[:2], anchor=self.network.encode(code).mean, weight=s.weight * ramp)
        losses["supervised mapped"] = latent.foreground_dice(p[:labelled], batch.label_l)
        losses["supervised encoded"] = latent.foreground_dice(q[:labelled], batch.label_l)
        self.fusion.see(losses["supervised mapped"], losses["supervised encoded"])
        if s.cdsa:
            losses["agreement"] = (
                s.weight * ramp * latent.agreement(p[labelled:], q[labelled:], pseudo=s.pseudo, target=target)
            )
        return StepOutput(losses, [], {"ramp": ramp})

    def predict(self, image: Tensor) -> Tensor:
        """Return the soft classes of the mean of both decoded pictures, by their shares."""
        return self._memberships(self.unit_range(image))

    def external_state(self) -> dict[str, str]:
        """Name an autoencoder that was not trained here by its hash."""
        return self.external

    def _pictures(self, batch: Batch) -> Tensor:
        device = self.unit_range.factor.device
        return self.unit_range(torch.cat([batch.image_l, batch.image_u]).to(device))

    def _memberships(self, picture: Tensor) -> Tensor:
        encoded = self.network.encode(picture)
        both = self.network.decode(self.network.latents(encoded.mean, picture), encoded.features)
        return self.code.memberships(self.fusion(*both))
