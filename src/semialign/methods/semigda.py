"""SemiGDA (arXiv 2604.23274, CVPR 2026): pictures segmented by generation from two aligned latent distributions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semialign.common.errors import UserError, require_known
from semialign.common.schedules import sigmoid_rampup
from semialign.common.types import Batch, Progress, StepOutput
from semialign.data.transforms import random_cuboid
from semialign.data.unit_range import UnitRange
from semialign.losses.annotation_code import label_code
from semialign.losses.dice import soft_dice
from semialign.losses.latent import (
    hard_pseudo_labels,
    labelled_alignment,
    mix_pairs,
    mutual_dice,
    unlabelled_alignment,
)
from semialign.methods.base import Method, StageSettings
from semialign.networks.autoencoders import load_autoencoder
from semialign.networks.autoencoders.base import weights_hash
from semialign.networks.autoencoders.own import autoencoder_losses
from semialign.networks.generative_segmenter import GenerativeSegmenter


@dataclass(frozen=True)
class SemiGDASettings:
    """Settings of ``semigda``."""

    autoencoder: str = "own"
    """``own`` (trained first, on the data set's images and masks), ``taef2`` or ``sd`` (Stable Diffusion's)."""
    weights: str | None = None
    """File of ``taef2``, folder or hub id of ``sd``, file of an ``own`` one trained before."""
    size: str = "auto"
    """Of what learns: ``paper``, ``small``, or ``auto``: small where the plan was made for a processor."""
    code: str = "scalar"
    """How labels become pictures: ``scalar`` greys (paper) or a ``palette`` of colours."""
    dam: bool = True
    """Whether the two latents are aligned: stage ``align``, and its losses in stage ``segment``."""
    cdsa: bool = True
    """Whether the outputs agree on unlabelled pictures and skip adapters help the decoder."""
    image_adapter: bool = True
    """With ``cdsa``: features of the frozen encoder for the mapper's output."""
    mask_adapter: bool = True
    """With ``cdsa``: features of the learnable encoder for its own output."""
    weight: float = 0.1
    """Of both unlabelled losses, at the end of their ramp-up."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up (default: all of the stage)."""
    sampling: float = 0.5
    """Share of the steps of stage ``segment`` that draw from the image's posterior instead of taking its mean."""
    pseudo: str = "soft"
    """On unlabelled pictures each output teaches the other as it is (``soft``, paper) or where it is sure (``hard``)."""
    mix: bool = False
    """Whether cuboids are exchanged between the unlabelled pictures of a step, pseudo-labels and all; needs ``hard``."""
    autoencoder_share: float = 0.25
    """Of the run, for stage ``autoencoder``."""
    align_share: float = 0.2
    """Of the run, for stage ``align``."""


