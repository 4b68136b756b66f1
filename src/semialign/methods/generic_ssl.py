"""A&D, or GenericSSL (Wang and Li, NeurIPS 2023): a diffusion decoder and a debiased one teach a third."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from semialign.common.ema import ema_decay
from semialign.common.errors import UserError
from semialign.common.schedules import ramp_of
from semialign.common.types import Batch, Output, Progress, StepOutput, View
from semialign.data.loader import TwoStream
from semialign.data.transforms import strong
from semialign.losses.class_weights import DifficultyWeights
from semialign.losses.dice import soft_dice
from semialign.losses.segmentation import cross_entropy
from semialign.methods.base import Method
from semialign.networks.contract import Network
from semialign.networks.diffusion import TIMES, DiffusionNetwork, clean_map, noised_map, sample, share_encoder, smooth
from semialign.networks.initialise import initialise
from semialign.networks.modes import in_eval


@dataclass(frozen=True)
class GenericSettings:
    """Settings of ``generic-ssl``."""

    weight: float = 10.0
    """Of the pseudo-label loss, at the end of its ramp-up."""
    start: float = 0.3
    """Share of the run that trains on labels alone: sampling takes ten passes of a step."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up after the start (default: 0.4 of what is left of the run)."""
    sampling_steps: int = 10
    """DDIM steps from noise to a label map."""
    strong: bool = False
    """Whether the networks see their unlabelled patches under strong intensity augmentation."""
    ema_decay: float | None = None
    """Of what predicts (default: 1 - 25/steps, from 0.9 to 0.999); lower at first: ``min(1 - 1/(t+2), it)``."""


class GenericSSL(Method):
    """Three decoders over one encoder: ``xi`` cleans noised labels, ``psi`` weighs hard classes, ``theta`` predicts."""

    Settings = GenericSettings
    settings: GenericSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if not 1 <= self.settings.sampling_steps <= TIMES:
            raise UserError(f"sampling_steps {self.settings.sampling_steps}: must be from 1 to {TIMES}")
        # All decoders start alike: weights of networks that started apart have no meaningful mean.
        psi = initialise(self.make_network(), "kaiming")
        theta = share_encoder(psi)
        self.xi = DiffusionNetwork(psi)
        self._decoders = (theta, self.xi.network, psi)  # a tuple, since each is registered where it is used
        self.psi, self.theta = self.wrapped(psi), self.wrapped(theta)
        self.classes = self.psi.num_classes
        self.difficulty = DifficultyWeights(self.classes, scale=False)
        self._next: Tensor | None = None

    def begin_stage(self, stage: str, step: int, data: TwoStream, folder: Path) -> None:
        """Start the weights of classes anew: those from another run knew other classes' difficulty."""
        if step == 0:
            self.difficulty.forget()

    def ramp(self, progress: Progress) -> float:
        """Return what the pseudo-label loss is multiplied with; 0 before its start."""
        return ramp_of(self.settings.rampup_steps, progress, start=self.settings.start)

    def wants_unlabelled(self, progress: Progress) -> bool:
        """Whether the step at ``progress`` uses unlabelled patches: before, they would be loaded for nothing."""
        return self.ramp(progress) > 0

    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return the losses of the diffusion decoder and the weighted one on labels, and that of the predicting one."""
        settings, label, labelled = self.settings, batch.label_l, len(batch.image_l)
        ramp = self.ramp(progress)
        weak = batch.image_u if ramp else batch.image_u[:0]
        weak = strong(weak) if settings.strong else weak
        image = torch.cat([batch.image_l, weak])
        cleaned = self.cleaned(batch.image_l, label)
        weights, self._next = self.difficulty.next(cleaned.argmax(1), label)
        pyramid = self.psi.encode(image)
        psi, theta = (self._output(network, pyramid) for network in (self.psi, self.theta))
        losses = {
            "supervised diffusion": cross_entropy(cleaned, label) + dice(cleaned, label),
            "supervised weighted": cross_entropy(psi.logits[:labelled], label, class_weights=weights)
            + dice(psi.logits[:labelled], label),
        }
        log: dict[str, float | Tensor] = {}
        if len(weak):
            log["ramp"] = ramp
            pseudo = self.pseudo_labels(weak, psi.logits[labelled:].detach())
            own = theta.logits[labelled:]
            losses["theta"] = settings.weight * ramp * (cross_entropy(own, pseudo) + dice(own, pseudo))
        else:
            losses["theta"] = cross_entropy(theta.logits, label) + dice(theta.logits, label)
        seen = torch.cat([label, torch.full((len(weak), *label.shape[1:]), -1, device=label.device)])
        views = [View("psi", self.psi, image, psi, seen), View("theta", self.theta, image, theta, seen)]
        return StepOutput(losses, views, log)

    def cleaned(self, image: Tensor, label: Tensor) -> Tensor:
        """Return the diffusion decoder's logits (L, C, *S) of labels noised to a random time each."""
        time = torch.randint(TIMES, (len(image),)).to(image.device)
        clean = clean_map(label, self.classes)
        logits: Tensor = self.xi(image, noised_map(clean, time, torch.randn_like(clean)), time)
        return logits

    @torch.no_grad()
    def pseudo_labels(self, image: Tensor, logits: Tensor) -> Tensor:
        """Return ``argmax(Gaussian(gumbel_softmax(sampled map)) + softmax(logits))`` (U, *S); ``logits`` of psi."""
        noise = torch.randn(len(image), self.classes, *image.shape[2:], device=image.device)
        with in_eval(self.xi):
            sampled = sample(lambda noised, time: self.xi(image, noised, time), noise, self.settings.sampling_steps)
        return (smooth(F.gumbel_softmax(sampled, dim=1)) + logits.float().softmax(1)).argmax(1)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Move the predicting decoder towards the mean of the two others."""
        if self._next is not None:
            self.difficulty.keep(self._next)
            self._next = None
        decay = ema_decay(self.settings.ema_decay, progress.step, progress.max_steps)
        theta, xi, psi = (dict(network.named_parameters()) for network in self._decoders)
        for name, parameter in theta.items():
            if not name.startswith("encoder."):
                parameter.lerp_((xi[name] + psi[name]) / 2, 1 - decay)

    def predict(self, image: Tensor) -> Tensor:
        """Return the softmax of the predicting decoder's logits."""
        probabilities: Tensor = self.theta(image).logits.float().softmax(1)
        return probabilities

    @staticmethod
    def _output(network: Network, pyramid: list[Tensor]) -> Output:
        features = network.decode(pyramid)
        return Output(network.head(features), features, pyramid)


def dice(logits: Tensor, label: Tensor) -> Tensor:
    """Return ``1 -`` the Dice over the foreground classes and the batch, linear, smoothed by 1 as published."""
    return soft_dice(logits.float().softmax(1), label, background=False, smooth=1.0)
