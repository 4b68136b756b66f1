"""Semantic class distribution learning (SCDL, arXiv 2603.05202) on feature maps, for any PyTorch code."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.ranks import sum_of_ranks
from semialign.losses.proxy import (
    class_anchors,
    embedding_to_proxy,
    evened,
    label_proportions,
    mean_cosines,
    proxy_to_embedding,
    region_tokens,
    semantic_anchoring,
    sharpened,
)
from semialign.networks.injection import Injection
from semialign.plugins.class_proxies import ClassProxies
from semialign.plugins.scdl_settings import SCDLSettings, require_sound


class Tokens(NamedTuple):
    """One feature map as tokens."""

    values: Tensor  # (B, L, X), pooled features
    embeddings: Tensor  # (B, L, D) float32
    cosines: Tensor  # (B, L, C) float32, mean cosine to each class's samples
    grid: tuple[int, ...]  # tokens along each axis
    prior: Tensor | None  # (B, L, P)


class SCDL(nn.Module):
    """Class proxies over one feature map: ``prior, losses = scdl(features, label)``.

    ``feature_width`` X: channels of the map; ``inject``: channels of the maps that get the prior (default: that map).
    All arithmetic after the token MLP is float32, under autocast too. ``share`` (C,) is the running share of tokens
    that each class attracts.
    """

    share: Tensor

    def __init__(
        self,
        feature_width: int,
        num_classes: int,
        spatial_dims: int,
        *,
        settings: SCDLSettings | None = None,
        inject: Sequence[int] | None = None,
        salt: int = 0,
    ) -> None:
        super().__init__()
        self.settings = s = settings or SCDLSettings()
        require_sound(s)
        self.feature_width, self.num_classes, self.spatial_dims = feature_width, num_classes, spatial_dims
        self.proxies = ClassProxies(
            feature_width,
            num_classes,
            embedding=s.embedding,
            samples=s.samples,
            draws=s.draws,
            temperature=s.temperature,
            dropout=s.dropout,
            paper_weights=s.distribution_weights == "cosine",
            salt=salt,
            spread=s.spread,
        )
        self.which = s.prior if s.inject != "none" else ()
        widths = [feature_width] if inject is None else inject
        self.injection = Injection(s.embedding * len(self.which), widths) if self.which else None
        self.register_buffer("share", torch.full((num_classes,), 1 / num_classes))
        self._freeze_unused()

    def forward(self, features: Tensor, label: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a prior of the features' shape, to be added to them, and the weighted losses by name.

        ``features`` (B, X, *S); ``label`` (B, *S') int64 of any size, -1 where nothing is known.
        """
        tokens = self.tokens(features)
        maps = self.inject(tokens, [features.shape[2:]])
        return maps[0] if maps else torch.zeros_like(features), self.losses(tokens, label)

    def pool(self, features: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Features (B, X, *S) to tokens (B, L, X) and their grid."""
        grid = tuple(min(self.settings.token_grid, n) for n in features.shape[2:])
        if grid != tuple(features.shape[2:]):
            pool = F.adaptive_avg_pool2d if self.spatial_dims == 2 else F.adaptive_avg_pool3d
            features = pool(features, grid)  # type: ignore[arg-type]
        return features.flatten(2).transpose(1, 2), grid

    def tokens(self, features: Tensor) -> Tokens:
        """Return the tokens of a map (B, X, *S), their embeddings and priors."""
        values, grid = self.pool(features)
        own = self.proxies.generator(features.device)
        embeddings = self.proxies.embed(values, own)
        cosines = mean_cosines(embeddings, self.proxies.directions(own))
        prior = self.proxies.priors(embeddings, cosines, self.which, own) if self.which else None
        return Tokens(values, embeddings, cosines, grid, prior)

    def inject(self, tokens: Tokens, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the projected priors at ``sizes``, one for each width the module was made for; none without priors."""
        if self.injection is None or tokens.prior is None:
            return []
        maps: list[Tensor] = self.injection(tokens.prior, tokens.grid, sizes)
        return maps

    def losses(
        self, tokens: Tokens, label: Tensor | None = None, instances: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the weighted P2E, E2P and SAC of ``tokens``, those that are switched on.

        ``label`` (B, *S) int64 or None; ``instances``: mean token (N, X) and class (N,) of the labelled regions that
        anchor the proxies (default: taken from ``tokens``).
        """
        s, found = self.settings, {}
        assigned = self.proxies.assign(tokens.embeddings)
        if label is None:
            shares, known = torch.zeros_like(assigned), torch.zeros_like(assigned[..., 0], dtype=torch.bool)
        else:
            shares, known = label_proportions(label, tokens.grid, self.num_classes)
        if s.cdba:
            weights = assigned
            if s.weights != "soft":
                of_labels = evened(shares) if s.weights == "even" else shares
                weights = torch.where(known[..., None], of_labels, sharpened(assigned))
            chosen = torch.ones_like(known) if s.unlabelled else known
            p2e, e2p = _aligned(tokens.cosines, weights, chosen, s.balanced)
            found = {"p2e": s.align_weight * p2e, "e2p": s.align_weight * s.e2p_weight * e2p}
        if s.sac:
            mean_tokens, classes = region_tokens(tokens.values, shares) if instances is None else instances
            with torch.no_grad():
                anchors, there = class_anchors(self.proxies.embed(mean_tokens), classes, self.num_classes)
            found["sac"] = s.sac_weight * semantic_anchoring(self.proxies.mean, anchors, there)
        self._note(assigned)
        return found

    @torch.no_grad()
    def class_figures(self) -> dict[str, Tensor]:
        """Return what was learned, per class: ``norm``, ``spread``, ``share`` (C,) and ``similarity`` (C, C)."""
        proxies = self.proxies
        norm, spread = proxies.mean.float().norm(dim=1), proxies.sigma.mean(1)
        return {"norm": norm, "spread": spread, "share": self.share, "similarity": proxies.similarity()}

    @torch.no_grad()
    def _note(self, assigned: Tensor) -> None:
        if not self.training:
            return
        counts = torch.bincount(assigned.argmax(-1).flatten(), minlength=self.num_classes).float()
        sum_of_ranks(counts)
        self.share.lerp_(counts / counts.sum(), 0.05)

    def _freeze_unused(self) -> None:
        """Freeze what no switched-on part learns: data-parallel training would wait for its gradient."""
        s, own = self.settings, self.proxies
        own.token_sigma.requires_grad_("samples" in self.which)
        own.rho.requires_grad_(s.cdba or "distribution" in self.which)
        own.mean.requires_grad_(s.cdba or s.sac or bool({"distribution", "centre"} & set(self.which)))
        own.mlp.requires_grad_(s.cdba or bool(self.which))


def _aligned(cosines: Tensor, weights: Tensor, chosen: Tensor, balanced: bool) -> tuple[Tensor, Tensor]:
    """Return P2E and E2P over the ``chosen`` tokens; where there is none, 0 with a gradient of 0."""
    if not chosen.any():
        return cosines.sum() * 0, cosines.sum() * 0
    cosines, weights = cosines[chosen], weights[chosen]
    return proxy_to_embedding(cosines, weights, balanced=balanced), embedding_to_proxy(cosines, weights)