class SemiGDA(Method):
    """Two latents, one mapped from the image's, one encoded, aligned, and decoded by one frozen decoder."""

    Settings = SemiGDASettings
    settings: SemiGDASettings
    takes_plugins = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        s, network = self.settings, self.make_network()
        require_known(s.pseudo, ("soft", "hard"), "pseudo")
        if network.spatial_dims != 2:  # type: ignore[operator]
            raise UserError("semigda: takes pictures or slices (--dimensions 2), not volumes")
        self.own = s.autoencoder == "own" and s.weights is None
        self.stages = (*(["autoencoder"] if self.own else []), *(["align"] if s.dam else []), "segment")  # type: ignore[misc]
        self.unit_range = UnitRange(self.plan)
        self.code = label_code(s.code, int(network.num_classes))  # type: ignore[arg-type]
        small = self.plan is None or not self.plan.made_for.startswith("gpu")
        self.network = GenerativeSegmenter(
            load_autoencoder(s.autoencoder, weights=s.weights),
            size=("small" if small else "paper") if s.size == "auto" else s.size,
            stored=self.own,
            image_adapter=s.cdsa and s.image_adapter,
            mask_adapter=s.cdsa and s.mask_adapter,
        )

    def stage_settings(self, stage: str) -> StageSettings:
        """Name each stage's share and what learns in it."""
        s, first = self.settings, self.settings.autoencoder_share if self.own else 0.0
        aligned = s.align_share if s.dam else 0.0
        share = {"autoencoder": first, "align": aligned, "segment": 1 - first - aligned}[stage]
        learning = {"autoencoder": ("network.stored.",), "align": ("network.mapper.", "network.encoder.")}
        every = (*learning["align"], "network.image_adapter.", "network.mask_adapter.")
        return StageSettings(share, parameters=learning.get(stage, every))

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the losses of the stage at hand."""
        image_l, image_u = self.unit_range(batch.image_l), self.unit_range(batch.image_u)
        code, s = self.code.encode(batch.label_l), self.settings
        if progress.stage == "autoencoder":
            return StepOutput(autoencoder_losses(self.network.stored, torch.cat([image_l, image_u, code])), [], {})
        if self.own and progress.step == 0 and progress.stage == self.stages[1]:
            self.network.stored.calibrate(torch.cat([image_l, image_u]))
        target = None
        if s.mix and progress.stage == "segment" and len(image_u) > 1:
            with torch.no_grad():
                target = hard_pseudo_labels(self._memberships(image_u))
            image_u, target = mix_pairs(image_u, target, mask=random_cuboid(image_u))
        picture, labelled = torch.cat([image_l, image_u]), len(image_l)
        steps = progress.max_steps if s.rampup_steps is None else s.rampup_steps
        ramp = sigmoid_rampup(progress.step, steps)
        losses: dict[str, Tensor] = {}
        encoded = self.network.encode(picture)
        sampled = progress.stage == "segment" and bool(torch.rand(()) < s.sampling)
        latents = self.network.latents(self.network.autoencoder.sample(encoded) if sampled else encoded.mean, picture)
        if s.dam:
            known, unknown = zip(*((x[:labelled], x[labelled:]) for x in latents[:2]), strict=True)
            losses["align labelled"] = labelled_alignment(*known, anchor=self.network.encode(code).mean)
            losses["align unlabelled"] = s.weight * ramp * unlabelled_alignment(*unknown)
        if progress.stage == "segment":
            p, q = (self.code.memberships(out) for out in self.network.decode(latents, encoded.features))
            for name, out in (("mapped", p), ("encoded", q)):
                losses[f"dice {name}"] = _dice(out[:labelled], batch.label_l)
            if s.cdsa:
                losses["agreement"] = s.weight * ramp * self._agreement(p[labelled:], q[labelled:], target)
        return StepOutput(losses, [], {"ramp": ramp})

    def _agreement(self, p: Tensor, q: Tensor, target: Tensor | None) -> Tensor:
        if self.settings.pseudo == "soft" and target is None:
            return mutual_dice(p, q)
        target = hard_pseudo_labels((p + q).detach() / 2) if target is None else target
        return _dice(p, target) + _dice(q, target)

    def _memberships(self, picture: Tensor) -> Tensor:
        """Return the soft classes of the mean of both outputs."""
        encoded = self.network.encode(picture)
        one, other = self.network.decode(self.network.latents(encoded.mean, picture), encoded.features)
        return self.code.memberships((one.float() + other.float()) / 2)

    def predict(self, image: Tensor) -> Tensor:
        """Return the soft classes of the mean of both decoded pictures."""
        return self._memberships(self.unit_range(image))

    def external_state(self) -> dict[str, str]:
        """Name an autoencoder that was not trained here by its hash."""
        return {} if self.own else {"autoencoder": weights_hash(self.network.autoencoder)}


def _dice(p: Tensor, target: Tensor) -> Tensor:
    """Return the Dice loss of each picture's foreground classes, their mean; 0 without pictures."""
    return soft_dice(p, target, per_sample=True, background=False) if len(p) else p.sum()
