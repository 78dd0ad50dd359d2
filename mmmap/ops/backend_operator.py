"""How the operators that scan backends implement are defined, each with its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mmmap.ops.backends import get_backend
from mmmap.ops.torch_library import define_backward, define_differentiable


def define_backend_operator(
    schema: str,
    forward: Callable,
    fake: Callable,
    backward: Callable,
    received: str = 'Tensor dout',
    kept: int = 0,
    zeros: Callable[[Tensor], Tensor] | None = torch.zeros_like,
) -> None:
    """Define ``mmmap::<name>`` and ``mmmap::<name>_backward``.

    Args:
        schema: Tensors come first, then options. ``bool save``, if there, and ``str backend`` come last.
        forward: Takes the backend object and the arguments, returns the outputs.
        fake: The same for tensors without data.
        backward: Takes the backend object, what is ``received``, the tensors and the options other than ``save``.
            Returns the gradients of the tensors; that of a tensor that is None is ignored.
        received: Schema of the first arguments of the backward pass: the gradients of the outputs and the kept outputs.
        kept: Number of outputs, the last ones, that are kept for the backward pass and have no gradient.
        zeros: Makes the gradient of the first output, if there is none, from the first tensor. With None there is then
            no gradient of any tensor.
    """
    operator, _, arguments = schema.partition(') ->')[0].partition('(')
    tensors, saves = arguments.count('Tensor'), 'bool save' in arguments
    first = received.count('Tensor')
    last = first + tensors

    def implementation(*args: Any) -> Any:
        return forward(get_backend(args[-1]), *args[:-1])

    def fake_implementation(*args: Any) -> Any:
        return fake(get_backend(args[-1]), *args[:-1])

    def empty_for_none(grads: Iterable[Tensor | None], *args: Any) -> tuple[Tensor | None, ...]:
        return tuple(
            args[0].new_empty(0) if x is None else grad for x, grad in zip(args[first:last], grads, strict=True)
        )

    def backward_implementation(*args: Any) -> tuple[Tensor | None, ...]:
        return empty_for_none(backward(get_backend(args[-1]), *args[:-1]), *args)

    def fake_backward(*args: Any) -> tuple[Tensor | None, ...]:
        return empty_for_none([None if x is None else torch.empty_like(x) for x in args[first:last]], *args)

    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        outputs = output[len(output) - kept :] if kept else ()
        ctx.mark_non_differentiable(*outputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*outputs, *inputs[:tensors])
        ctx.options = (*inputs[tensors : -2 if saves else -1], inputs[-1])

    def autograd(ctx: Any, dout: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # Checkpointing allows one read only.
        if dout is None:
            if zeros is None:
                return (None,) * len(ctx.needs_input_grad)
            dout = zeros(saved[kept])
        others = grads[: len(grads) - kept]
        found = overload(dout, *others, *saved, *ctx.options)
        found = (None if x is None else grad for x, grad in zip(saved[kept:], found, strict=True))
        return (*found, *(None,) * (len(ctx.options) + saves))

    results = ', '.join(['Tensor'] * tensors)
    arguments = arguments.replace('bool save, ', '')
    define_backward(
        f'{operator}_backward({received}, {arguments}) -> ({results})', backward_implementation, fake_backward
    )
    overload = getattr(torch.ops.mmmap, f'{operator}_backward').default
    define_differentiable(schema, implementation, fake_implementation, setup_context, autograd)
