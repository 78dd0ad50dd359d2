"""The selective scan (S6, Mamba) as one torch operator over exchangeable backends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backends import REFERENCE, get_backend, resolve
from mmmap.ops.backends.base import ScanInputs, compute_dtype
from mmmap.ops.backends.reference import selective_scan_reference
from mmmap.ops.library import (
    LIBRARY,
    check_floating,
    check_same_device,
    check_shape,
    refuse_double_backward,
    register,
    register_autograd,
)

_INPUTS = 'Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias'
LIBRARY.define(
    f'selective_scan({_INPUTS}, bool delta_softplus, bool reverse, bool save, str backend) -> (Tensor, Tensor, Tensor)'
)
LIBRARY.define(
    f'selective_scan_backward(Tensor dout, Tensor? dlast, Tensor saved, {_INPUTS}, bool delta_softplus, bool reverse, '
    'str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)'
)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    reverse: bool = False,
    backend: str = 'auto',
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan of Mamba (arXiv 2312.00752).

    With ``dt = delta + delta_bias`` (through softplus if asked), for every channel and state::

        h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t],    y[t] = sum over states of C[t] h[t] + D u[t]
        out[t] = y[t] * silu(z[t])

    States and sums are kept in float32 (float64 if ``u`` is float64) whatever the types of the inputs, which may
    differ from each other (as they do under autocast); the output has the type of ``u``, each gradient that of its
    input. Any strides are accepted; channels that lie side by side in memory are the fast case on a CPU. A compiled
    function keeps the backend that was chosen when it was compiled.

    Args:
        u: Input ``(batch, channels, length)``.
        delta: Step size, shape of ``u``.
        A: Decay rates ``(channels, states)``, real.
        B: Input weights ``(batch, states, length)``, or ``(batch, groups, states, length)`` where groups divides
            channels and each group of neighbouring channels has its own weights.
        C: Output weights, shape of ``B``.
        D: Skip weights ``(channels,)``.
        z: Gate, shape of ``u``.
        delta_bias: ``(channels,)``, added to ``delta`` before softplus.
        delta_softplus: Whether ``delta`` passes through softplus (the identity above 20).
        return_last_state: Whether to return the last state as well.
        reverse: Whether the scan runs from the last position to the first. The native and the Triton kernels flip
            nothing for it, ``mamba_ssm`` copies.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output, shape and type of ``u``; with ``return_last_state`` also the state after the last step (``reverse``:
        after position 0) ``(batch, channels, states)``, differentiable.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape or device does not fit, or the backend cannot be used.
    """
    _check_inputs(u, delta, A, B, C, D, z, delta_bias)
    name = resolve(backend, u.device.type, u.dtype)
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    if name == REFERENCE:
        out, last = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    else:
        tensors = [x for x in (u, delta, A, B, C, D, z, delta_bias) if x is not None]
        save = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        out, last, _ = torch.ops.mmmap.selective_scan.default(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, save, name
        )
    return (out, last) if return_last_state else out


def _check_inputs(u, delta, A, B, C, D, z, delta_bias) -> None:
    """One-line errors that name the argument."""
    named = {'u': u, 'delta': delta, 'A': A, 'B': B, 'C': C, 'D': D, 'z': z, 'delta_bias': delta_bias}
    for name, x in named.items():
        if x is not None or name in ('u', 'delta', 'A', 'B', 'C'):
            check_floating('selective_scan', name, x)
    check_same_device('selective_scan', named)
    if u.dim() != 3 or 0 in u.shape:
        raise ValueError(f'selective_scan: u must be (batch, channels, length), none of them 0, got {tuple(u.shape)}')
    batch, channels, length = u.shape
    check_shape('selective_scan', 'delta', delta, u.shape, 'the shape of u')
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f'selective_scan: A must be (channels={channels}, states), got {tuple(A.shape)}')
    states = A.shape[1]
    if B.dim() == 4:
        groups = B.shape[1]
        if groups == 0 or channels % groups:
            raise ValueError(f'selective_scan: B has {groups} groups, which do not divide the {channels} channels of u')
        expected = (batch, groups, states, length)
        meaning = '(batch, groups, states, length)'
    else:
        expected, meaning = (batch, states, length), '(batch, states, length)'
    check_shape('selective_scan', 'B', B, expected, meaning)
    check_shape('selective_scan', 'C', C, expected, f'{meaning} like B')
    if z is not None:
        check_shape('selective_scan', 'z', z, u.shape, 'the shape of u')
    for name in ('D', 'delta_bias'):
        if named[name] is not None:
            check_shape('selective_scan', name, named[name], (channels,), '(channels,)')


