"""What the operators share: their torch library, argument checks, and the refusal of second derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

LIBRARY = torch.library.Library('mmmap', 'DEF')


def check_floating(operator: str, name: str, x: Tensor) -> None:
    """Raise a TypeError that names the argument unless ``x`` is a real floating-point tensor of 16 to 64 bits."""
    if not isinstance(x, Tensor):
        raise TypeError(f'{operator}: {name} must be a tensor, got {type(x).__name__}')
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise TypeError(f'{operator}: {name} must be float32, bfloat16, float16 or float64, got {x.dtype}')


def check_same_device(operator: str, named: Mapping[str, Tensor | None]) -> None:
    """Raise a ValueError that names the first argument that lies on another device than the first one."""
    (first, device), *rest = [(name, x.device) for name, x in named.items() if x is not None]
    for name, other in rest:
        if other != device:
            raise ValueError(f'{operator}: {name} is on {other}, but {first} is on {device}')


def check_shape(operator: str, name: str, x: Tensor, expected: Sequence[int], meaning: str) -> None:
    """Raise a ValueError that names the argument unless ``x`` has the expected shape."""
    if tuple(x.shape) != tuple(expected):
        raise ValueError(f'{operator}: {name} must be {meaning} = {tuple(expected)}, got {tuple(x.shape)}')


def refuse_double_backward(operator: str) -> None:
    """Make differentiating ``mmmap::<operator>`` (itself a backward pass) a clear error."""

    def refuse(ctx, *grads):
        raise RuntimeError(f"mmmap::{operator} has no derivative; for second derivatives use backend='reference'")

    torch.library.register_autograd(f'mmmap::{operator}', refuse, lib=LIBRARY)
