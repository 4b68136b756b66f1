"""SCDL's losses between embeddings and class proxies, as functions of tensors alone (arXiv 2603.05202)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from semialign.common.ranks import sum_of_ranks

TINY = 1e-12
"""Norm below which a vector has no direction."""


def mean_directions(mean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Return ``d_c = mean_s(u_cs / |u_cs|)`` (C, D) of the samples ``u_cs = mean_c + sigma_c noise_s``, float32.

    ``mean``, ``sigma`` (C, D); ``noise`` (S, D), one set for all classes, or (C, S, D), one for each. The mean cosine
    between an embedding and a class's samples is linear in the normalised embedding, so that ``z_hat . d_c`` is it,
    exactly, and no (B, C, L, S) tensor is made. Nor is one of (C, S, D) for shared noise: norms and sum of
    ``mean + sigma noise`` are matrix products of the noise.
    """
    mean, sigma, noise = _full(mean), _full(sigma), _full(noise)
    with torch.autocast(mean.device.type, enabled=False):
        if noise.ndim == 2:
            square = mean.square().sum(1) + 2 * noise @ (mean * sigma).T + noise.square() @ sigma.square().T  # (S, C)
            inverse = square.clamp(min=TINY).rsqrt()
            return mean * inverse.mean(0)[:, None] + sigma * (inverse.T @ noise) / len(noise)
        return F.normalize(mean[:, None] + sigma[:, None] * noise, dim=2).mean(1)


def mean_cosines(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Return ``m_lc`` (..., C): the mean cosine of each embedding (..., D) to the samples of each class.

    What is divided by the norms are the products, not the embeddings: C numbers a token instead of D, and no copy; the
    gradient makes none either but itself.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines: Tensor = _Cosines.apply(_full(embeddings), _full(directions))  # type: ignore[no-untyped-call]
        return cosines


class _Cosines(Function):
    """``z . d_c / |z|`` of ``z`` (..., D) and ``d`` (C, D)."""

    @staticmethod
    def forward(ctx: FunctionCtx, embeddings: Tensor, directions: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True).clamp_(min=TINY)
        cosines = (embeddings @ directions.T).div_(norms)
        ctx.save_for_backward(embeddings, directions, norms, cosines)
        return cosines

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        embeddings, directions, norms, cosines = ctx.saved_tensors  # type: ignore[attr-defined]
        scaled = gradient / norms
        of_embeddings = of_directions = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            # A vector without direction was divided by a constant.
            along = (scaled * cosines).sum(-1, keepdim=True).div_(norms) * (norms > TINY)
            of_embeddings = (scaled @ directions).addcmul_(embeddings, along, value=-1)
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            of_directions = scaled.flatten(0, -2).T @ embeddings.flatten(0, -2)
        return of_embeddings, of_directions


def _full(values: Tensor) -> Tensor:
    """Return ``values`` in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def assignment(embeddings: Tensor, mean: Tensor, temperature: float) -> Tensor:
    """Return ``P(c|z) = softmax_c(cos(z, mean_c) / temperature)`` (..., C), float32."""
    return (mean_cosines(embeddings, F.normalize(_full(mean), dim=1)) / temperature).softmax(-1)


def sharpened(probabilities: Tensor) -> Tensor:
    """Return ``P^2 / (sum_c P^2 + 1e-6)`` without gradient: the weights of tokens that carry no label."""
    square = probabilities.detach().square()
    return square / (square.sum(-1, keepdim=True) + 1e-6)


def embedding_to_proxy(cosines: Tensor, weights: Tensor) -> Tensor:
    """Return E2P, ``mean_l sum_c w_lc (1 - m_lc)``; both (..., C), the mean over all other axes."""
    return (weights * (1 - cosines)).sum(-1).mean()


def proxy_to_embedding(cosines: Tensor, weights: Tensor, *, balanced: bool = False) -> Tensor:
    """Return P2E, ``mean_c mean_l exp(-(w_lc m_lc - (1 - w_lc) m_lc))``; both (..., C).

    The mean over all tokens drowns a rare class: its proxy is pushed from everybody else's tokens and hardly drawn to
    its own. ``balanced`` (ours) gives every class's own tokens, by ``w``, and the others', by ``1 - w``, half each.
    """
    terms = torch.exp(-(2 * weights - 1) * cosines)
    if not balanced:
        return terms.mean()
    terms, weights = terms.flatten(0, -2), weights.flatten(0, -2)
    own, others = weights.sum(0), (1 - weights).sum(0)
    of_own = (weights * terms).sum(0) / own.clamp(min=1e-6)
    of_others = ((1 - weights) * terms).sum(0) / others.clamp(min=1e-6)
    return 0.5 * (of_own + of_others).mean()


def class_anchors(embeddings: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return anchors (C, D) of unit length and which classes are there (C,), over all processes, without gradient.

    ``embeddings`` (N, D): one an instance, of class ``classes`` (N,); each is normalised, averaged over its class and
    normalised again. N may be 0.
    """
    each = F.normalize(embeddings.detach().float(), dim=1)
    total = torch.zeros(num_classes, each.shape[1] + 1, device=each.device)
    total.index_add_(0, classes, torch.cat([each, torch.ones_like(each[:, :1])], 1))
    sum_of_ranks(total)
    return F.normalize(total[:, :-1], dim=1), total[:, -1] > 0


def semantic_anchoring(mean: Tensor, anchors: Tensor, there: Tensor) -> Tensor:
    """Return SAC, the mean of ``1 - cos(mean_c, anchor_c)`` over the classes that are ``there`` (C,); 0 for none."""
    cosine = (F.normalize(mean.float(), dim=1) * anchors).sum(1)
    return ((1 - cosine) * there).sum() / there.sum().clamp(min=1)


def label_proportions(label: Tensor, grid: tuple[int, ...], num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the class proportions (B, L, C) in every token's cell, and which tokens carry a label at all (B, L).

    ``label`` (B, *S) int64, -1 where nothing is known; ``grid``: tokens along each axis. One class is pooled at a
    time, so that no one-hot volume is made; rows of tokens without a label are 0.
    """
    pool = F.adaptive_avg_pool2d if len(grid) == 2 else F.adaptive_avg_pool3d
    shares = [pool((label == c).float()[:, None], grid).flatten(1) for c in range(num_classes)]  # type: ignore[arg-type]
    share = torch.stack(shares, 2)
    known = share.sum(2, keepdim=True)
    return share / known.clamp(min=1e-6) * (known > 1e-6), known[..., 0] > 1e-6
