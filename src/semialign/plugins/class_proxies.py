"""A Gaussian proxy for every class in the space of token embeddings, and the priors it gives (arXiv 2603.05202)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semialign.common.seeding import derive_seed
from semialign.losses.proxy import assignment, mean_cosines, mean_directions

PRIORS = ("distribution", "centre", "samples")


class ClassProxies(nn.Module):
    """Token MLP (``X -> 2D -> 2D -> D``, ReLU, dropout) and proxies ``N(mean_c, softplus(rho_c)^2)`` of ``C`` classes.

    ``width`` X: channels of a token; ``embedding`` D; ``samples``: of each proxy; ``draws``: of each token, for the
    prior ``samples``; ``spread``: standard deviation at the start (none: from the paper's start of ``rho``). In
    ``eval()`` nothing is drawn: the proxies' samples are a set kept in the model, and the prior ``samples`` is the
    embedding itself. Otherwise numbers come from a generator of its own, seeded from torch's seed, the number of calls
    under it and ``salt``, so that the global generator is where it was.
    """

    eval_noise: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        embedding: int,
        samples: int,
        draws: int,
        temperature: float,
        dropout: float,
        paper_weights: bool,
        salt: int,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        self.samples, self.draws, self.temperature, self.dropout = samples, draws, temperature, dropout
        self.paper_weights, self.salt = paper_weights, salt
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(torch.initial_seed(), "proxies", salt))
            sizes = (width, 2 * embedding, 2 * embedding, embedding)
            self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
            start = nn.init.xavier_uniform_(torch.empty(num_classes, 2 * embedding))
            self.mean, self.rho = (nn.Parameter(half.clone()) for half in start.chunk(2, dim=1))
            if spread is not None:
                nn.init.constant_(self.rho, math.log(math.expm1(spread)))
            self.register_buffer("eval_noise", torch.randn(samples, embedding))
        self.token_sigma = nn.Parameter(torch.full((embedding,), 0.05))
        self._drawn = (0, 0)  # torch's seed, and how often numbers were drawn under it

    @property
    def sigma(self) -> Tensor:
        """Standard deviations of the proxies (C, D)."""
        return F.softplus(self.rho.float())

    def generator(self, device: torch.device) -> torch.Generator | None:
        """Return this call's own generator, or None where nothing is drawn."""
        if not self.training:
            return None
        # A loop that seeds every step gets numbers that follow from seed and step; one that never does, new ones.
        seed, calls = torch.initial_seed(), self._drawn[1]
        self._drawn = (seed, calls + 1 if seed == self._drawn[0] else 1)
        return torch.Generator(device).manual_seed(derive_seed("proxies", *self._drawn, self.salt))

    def embed(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Tokens (..., X) to embeddings (..., D), float32; dropout where there is a generator."""
        for linear in self.mlp[:-1]:
            tokens = F.relu(linear(tokens))
            if generator is not None and self.dropout:
                kept = torch.empty_like(tokens).bernoulli_(1 - self.dropout, generator=generator)
                tokens = tokens * kept / (1 - self.dropout)
        embeddings: Tensor = self.mlp[-1](tokens)
        return embeddings.float()

    def directions(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean direction (C, D) of each proxy's samples, drawn anew where there is a generator."""
        noise = self.eval_noise
        if generator is not None:
            noise = torch.randn(noise.shape, generator=generator, device=noise.device)
        return mean_directions(self.mean, self.sigma, noise)

    def assign(self, embeddings: Tensor) -> Tensor:
        """Return ``P(c|z)`` (..., C) of embeddings (..., D)."""
        return assignment(embeddings, self.mean, self.temperature)

    def priors(
        self, embeddings: Tensor, cosines: Tensor, which: Sequence[str], generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the priors ``which``, side by side (..., D each), of unit length, in the order of :data:`PRIORS`.

        ``distribution``: proxies weighted by the softmax of the mean ``cosines`` (..., C) (or, as the paper writes it,
        by them); ``centre``: by ``P(c|z)``; ``samples``: the mean of noisy embeddings.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return torch.cat([self._prior(p, embeddings, cosines, generator) for p in PRIORS if p in which], -1)

    def _prior(self, which: str, embeddings: Tensor, cosines: Tensor, generator: torch.Generator | None) -> Tensor:
        if which == "samples":
            noise = None
            if generator is not None:
                shape = (*embeddings.shape[:-1], self.draws, embeddings.shape[-1])
                noise = torch.randn(shape, generator=generator, device=embeddings.device)
            return self.sampled(embeddings, noise).mean(-2)
        if which == "centre":
            weights = self.assign(embeddings)
        else:
            weights = cosines if self.paper_weights else (cosines / self.temperature).softmax(-1)
        return F.normalize(weights @ F.normalize(self.mean.float(), dim=1), dim=-1)

    def sampled(self, embeddings: Tensor, noise: Tensor | None) -> Tensor:
        """Return ``normalise(z + token_sigma noise)`` (..., E, D); without ``noise`` the normalised embedding, once."""
        around = embeddings.unsqueeze(-2)
        return F.normalize(around if noise is None else around + self.token_sigma * noise, dim=-1)

    def similarity(self) -> Tensor:
        """Return the cosines (C, C) between the proxies' means."""
        return mean_cosines(self.mean.detach(), F.normalize(self.mean.detach().float(), dim=1))
