"""SCDL's losses between embeddings and class proxies, as functions of tensors alone (arXiv 2603.05202)."""

from math import prod

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
    its own; and where weights are shares of a cell, a token of which the class has less than half pushes it too.
    ``balanced`` (ours) is ``mean_c (sum_l w_lc exp(-m_lc) / sum_l w_lc + sum_l (1 - w_lc) exp(m_lc) /
    sum_l (1 - w_lc)) / 2``: each class's own tokens draw as much as all others push; the same terms where ``w`` is 0 or
    1. A class without tokens adds its second half alone.
    """
    if not balanced:
        return torch.exp(-(2 * weights - 1) * cosines).mean()
    cosines, weights = cosines.flatten(0, -2), weights.flatten(0, -2)
    own = (weights * torch.exp(-cosines)).sum(0) / weights.sum(0).clamp(min=1e-6)
    others = ((1 - weights) * torch.exp(cosines)).sum(0) / (1 - weights).sum(0).clamp(min=1e-6)
    return 0.5 * (own + others).mean()


def region_tokens(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum_l w_lc x_l / sum_l w_lc`` (N, X) of every class in every sample that shows it, and the classes (N,).

    ``values`` (B, L, X), ``shares`` (B, L, C), rows of 0 where nothing is known. No gradient.
    """
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        mass = shares.sum(1)
        means = shares.transpose(1, 2) @ values.detach().float() / mass.clamp(min=1e-6)[..., None]
        return means[mass > 0], (mass > 0).nonzero()[:, 1]


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


def evened(shares: Tensor) -> Tensor:
    """Return class proportions (..., C) as they would be if all classes were equally frequent; rows of 0 stay.

    Ours, for rare classes: a small organ never has the larger part of a cell, but a cell may hold a larger part of it
    than of anything else. Frequencies are those of the batch, over all processes.
    """
    mass = shares.flatten(0, -2).sum(0)
    sum_of_ranks(mass)
    relative = shares / mass.clamp(min=1e-6)
    return relative / relative.sum(-1, keepdim=True).clamp(min=1e-6)


def label_proportions(label: Tensor, grid: tuple[int, ...], num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the class proportions (B, L, C) in every token's cell, and which tokens carry a label at all (B, L).

    ``label`` (B, *S) int64, -1 where nothing is known; ``grid``: tokens along each axis. No one-hot volume is made:
    voxels are counted where cells of one size cover the label, else one class is pooled at a time. Rows of tokens
    without a label are 0.
    """
    if all(n % cells == 0 for n, cells in zip(label.shape[1:], grid, strict=True)):
        share = _counted(label, grid, num_classes)
    else:
        pool = F.adaptive_avg_pool2d if len(grid) == 2 else F.adaptive_avg_pool3d
        pooled = [pool((label == c).float()[:, None], grid).flatten(1) for c in range(num_classes)]  # type: ignore[arg-type]
        share = torch.stack(pooled, 2)
    known = share.sum(2, keepdim=True)
    return share / known.clamp(min=1e-6) * (known > 1e-6), known[..., 0] > 1e-6


def _counted(label: Tensor, grid: tuple[int, ...], num_classes: int) -> Tensor:
    """Return the number of voxels (B, L, C) of each class in each cell; all cells have one size."""
    cell = torch.arange(len(label), device=label.device).reshape(-1, *[1] * len(grid))
    for axis, cells in enumerate(grid):
        n = label.shape[axis + 1]
        along = torch.arange(n, device=label.device) // (n // cells)
        cell = cell * cells + along.reshape(-1, *[1] * (len(grid) - axis - 1))
    known = (label >= 0) & (label < num_classes)
    slots = cell * (num_classes + 1) + torch.where(known, label, num_classes)
    count = torch.bincount(slots.flatten(), minlength=len(label) * prod(grid) * (num_classes + 1))
    return count.reshape(len(label), prod(grid), num_classes + 1)[..., :-1].float()
