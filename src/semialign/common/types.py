"""The tuples that pass between loader, method, plug-in and loop.

They are NamedTuples rather than dataclasses because Lightning Fabric moves NamedTuples to the device and casts them,
and refuses frozen dataclasses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from semialign.networks.contract import Network


class Batch(NamedTuple):
    """One step's labelled and unlabelled patches; ``U`` may be 0.

    Unlabelled patches carry spatial and weak intensity augmentation only; a method that wants the strong one applies
    :func:`semialign.data.transforms.strong` itself, on the device, where the teacher needs the weak form too.
    """

    image_l: Tensor  # (L, C_in, *S) float32
    label_l: Tensor  # (L, *S) int64; -1 where nobody annotated (ignore, outside the image)
    image_u: Tensor  # (U, C_in, *S) float32
    index_l: Tensor  # (L,) int64: which case of the labelled list
    index_u: Tensor  # (U,) int64: which case of the unlabelled list
    # (L,) and (U,) int64, in a stage of symmetries alone: see semialign.data.symmetries.turned
    symmetry_l: Tensor | None = None
    symmetry_u: Tensor | None = None


class Output(NamedTuple):
    """What a network returns."""

    logits: Tensor  # (B, C, *S)
    features: Tensor  # (B, D, *S), what the head classifies
    pyramid: list[Tensor]  # encoder features, finest first


class View(NamedTuple):
    """What a plug-in sees of one student network in one step."""

    name: str
    network: Network
    image: Tensor  # (B, C_in, *S)
    output: Output
    label: Tensor  # (B, *S) int64; -1 where no true label lies (unlabelled or mixed-in voxels)


class Progress(NamedTuple):
    """Where training stands; ``step`` counts from 0 within the stage, before which ``earlier`` steps were taken."""

    stage: str
    step: int
    max_steps: int
    earlier: int = 0


class StepOutput(NamedTuple):
    """What a method's step returns: weighted terms of the loss (their sum is minimised), views, figures to log."""

    losses: dict[str, Tensor]
    views: list[View]
    log: dict[str, float | Tensor]  # a tensor stays on its device until it is written
