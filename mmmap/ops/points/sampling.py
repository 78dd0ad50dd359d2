"""Farthest point sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmap.ops.checks import check_shape
from mmmap.ops.points import plain_torch
from mmmap.ops.points.argument_checks import check_clouds, check_count, check_finite, common_type, resolve_backend
from mmmap.ops.torch_library import define_op

_NAME = 'farthest_point_sample'


def farthest_point_sample(
    points: Tensor,
    num_samples: int,
    start: int | Tensor = 0,
    backend: str = 'auto',
) -> Tensor:
    """Pick points one after the other, each the farthest from those picked before (PointNet++, arXiv 1706.02413).

    Of equally far points, the one with the lowest index is picked, also if all distances are 0.

    Args:
        points: ``(B, N, D)``, any strides; float16 and bfloat16 are computed in float32.
        num_samples: Points to pick, at most N.
        start: Index of the first pick, one for all clouds or ``(B,)``.
        backend: ``'auto'``, ``'native'`` (CPU) or ``'torch'``.

    Returns:
        Indices ``(B, num_samples)``, int64, in order.

    Raises:
        TypeError: ``points`` is not a real floating-point tensor, or ``num_samples`` or ``start`` no integer.
        ValueError: A shape, number, device or backend does not fit, or (on a CPU) a value is not finite.
    """
    check_clouds(_NAME, points=points)
    check_count(_NAME, 'num_samples', num_samples, points.shape[1])
    start = _check_start(start, points)
    (points,) = common_type(points.detach())
    name = resolve_backend(_NAME, backend, points.device.type)
    return torch.ops.mmmap.farthest_point_sample.default(points, num_samples, start, name)


def _check_start(start: int | Tensor, points: Tensor) -> Tensor:
    """``start`` as ``(B,)`` int64."""
    batch, count, _ = points.shape
    if isinstance(start, Tensor):
        if start.dtype not in (torch.int64, torch.int32):
            raise TypeError(f'{_NAME}: start must be an int or an integer tensor, got {start.dtype}')
        check_shape(_NAME, 'start', start, (batch,), '(clouds,)')
        return start.to(points.device, torch.int64)
    if isinstance(start, bool) or not isinstance(start, int):
        raise TypeError(f'{_NAME}: start must be an int or an integer tensor, got {type(start).__name__}')
    if not 0 <= start < count:
        raise ValueError(f'{_NAME}: start must be from 0 to {count - 1}, got {start}')
    return torch.full((batch,), start, dtype=torch.int64, device=points.device)


def _forward(points, num_samples, start, backend):
    check_finite(_NAME, points=points)
    if start.device.type == 'cpu' and not bool(((start >= 0) & (start < points.shape[1])).all()):
        raise ValueError(f'{_NAME}: start must be from 0 to {points.shape[1] - 1}, got {start.tolist()}')
    if backend == 'native':
        return torch.ops.mmmap_native.farthest_point_sample.default(points, num_samples, start)
    return plain_torch.farthest_point_sample(points, num_samples, start)


def _forward_fake(points, num_samples, start, backend):
    return start.new_empty((points.shape[0], num_samples))


define_op(f'{_NAME}(Tensor points, int num_samples, Tensor start, str backend) -> Tensor', _forward, _forward_fake)
