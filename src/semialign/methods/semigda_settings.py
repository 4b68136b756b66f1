"""Settings of SemiGDA, and what can be wrong with them."""

from dataclasses import dataclass, replace
from pathlib import Path

from semialign.common.errors import UserError, require_known
from semialign.config import TrainingSettings
from semialign.data.plan import Plan
from semialign.networks.latent_mapper import WIDTHS

LEARNING = {
    "autoencoder": ("network.stored.",),
    "align": ("network.mapper.", "network.encoder."),
    "segment": ("network.mapper.", "network.encoder.", "network.image_adapter.", "network.mask_adapter."),
}
"""Prefixes of the parameters that learn in each stage."""


@dataclass(frozen=True)
class SemiGDASettings:
    """Settings of ``semigda``."""

    autoencoder: str = "own"
    """``own`` (trained first, on the data set's images and masks), ``taef2`` or ``sd`` (Stable Diffusion's)."""
    weights: str | None = None
    """File of ``taef2``, folder or hub id of ``sd``, or the ``autoencoder.pt`` of an earlier run with ``own``."""
    size: str = "auto"
    """Of what learns: ``paper``, ``small``, or ``auto``: ``paper`` where the plan was made for a GPU."""
    code: str = "scalar"
    """How labels become pictures: ``scalar`` greys (paper) or a ``palette`` of colours."""
    dam: bool = True
    """Whether the two latents are aligned: stage ``align``, and its losses in stage ``segment``."""
    cdsa: bool = True
    """Whether skip adapters help the decoder and the two outputs agree on unlabelled pictures."""
    image_adapter: bool = True
    """With ``cdsa``: features of the frozen encoder for the decoding of the mapper's latent."""
    mask_adapter: bool = True
    """With ``cdsa``: features of the learnable encoder for the decoding of its own latent."""
    weight: float = 0.1
    """Of both unlabelled losses, at the end of their ramp-up."""
    start: float = 0.5
    """Share of stage ``segment`` for labelled pictures alone, while the ramp-up lets others count little (paper: 0)."""
    lean: bool = True
    """Whether unlabelled pictures, once they count in stage ``segment``, replace half of the labelled (paper: no)."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up (default: all of the stage)."""
    sampling: float = 0.5
    """Share of the steps of stage ``segment`` that draw from the image's posterior instead of taking its mean."""
    pseudo: str = "soft"
    """On unlabelled pictures each output teaches the other as it is (``soft``, paper) or both where sure (``hard``)."""
    mix: bool = False
    """Whether unlabelled pictures exchange cuboids in the last two thirds of stage ``segment``; needs ``hard``."""
    fusion: str = "fit"
    """Shares of both outputs in a prediction: by their ``fit`` to labelled pictures, or equal (``mean``, paper)."""
    keep: bool = True
    """Whether stage ``align`` keeps the frozen latents of whole pictures, then only flipped and turned by quarters."""
    autoencoder_share: float = 0.12
    """Of the run, for stage ``autoencoder``, which an autoencoder of other ``weights`` does not need."""
    align_share: float = 0.08
    """Of the run, for stage ``align``."""
    autoencoder_rate: float | None = 0.002
    """AdamW's learning rate in stage ``autoencoder``; none, here and below: the run's optimiser and learning rate."""
    mapper_rate: float | None = 0.002
    """AdamW's learning rate for the mapper in stage ``align`` (paper)."""
    encoder_rate: float | None = 0.01
    """SGD's learning rate for the learnable encoder in stage ``align`` (paper)."""
    segment_rate: float | None = None
    """SGD's learning rate in stage ``segment`` (paper: 0.01)."""

    def __post_init__(self) -> None:
        """Write a path out in full, so that a prediction started elsewhere finds it."""
        if self.weights is not None and Path(self.weights).expanduser().exists():
            object.__setattr__(self, "weights", str(Path(self.weights).expanduser().absolute()))

    @property
    def own(self) -> bool:
        """Whether the autoencoder is trained here."""
        return self.autoencoder == "own" and self.weights is None

    def keeps(self, plan: Plan | None) -> bool:
        """Whether stage ``align`` sees whole pictures, and keeps their latents."""
        whole = plan is not None and plan.slice_axis is None and plan.picture_size == plan.patch_size
        return self.keep and whole

    def stages(self) -> tuple[str, ...]:
        """Return the stages that are left."""
        return (*(("autoencoder",) if self.own else ()), *(("align",) if self.dam else ()), "segment")

    def shares(self) -> dict[str, float]:
        """Return each stage's share of the run."""
        first = {"autoencoder": self.autoencoder_share, "align": self.align_share}
        shares = {stage: first[stage] for stage in self.stages()[:-1]}
        return {**shares, "segment": 1 - sum(shares.values())}

    def optimisers(self, stage: str, run: TrainingSettings) -> dict[str, TrainingSettings]:
        """Return the settings of each optimiser of ``stage`` by the prefix of the parameters that it moves."""
        adamw = {"optimiser": "adamw", "weight_decay": 0.01}
        sgd = {"optimiser": "sgd", "weight_decay": 1e-4, "momentum": 0.9}
        asked = {
            "autoencoder": [("", adamw, self.autoencoder_rate)],
            "align": [("network.mapper.", adamw, self.mapper_rate), ("network.encoder.", sgd, self.encoder_rate)],
            "segment": [("", sgd, self.segment_rate)],
        }
        return {p: run if r is None else replace(run, learning_rate=r, **kind) for p, kind, r in asked[stage]}  # type: ignore[arg-type]

    def require_sound(self) -> None:
        """Raise :class:`UserError` for a value that means nothing, or two that exclude each other."""
        require_known(self.pseudo, ("soft", "hard"), "pseudo")
        require_known(self.size, ("auto", *WIDTHS), "size")
        if self.mix and self.pseudo != "hard":
            raise UserError("semigda: mix exchanges pseudo-labels too; add --set pseudo=hard, or leave mix out")
        shares = self.shares()
        if min(shares.values()) <= 0:
            raise UserError(f"semigda: the stages' shares {shares} must all be above 0 and add up to 1")
        if not 0 <= self.start <= 1:
            raise UserError(f"semigda: start must lie between 0 and 1, not {self.start}")
        for name in ("autoencoder_rate", "mapper_rate", "encoder_rate", "segment_rate"):
            if (rate := getattr(self, name)) is not None and rate <= 0:
                raise UserError(f"semigda: {name} must be more than 0, not {rate}")


def require_sides(plan: Plan | None, factor: int) -> None:
    """Raise :class:`UserError` where the autoencoder cannot halve the plan's patch down to a ``factor``-th."""
    if plan is not None and any(side % factor for side in plan.patch_size):
        sides = list(plan.patch_size)
        raise UserError(
            f"semigda: patch_size {sides} must be multiples of {factor}; change plan.yaml and prepare again"
        )
