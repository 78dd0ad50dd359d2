"""Checks of the arguments of point operators, and the choice of their backend."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from mmmap.ops.backends.native import NativeBackend
from mmmap.ops.checks import check_floating, check_same_device

# The largest coordinates whose squared distances fit the type, with room for many dimensions.
_LARGEST = {torch.float32: 1e18, torch.float64: 1e150}


def check_clouds(operator: str, **named: Tensor) -> None:
    """Raise an error unless all are floating-point ``(B, N, D)`` of equal B, D and device."""
    for name, x in named.items():
        check_floating(operator, name, x)
    check_same_device(operator, named)
    (first, like), *_ = named.items()
    for name, x in named.items():
        if x.dim() != 3 or 0 in x.shape:
            raise ValueError(f'{operator}: {name} must be (batch, points, dims), none of them 0, got {tuple(x.shape)}')
        for axis, what in ((0, 'clouds'), (2, 'dims')):
            if x.shape[axis] != like.shape[axis]:
                raise ValueError(f'{operator}: {name} has {x.shape[axis]} {what}, but {first} has {like.shape[axis]}')


def check_count(operator: str, name: str, count: int, most: int) -> None:
    """Raise an error unless ``count`` is an integer from 1 to the number of points."""
    if isinstance(count, bool) or not isinstance(count, (int, torch.SymInt)):
        raise TypeError(f'{operator}: {name} must be an int, got {type(count).__name__}')
    if not 1 <= count <= most:
        raise ValueError(f'{operator}: {name} must be from 1 to the number of points {most}, got {count}')


def check_finite(operator: str, **named: Tensor) -> None:
    """Raise a ValueError if the distances of a CPU tensor would not be finite; other devices are not waited for."""
    for name, x in named.items():
        if x.device.type == 'cpu' and not bool(x.abs().amax() <= _LARGEST[x.dtype]):
            what = 'values too large to be squared' if bool(x.isfinite().all()) else 'values that are not finite'
            raise ValueError(f'{operator}: {name} holds {what}')


def common_type(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one computing type: float64 if any is, else float32."""
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return [x.to(dtype) for x in tensors]


def available_point_backends() -> dict[str, str | None]:
    """Every backend of the point operators, with None if it can be used here, else the reason why not."""
    return {'native': NativeBackend().unavailable(), 'torch': None}


@torch.compiler.assume_constant_result
def resolve_backend(operator: str, backend: str, device: str) -> str:
    """The backend to run for ``'auto'``, ``'native'`` or ``'torch'``; a ValueError if it cannot be used."""
    reasons = available_point_backends()
    if backend == 'auto':
        if device != 'cpu':
            return 'torch'
        if reasons['native'] is None:
            return 'native'
        _warn_fallback(reasons['native'])
        return 'torch'
    if backend not in reasons:
        raise ValueError(f'{operator}: backend must be one of auto, {", ".join(reasons)}, got {backend!r}')
    reason = reasons[backend]
    if backend == 'native' and device != 'cpu':
        reason = f'the tensors are on {device}, the native kernels run on cpu'
    if reason is not None:
        raise ValueError(f'{operator}: backend {backend!r} cannot be used: {reason}')
    return backend


@functools.cache
def _warn_fallback(reason: str) -> None:
    warnings.warn(f'mmmap: point operators on cpu run in plain torch, which is slow: {reason}', stacklevel=2)
