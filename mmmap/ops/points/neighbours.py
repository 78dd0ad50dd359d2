"""The nearest neighbours of points, and neighbours within a radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmmap.ops.points import plain_torch
from mmmap.ops.points.argument_checks import check_clouds, check_count, check_finite, common_type, resolve_backend
from mmmap.ops.torch_library import define_op


def knn(query: Tensor, points: Tensor, k: int, backend: str = 'auto') -> tuple[Tensor, Tensor]:
    """The ``k`` nearest points of each query, the nearest first; of equally near ones, the lowest index first.

    Args:
        query: ``(B, M, D)``, any strides; float16 and bfloat16 are computed in float32.
        points: ``(B, N, D)``.
        k: Neighbours, at most N.
        backend: ``'auto'``, ``'native'`` (CPU) or ``'torch'``.

    Returns:
        Squared distances ``(B, M, k)``, float64 if an argument is, else float32, and indices ``(B, M, k)``, int64.
        Neither has a gradient.

    Raises:
        TypeError: A cloud is not a real floating-point tensor, or ``k`` no integer.
        ValueError: A shape, number, device or backend does not fit, or (on a CPU) a value is not finite.
    """
    check_clouds('knn', points=points, query=query)
    check_count('knn', 'k', k, points.shape[1])
    query, points = common_type(query.detach(), points.detach())
    return torch.ops.mmmap.knn.default(query, points, k, resolve_backend('knn', backend, points.device.type))


def ball_query(query: Tensor, points: Tensor, radius: float, k: int, backend: str = 'auto') -> Tensor:
    """Up to ``k`` points within a radius of each query, those with the lowest indices (PointNet++, arXiv 1706.02413).

    Args:
        query: ``(B, M, D)``, any strides; float16 and bfloat16 are computed in float32.
        points: ``(B, N, D)``.
        radius: Largest distance, inclusive.
        k: Neighbours, at most N.
        backend: ``'auto'``, ``'native'`` (CPU) or ``'torch'``.

    Returns:
        Indices ``(B, M, k)``, int64, ascending. If fewer are within the radius, the first one is repeated; if none is,
        the nearest point.

    Raises:
        TypeError: A cloud is not a real floating-point tensor, or ``k`` no integer.
        ValueError: A shape, number, device or backend does not fit, or (on a CPU) a value is not finite.
    """
    check_clouds('ball_query', points=points, query=query)
    check_count('ball_query', 'k', k, points.shape[1])
    if not (radius >= 0 and math.isfinite(radius)):
        raise ValueError(f'ball_query: radius must be finite and not below 0, got {radius}')
    query, points = common_type(query.detach(), points.detach())
    name = resolve_backend('ball_query', backend, points.device.type)
    return torch.ops.mmmap.ball_query.default(query, points, float(radius), k, name)


def _knn(query, points, k, backend):
    check_finite('knn', query=query, points=points)
    if backend == 'native':
        return torch.ops.mmmap_native.knn.default(query, points, k)
    return plain_torch.knn(query, points, k)


def _knn_fake(query, points, k, backend):
    shape = (*query.shape[:2], k)
    return query.new_empty(shape), query.new_empty(shape, dtype=torch.int64)


def _ball_query(query, points, radius, k, backend):
    check_finite('ball_query', query=query, points=points)
    if backend == 'native':
        return torch.ops.mmmap_native.ball_query.default(query, points, radius, k)
    return plain_torch.ball_query(query, points, radius, k)


def _ball_query_fake(query, points, radius, k, backend):
    return query.new_empty((*query.shape[:2], k), dtype=torch.int64)


define_op('knn(Tensor query, Tensor points, int k, str backend) -> (Tensor, Tensor)', _knn, _knn_fake)
define_op(
    'ball_query(Tensor query, Tensor points, float radius, int k, str backend) -> Tensor',
    _ball_query,
    _ball_query_fake,
)
