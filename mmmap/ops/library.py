"""What the operators share: their torch library, argument checks, and the refusal of second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def register(operator: str, implementation: Callable, fake: Callable) -> None:
    """Implement ``mmmap::<operator>`` for all devices, and for tensors without data."""
    LIBRARY.impl(operator, implementation, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmmap::{operator}', fake, lib=LIBRARY)


def register_autograd(operator: str, backward: Callable, setup_context: Callable) -> None:
    """As ``torch.library.register_autograd``, for operators whose schema has no default values.

    The one of torch takes 0.1 to 0.2 ms more a call on a slow core, mostly to look for default values, which is what
    the kernels themselves take at small sizes.
    """
    overload = getattr(torch.ops.mmmap, operator).default

    def compute(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)

    def forward(ctx, *args):
        output = compute(*args)
        setup_context(ctx, args, output)
        return output

    functions = dict(forward=staticmethod(forward), backward=staticmethod(backward))
    function = type(f'mmmap_{operator}', (torch.autograd.Function,), functions)

    def differentiable(*args):
        wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
        return function.apply(*args) if wanted else compute(*args)

    LIBRARY.impl(operator, differentiable, 'Autograd')


def refuse_double_backward(operator: str) -> None:
    """Make differentiating ``mmmap::<operator>`` (itself a backward pass) a clear error."""

    def refuse(ctx, *grads):
        raise RuntimeError(f"mmmap::{operator} has no derivative; for second derivatives use backend='reference'")

    register_autograd(operator, refuse, lambda ctx, inputs, output: None)
