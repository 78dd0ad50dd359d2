"""The point operators in plain torch, for any device, in pieces that bound the memory.

Distances come from differences: the expansion of ``|a - b|^2`` is faster, but loses most digits of small distances.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Distances held at once.
_PIECE = 2**24


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Pick point after point, in all clouds at once."""
    batch = torch.arange(points.shape[0], device=points.device)
    axes = points.unbind(-1)
    nearest = torch.full_like(axes[0], float('inf'))
    picks, pick = [start], start
    for _ in range(num_samples - 1):
        distance = functools.reduce(torch.add, ((x - x[batch, pick, None]).square() for x in axes))
        nearest = torch.minimum(nearest, distance)
        pick = nearest.argmax(-1)
        picks.append(pick)
    return torch.stack(picks, dim=1)


def _squared_distances(query: Tensor, points: Tensor) -> Iterator[Tensor]:
    """Squared distances ``(batch, queries of a piece, points)``, piece by piece."""
    step = max(1, _PIECE // (points.shape[0] * points.shape[1]))
    for part in query.split(step, dim=1):
        axes = zip(part.unbind(-1), points.unbind(-1), strict=True)
        yield functools.reduce(torch.add, ((a[:, :, None] - b[:, None]).square() for a, b in axes))


def _smallest(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` smallest in ascending order and their indices, of equal ones the lowest indices."""
    if k == 1:
        return distances.min(-1, keepdim=True)
    if distances.dtype == torch.float64:
        values, indices = distances.sort(dim=-1, stable=True)
        return values[..., :k], indices[..., :k]
    # The order of equal values in topk is undefined, so value and index become one integer; no distance is below 0.
    keys = distances.view(torch.int32).to(torch.int64) << 32
    keys = keys + torch.arange(distances.shape[-1], device=distances.device)
    keys = keys.topk(k, largest=False).values
    return (keys >> 32).to(torch.int32).view(torch.float32), keys & 0xFFFFFFFF


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Brute force."""
    found = [_smallest(distances, k) for distances in _squared_distances(query, points)]
    distances, indices = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return distances, indices


def ball_query(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Brute force."""
    everyone = torch.arange(points.shape[1], device=points.device)
    found = []
    for distances in _squared_distances(query, points):
        within = distances <= torch.tensor(radius, dtype=distances.dtype, device=distances.device).square()
        indices = everyone.where(within, len(everyone)).topk(k, largest=False).values
        first = distances.argmin(-1).where(indices[..., 0] == len(everyone), indices[..., 0])
        found.append(indices.where(indices < len(everyone), first[..., None]))
    return torch.cat(found, dim=1)


def interpolate(features: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted sums ``(B, M, C)`` of the rows ``indices (B, M, K)`` of ``features``; no weights: plain rows (K = 1)."""
    batch, queries, k = indices.shape
    channels = features.shape[-1]
    if features.device.type == 'cpu':
        features = features.contiguous()
        # Whole rows at a time, which is many times as fast there.
        out = features.new_empty(batch, queries, channels)
        for i in range(batch):
            if weights is None:
                torch.index_select(features[i], 0, indices[i, :, 0], out=out[i])
            else:
                out[i] = F.embedding_bag(indices[i], features[i], mode='sum', per_sample_weights=weights[i])
        return out
    rows = features.gather(1, indices.view(batch, queries * k, 1).expand(-1, -1, channels))
    if weights is None:
        return rows
    return torch.einsum('bmk,bmkc->bmc', weights, rows.view(batch, queries, k, channels))


def interpolate_backward(dout: Tensor, indices: Tensor, weights: Tensor | None, count: int) -> Tensor:
    """The gradient ``(B, count, C)`` of the features."""
    batch, queries, k = indices.shape
    channels = dout.shape[-1]
    rows = dout if weights is None else (weights[..., None] * dout[:, :, None]).view(batch, queries * k, channels)
    grad = dout.new_zeros((batch, count, channels))
    return grad.scatter_add_(1, indices.view(batch, queries * k, 1).expand(-1, -1, channels), rows)


def chamfer(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances to the nearest point of the other cloud and its index, of ``a`` and of ``b``."""
    from_a, from_b = [], []
    for distances in _squared_distances(a, b):
        from_a.append(distances.min(-1))
        from_b.append(distances.min(-2))
    (dist_a, index_a) = (torch.cat(parts, dim=1) for parts in zip(*from_a, strict=True))
    dist_b, piece = torch.stack([found.values for found in from_b]).min(0)
    starts = torch.tensor([0, *(found.values.shape[1] for found in from_a[:-1])], device=a.device).cumsum(0)
    index_b = torch.stack([found.indices for found in from_b]).gather(0, piece[None])[0] + starts[piece]
    return dist_a, index_a, dist_b, index_b


def chamfer_backward(
    grad_a: Tensor, grad_b: Tensor, a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of both clouds: each distance depends on both of its ends."""
    rows_a, rows_b = (index[..., None].expand(-1, -1, a.shape[-1]) for index in (index_a, index_b))
    pull_a = 2 * grad_a[..., None] * (a - b.gather(1, rows_a))
    pull_b = 2 * grad_b[..., None] * (b - a.gather(1, rows_b))
    return pull_a.scatter_add(1, rows_b, -pull_b), pull_b.scatter_add(1, rows_a, -pull_a)