def _forward(*args):
    *inputs, save, backend = args
    return get_backend(backend).scan_forward(ScanInputs(*inputs), save)


def _forward_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, save, backend):
    backend = get_backend(backend)
    shape = backend.saved_shape(u, B) if save else (0,)
    last = u.new_empty((u.shape[0], u.shape[1], A.shape[1]), dtype=compute_dtype(u.dtype))
    return torch.empty_like(u), last, u.new_empty(shape, dtype=backend.saved_dtype(u.dtype))


def _backward(dout, dlast, saved, *args):
    *rest, name = args
    inputs, backend = ScanInputs(*rest), get_backend(name)
    if saved.numel() == 0 and 0 not in backend.saved_shape(inputs.u, inputs.B):
        raise RuntimeError('selective_scan_backward: the forward pass kept no states; call it with save=True')
    grads = backend.scan_backward(dout, dlast, saved, inputs)
    return tuple(dout.new_empty(0) if grad is None else grad for grad in grads)


def _backward_fake(dout, dlast, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, backend):
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    return tuple(dout.new_empty(0) if x is None else torch.empty_like(x) for x in inputs)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, delta_softplus, reverse, _, backend = inputs
    _, _, saved = output
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(saved, *tensors)
    ctx.options = (delta_softplus, reverse, backend)


def _autograd(ctx, dout, dlast, _):
    saved, u, *rest = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(u)
    grads = torch.ops.mmmap.selective_scan_backward.default(dout, dlast, saved, u, *rest, *ctx.options)
    grads = [None if x is None else grad for x, grad in zip((u, *rest), grads, strict=True)]
    return (*grads, None, None, None, None)


register('selective_scan', _forward, _forward_fake)
register('selective_scan_backward', _backward, _backward_fake)
register_autograd('selective_scan', _autograd, _setup_context)
refuse_double_backward('selective_scan_backward')


@register_flop_formula(torch.ops.mmmap.selective_scan)
def selective_scan_flops(u_shape, delta_shape, A_shape, B_shape, C_shape, D_shape, z_shape, *args, **kwargs) -> int:
    """Additions and multiplications of a forward pass, an exponential counted as one operation.

    For each state: ``dt A``, its exponential, ``dt u B`` (the product with B), ``a h + b`` (two), ``C h`` and its sum
    (two): 7. For each position and channel: ``dt u`` 1, the skip 2, the gate 5 (SiLU 4, product 1).
    """
    batch, channels, length = u_shape
    per_position = 7 * A_shape[1] + 1 + (2 if D_shape is not None else 0) + (5 if z_shape is not None else 0)
    return batch * channels * length * per_position


@register_flop_formula(torch.ops.mmmap.selective_scan_backward)
def selective_scan_backward_flops(
    dout_shape,
    dlast_shape,
    saved_shape,
    u_shape,
    delta_shape,
    A_shape,
    B_shape,
    C_shape,
    D_shape,
    z_shape,
    *args,
    **kwargs,
) -> int:
    """Operations of a backward pass, the recomputed states included.

    For each state: 5 to recompute it (7 with a gate, which needs the output again), 14 for the gradients of state, B,
    C, A and step size. For each position and channel: ``dt u`` and the gradients of u and dt 5, the
    skip 4, the gate 10.
    """
    batch, channels, length = u_shape
    gated = z_shape is not None
    per_position = (21 if gated else 19) * A_shape[1] + 5 + (4 if D_shape is not None else 0) + (10 if gated else 0)
    return batch * channels * length * per_position
