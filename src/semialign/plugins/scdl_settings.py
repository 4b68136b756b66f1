"""Settings of SCDL, and what can be wrong with them."""

from dataclasses import dataclass

from semialign.common.errors import UserError, require_known
from semialign.plugins.class_proxies import PRIORS


@dataclass(frozen=True)
class SCDLSettings:
    """Settings of ``scdl``; each part can be switched off."""

    cdba: bool = True
    """Whether embeddings and proxies are aligned both ways (E2P and P2E)."""
    sac: bool = True
    """Whether proxies are anchored to labelled regions."""
    prior: tuple[str, ...] = PRIORS
    """Which priors reach the network: ``distribution``, ``centre``, ``samples``; an empty list: none."""
    inject: str = "stages"
    """Where the priors go in: ``stages`` (every decoder stage), ``bottleneck``, ``head`` or ``none``."""
    align_weight: float = 1.0
    """Of ``P2E + e2p_weight E2P``."""
    e2p_weight: float = 0.1
    """Of E2P beside P2E."""
    sac_weight: float = 1.0
    """Of SAC."""
    rampup_steps: int | None = None
    """Steps of the sigmoid ramp-up of all weights (default: 0.4 of the run's first stage; 0: none)."""
    anchor: str = "features"
    """``features``: anchors from the tokens of labelled regions; ``image``: from images of one class alone (paper)."""
    features: str = "encoder"
    """Where tokens come from: ``encoder`` or ``decoder`` (its last map; the priors then go to the ``head``)."""
    level: int = -1
    """``encoder``: which level of the pyramid, 0 the finest, -1 the deepest."""
    token_grid: int = 12
    """Largest number of tokens along an axis; never finer than the map."""
    embedding: int = 256
    """Width D of embeddings and proxies."""
    samples: int = 1024
    """Samples of each proxy."""
    spread: float | None = None
    """Standard deviation that the proxies start with (default: as published, 0.7 on average)."""
    draws: int = 2
    """Noisy samples of each token in the prior ``samples``."""
    temperature: float = 0.2
    """Of the soft assignment (released code; the paper has 1)."""
    dropout: float = 0.2
    """Of the token MLP."""
    weights: str = "labels"
    """Of CDBA: ``labels`` (class proportions where there is a label, sharpened assignment elsewhere), ``even`` (these
    proportions as if classes were equally frequent; ours) or ``soft`` (the assignment everywhere)."""
    balanced: bool = False
    """Whether in P2E a class's own tokens draw as much as all the others push (ours, for rare classes)."""
    unlabelled: bool = True
    """Whether CDBA runs on tokens without a label too."""
    distribution_weights: str = "softmax"
    """How the prior ``distribution`` weighs the proxies: ``softmax`` of the mean cosines, or the ``cosine`` (paper)."""


def require_sound(settings: SCDLSettings) -> None:
    """Raise :class:`UserError` for an unknown choice (with the nearest known one) or a spread of 0 or less."""
    for name in settings.prior:
        require_known(name, PRIORS, "prior")
    require_known(settings.inject, ("stages", "bottleneck", "head", "none"), "inject")
    require_known(settings.anchor, ("features", "image"), "anchor")
    require_known(settings.features, ("encoder", "decoder"), "features")
    require_known(settings.weights, ("labels", "even", "soft"), "weights")
    require_known(settings.distribution_weights, ("softmax", "cosine"), "distribution_weights")
    if settings.spread is not None and not settings.spread > 0:
        raise UserError(f"scdl.spread {settings.spread:g}: must be above 0, or null for the published start")
