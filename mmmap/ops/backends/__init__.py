"""The scan backends, and the choice of one."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from mmmap.ops.backends.base import ScanBackend
from mmmap.ops.backends.fallback import TorchBackend
from mmmap.ops.backends.mamba_ssm import MambaSsmBackend
from mmmap.ops.backends.native import NativeBackend
from mmmap.ops.backends.triton import TritonBackend

REFERENCE = 'reference'
_BACKENDS: dict[str, ScanBackend] = {
    backend.name: backend for backend in (NativeBackend(), TritonBackend(), MambaSsmBackend(), TorchBackend())
}
# By device, the fastest first.
_PREFERRED = {'cpu': ('native',), 'cuda': ('triton', 'mamba_ssm')}

_override: ContextVar[str | None] = ContextVar('mmmap_scan_backend', default=None)


def available_backends() -> dict[str, str | None]:
    """Every backend, with None if it can be used in this process, else the reason why not, in one line."""
    reasons: dict[str, str | None] = {REFERENCE: None}
    reasons.update({name: backend.unavailable() for name, backend in _BACKENDS.items()})
    return reasons


def get_backend(name: str) -> ScanBackend:
    """The backend object of a name that :func:`resolve_backend` returned."""
    return _BACKENDS[name]


def _check(name: str) -> None:
    """Raise an error that lists the backends unless ``name`` can be used."""
    reasons = available_backends()
    if name in reasons and reasons[name] is None:
        return
    usable = ', '.join(key for key, reason in reasons.items() if reason is None)
    others = '; '.join(f'{key}: {reason}' for key, reason in reasons.items() if reason is not None)
    what = 'is not available' if name in reasons else 'is unknown'
    raise ValueError(
        f'scan backend {name!r} {what}; available: auto, {usable}' + (f'; not: {others}' if others else '')
    )


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Let ``backend='auto'`` mean ``name`` inside a ``with`` block, for this thread (context) only.

    Args:
        name: A name from :func:`available_backends`, or ``'auto'``.

    Raises:
        ValueError: ``name`` is unknown or not available.
    """
    if name != 'auto':
        _check(name)
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


@torch.compiler.assume_constant_result
def resolve_backend(name: str, device: str, dtype: torch.dtype) -> str:
    """The backend to run.

    Args:
        name: ``'auto'`` means the choice of :func:`use_backend`, else that of the environment variable
            ``MMMAP_SCAN_BACKEND``, else the fastest available one.
        device: Device type of the tensors.
        dtype: Type of ``u`` or ``x``.

    Raises:
        ValueError: The backend is unknown, not available, or cannot compute such tensors.
    """
    if name == 'auto':
        name = _override.get() or os.environ.get('MMMAP_SCAN_BACKEND') or 'auto'
    if name == 'auto':
        return _automatic(device, dtype)
    _check(name)
    if name != REFERENCE and (reason := _BACKENDS[name].unsupported(device, dtype)) is not None:
        raise ValueError(f'scan backend {name!r} cannot run this: {reason}')
    return name


def _automatic(device: str, dtype: torch.dtype) -> str:
    """The fastest backend for such tensors; warns once if that is the fallback."""
    reasons = []
    for name in _PREFERRED.get(device, ()):
        reason = _BACKENDS[name].unavailable()
        if reason is not None:
            reasons.append(reason)
        elif _BACKENDS[name].unsupported(device, dtype) is None:
            return name
    if len(reasons) == len(_PREFERRED.get(device, ())) > 0:
        _warn_fallback(device, '; '.join(reasons))
    return 'torch'


@functools.cache
def _warn_fallback(device: str, reason: str) -> None:
    warnings.warn(f'mmmap: the selective scan on {device} runs in plain torch, which is slow: {reason}', stacklevel=2)
