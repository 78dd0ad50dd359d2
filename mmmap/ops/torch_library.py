"""How operators are defined in torch: the schema, an implementation, a fake one, and the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library('mmmap', 'DEF')


def define_op(schema: str, implementation: Callable, fake: Callable) -> str:
    """Define ``mmmap::<name>`` for all devices.

    Args:
        schema: ``name(arguments) -> results``, without default values.
        implementation: Called for tensors on any device.
        fake: Called for tensors without data.

    Returns:
        The name.
    """
    operator = schema.partition('(')[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(operator, implementation, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmmap::{operator}', fake, lib=_LIBRARY)
    return operator


def define_differentiable(
    schema: str, implementation: Callable, fake: Callable, setup_context: Callable, backward: Callable
) -> None:
    """Define an operator and its gradient, as ``torch.library.register_autograd`` takes them.

    The function of torch takes 0.1 to 0.2 ms more a call on a slow core, mostly to look for default values. At small
    sizes the kernels themselves take no longer.
    """
    operator = define_op(schema, implementation, fake)
    overload = getattr(torch.ops.mmmap, operator).default

    def compute(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args)

    def forward(ctx: Any, *args: Any) -> Any:
        output = compute(*args)
        setup_context(ctx, args, output)
        return output

    functions = dict(forward=staticmethod(forward), backward=staticmethod(backward))
    function: Any = type(f'mmmap_{operator}', (torch.autograd.Function,), functions)

    def differentiable(*args: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
        return function.apply(*args) if wanted else compute(*args)

    _LIBRARY.impl(operator, differentiable, 'Autograd')


def define_backward(schema: str, implementation: Callable, fake: Callable) -> None:
    """Define a backward pass, an operator whose own derivative is a clear error."""

    def refuse(ctx: Any, *grads: Any) -> None:
        operator = schema.partition('(')[0]
        raise RuntimeError(f"mmmap::{operator} has no derivative; for second derivatives use backend='reference'")

    define_differentiable(schema, implementation, fake, lambda ctx, inputs, output: None, refuse)
