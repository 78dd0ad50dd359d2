"""Features of points by index, and interpolated between neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmap.ops.backends.base import compute_dtype
from mmmap.ops.checks import check_floating, check_same_device
from mmmap.ops.points import plain_torch
from mmmap.ops.points.argument_checks import check_clouds
from mmmap.ops.points.neighbours import knn
from mmmap.ops.torch_library import define_backward, define_differentiable


def gather_points(features: Tensor, indices: Tensor) -> Tensor:
    """Rows of each cloud by index; differentiable.

    Args:
        features: ``(B, N, C)``, of any type.
        indices: ``(B, ...)``, int64, from 0 to N - 1.

    Returns:
        ``(B, ..., C)``, type of ``features``.

    Raises:
        TypeError: ``indices`` are not int64.
        ValueError: A shape or device does not fit.
        IndexError: An index is out of range (on a CPU).
    """
    operator = 'gather_points'
    if not isinstance(features, Tensor):
        raise TypeError(f'{operator}: features must be a tensor, got {type(features).__name__}')
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        raise TypeError(f'{operator}: indices must be int64, got {getattr(indices, "dtype", type(indices).__name__)}')
    check_same_device(operator, {'features': features, 'indices': indices})
    if features.dim() != 3 or 0 in features.shape:
        raise ValueError(
            f'{operator}: features must be (batch, points, channels), none of them 0, got {tuple(features.shape)}'
        )
    if indices.dim() < 2 or indices.shape[0] != features.shape[0]:
        raise ValueError(f'{operator}: indices must be (batch={features.shape[0]}, ...), got {tuple(indices.shape)}')
    flat = indices.reshape(indices.shape[0], -1, 1)
    if features.is_floating_point():
        rows = torch.ops.mmmap.interpolate.default(features, flat, None)
    else:
        rows = plain_torch.interpolate(features, flat, None)
    return rows.view(*indices.shape, features.shape[-1])


def three_interpolate(query: Tensor, points: Tensor, features: Tensor, k: int = 3, backend: str = 'auto') -> Tensor:
    """Features of queries: the mean over the ``k`` nearest points, weighted by their inverse squared distances.

    A query that coincides with points gets their mean alone. (PointNet++ adds a small number to each distance, so that
    its result depends on the unit of length.)

    Args:
        query: ``(B, M, D)``, any strides.
        points: ``(B, N, D)``.
        features: ``(B, N, C)``, one row for each of ``points``.
        k: Neighbours; all points if there are fewer.
        backend: ``'auto'``, ``'native'`` (CPU) or ``'torch'``, of the search for neighbours.

    Returns:
        ``(B, M, C)``, type of ``features``, differentiable in ``features`` only.

    Raises:
        TypeError: A tensor is not real floating point, or ``k`` no integer.
        ValueError: A shape, number, device or backend does not fit, or (on a CPU) a coordinate is not finite.
    """
    operator = 'three_interpolate'
    check_clouds(operator, points=points, query=query)
    check_floating(operator, 'features', features)
    check_same_device(operator, {'points': points, 'features': features})
    if features.dim() != 3 or features.shape[:2] != points.shape[:2] or features.shape[2] == 0:
        batch, count, _ = points.shape
        raise ValueError(
            f'{operator}: features must be (batch={batch}, points={count}, channels), got {tuple(features.shape)}'
        )
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f'{operator}: k must be an int of at least 1, got {k!r}')
    distances, indices = knn(query, points, min(k, points.shape[1]), backend)
    # The nearest may be at distance 0.
    weights = torch.where(distances > 0, distances[..., :1] / distances, 1)
    weights = (weights / weights.sum(-1, keepdim=True)).to(compute_dtype(features.dtype))
    return torch.ops.mmmap.interpolate.default(features, indices, weights)


def _forward(features, indices, weights):
    dtype = compute_dtype(features.dtype)
    return plain_torch.interpolate(features.to(dtype), indices, weights).to(features.dtype)


def _forward_fake(features, indices, weights):
    return features.new_empty((*indices.shape[:2], features.shape[2]))


def _backward(dout, indices, weights, count):
    dtype = compute_dtype(dout.dtype)
    return plain_torch.interpolate_backward(dout.to(dtype), indices, weights, count).to(dout.dtype)


def _backward_fake(dout, indices, weights, count):
    return dout.new_empty((dout.shape[0], count, dout.shape[2]))


def _setup_context(ctx, inputs, output) -> None:
    features, indices, weights = inputs
    ctx.save_for_backward(indices, weights)
    ctx.count = features.shape[1]


def _autograd(ctx, dout):
    grad = torch.ops.mmmap.interpolate_backward.default(dout, *ctx.saved_tensors, ctx.count)
    return grad, None, None


define_backward(
    'interpolate_backward(Tensor dout, Tensor indices, Tensor? weights, SymInt count) -> Tensor',
    _backward,
    _backward_fake,
)
define_differentiable(
    'interpolate(Tensor features, Tensor indices, Tensor? weights) -> Tensor',
    _forward,
    _forward_fake,
    _setup_context,
    _autograd,
)
