"""Checks of the arguments of operators; each raises one line that names the operator and the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_floating(operator: str, name: str, x: object) -> None:
    """Raise a TypeError unless ``x`` is a real floating-point tensor of 16 to 64 bits."""
    if not isinstance(x, Tensor):
        raise TypeError(f'{operator}: {name} must be a tensor, got {type(x).__name__}')
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise TypeError(f'{operator}: {name} must be float32, bfloat16, float16 or float64, got {x.dtype}')


def check_same_device(operator: str, named: Mapping[str, Tensor | None]) -> None:
    """Raise a ValueError unless all tensors are on the device of the first one."""
    (first, device), *rest = [(name, x.device) for name, x in named.items() if x is not None]
    for name, other in rest:
        if other != device:
            raise ValueError(f'{operator}: {name} is on {other}, but {first} is on {device}')


def check_shape(operator: str, name: str, x: Tensor | None, expected: Sequence[int], meaning: str) -> None:
    """Raise a ValueError unless ``x`` has the expected shape; None passes."""
    if x is not None and tuple(x.shape) != tuple(expected):
        raise ValueError(f'{operator}: {name} must be {meaning} = {tuple(expected)}, got {tuple(x.shape)}')


def _check_tensors(operator: str, named: Mapping[str, Tensor | None], optional: Sequence[str]) -> None:
    for name, x in named.items():
        if x is not None or name not in optional:
            check_floating(operator, name, x)
    check_same_device(operator, named)


def check_scan(
    operator: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    directions: tuple[int, ...] = (),
) -> None:
    """Check the tensors of a scan; all but ``z`` have the axes ``directions``, ``(2,)`` or none, before their own."""
    named = {'u': u, 'delta': delta, 'A': A, 'B': B, 'C': C, 'D': D, 'z': z, 'delta_bias': delta_bias}
    _check_tensors(operator, named, ('D', 'z', 'delta_bias'))
    two = '2, ' if directions else ''
    axes = len(directions)
    if u.dim() != 3 + axes or 0 in u.shape or u.shape[1:-2] != directions:
        meaning = f'(batch, {two}channels, length)'
        raise ValueError(f'{operator}: u must be {meaning}, none of them 0, got {tuple(u.shape)}')
    batch, channels, length = u.shape[0], u.shape[-2], u.shape[-1]
    check_shape(operator, 'delta', delta, u.shape, 'the shape of u')
    if A.dim() != 2 + axes or A.shape[:-1] != (*directions, channels) or A.shape[-1] == 0:
        raise ValueError(f'{operator}: A must be ({two}channels={channels}, states), got {tuple(A.shape)}')
    expected, meaning = (batch, *directions, A.shape[-1], length), f'(batch, {two}states, length)'
    if B.dim() == 4 and not directions:
        groups = B.shape[1]
        if groups == 0 or channels % groups:
            raise ValueError(f'{operator}: B has {groups} groups, which do not divide the {channels} channels of u')
        expected, meaning = (batch, groups, A.shape[-1], length), '(batch, groups, states, length)'
    check_shape(operator, 'B', B, expected, meaning)
    check_shape(operator, 'C', C, expected, f'{meaning} like B')
    check_shape(operator, 'z', z, (batch, channels, length), '(batch, channels, length)')
    for name in ('D', 'delta_bias'):
        check_shape(operator, name, named[name], (*directions, channels), f'({two}channels)')


def check_conv(
    operator: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    directions: tuple[int, ...] = (),
) -> None:
    """Check the arguments of a convolution; ``weight`` and ``bias`` have the axes ``directions`` before their own."""
    if activation not in (None, 'silu'):
        raise ValueError(f"{operator}: activation must be None or 'silu', got {activation!r}")
    _check_tensors(operator, {'x': x, 'weight': weight, 'bias': bias}, ('bias',))
    if x.dim() != 3 or 0 in x.shape:
        raise ValueError(f'{operator}: x must be (batch, channels, length), none of them 0, got {tuple(x.shape)}')
    two, channels = '2, ' if directions else '', x.shape[1]
    if weight.dim() != 2 + len(directions) or weight.shape[:-1] != (*directions, channels) or weight.shape[-1] == 0:
        raise ValueError(f'{operator}: weight must be ({two}channels={channels}, taps), got {tuple(weight.shape)}')
    check_shape(operator, 'bias', bias, (*directions, channels), f'({two}channels)')
