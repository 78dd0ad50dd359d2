"""Both directions of a Mamba mixer, scan and convolution, as one torch operator each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backends import REFERENCE, get_backend, resolve
from mmmap.ops.backends.base import BidirectionalInputs, compute_dtype, stacked_like
from mmmap.ops.backends.reference import causal_conv1d_reference, selective_scan_reference
from mmmap.ops.causal_conv1d import causal_conv1d_backward_flops, causal_conv1d_flops
from mmmap.ops.library import (
    LIBRARY,
    check_floating,
    check_same_device,
    check_shape,
    refuse_double_backward,
    register,
    register_autograd,
)
from mmmap.ops.selective_scan import selective_scan_backward_flops, selective_scan_flops

_SCAN = (
    'Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, '
    'bool delta_softplus'
)
_CONV = 'Tensor x, Tensor weight, Tensor? bias, bool silu, str backend'
LIBRARY.define(f'bidirectional_scan({_SCAN}, bool save, str backend) -> (Tensor, Tensor, Tensor)')
LIBRARY.define(
    f'bidirectional_scan_backward(Tensor dout, Tensor states, Tensor y, {_SCAN}, str backend) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)'
)
LIBRARY.define(f'bidirectional_conv1d({_CONV}) -> Tensor')
LIBRARY.define(f'bidirectional_conv1d_backward(Tensor dout, {_CONV}) -> (Tensor, Tensor, Tensor)')


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str = 'auto',
) -> Tensor:
    """Two selective scans, one from either end, averaged behind one gate.

    ``out = (y_forward + y_reverse) / 2 * silu(z)``, where each direction is :func:`mmmap.ops.selective_scan` without a
    gate on inputs and parameters of its own. No tensor is flipped, and the gate is computed once. Types, strides and
    precision as in :func:`mmmap.ops.selective_scan`; the sum may be rounded to the type of ``u`` before the gate.

    Args:
        u: Input ``(batch, 2, channels, length)``, the forward direction first, positions not flipped.
        delta: Step size, shape of ``u``.
        A: Decay rates ``(2, channels, states)``, real.
        B: Input weights ``(batch, 2, states, length)``.
        C: Output weights, shape of ``B``.
        D: Skip weights ``(2, channels)``.
        z: Gate ``(batch, channels, length)``.
        delta_bias: ``(2, channels)``, added to ``delta`` before softplus.
        delta_softplus: Whether ``delta`` passes through softplus.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output ``(batch, channels, length)``, type of ``u``.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape or device does not fit, or the backend cannot be used.
    """
    _check_scan(u, delta, A, B, C, D, z, delta_bias)
    name = resolve(backend, u.device.type, u.dtype)
    inputs = BidirectionalInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    if name == REFERENCE:
        return _scan_reference(inputs)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs[:8] if x is not None)
    return torch.ops.mmmap.bidirectional_scan.default(*inputs, save, name)[0]


def bidirectional_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Two causal depthwise convolutions of one input, one from either end.

    Args:
        x: Input ``(batch, channels, length)``, any strides.
        weight: ``(2, channels, K)``, the forward direction first, as in :func:`mmmap.ops.causal_conv1d`.
        bias: ``(2, channels)``.
        activation: None or ``'silu'``.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output ``(batch, 2, channels, length)``, type of ``x``; each direction is dense in memory by itself.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape, device or activation does not fit, or the backend cannot be used.
    """
    _check_conv(x, weight, bias, activation)
    name = resolve(backend, x.device.type, x.dtype)
    silu = activation == 'silu'
    if name == REFERENCE:
        both = [
            causal_conv1d_reference(x, weight[i], None if bias is None else bias[i], silu, i == 1) for i in range(2)
        ]
        return torch.stack(both, dim=1)
    return torch.ops.mmmap.bidirectional_conv1d.default(x, weight, bias, silu, name)


def _scan_reference(inputs: BidirectionalInputs) -> Tensor:
    dtype = compute_dtype(inputs.u.dtype)
    # In the computing type, so that the sum is rounded once.
    forward, reverse = (
        selective_scan_reference(part.u.to(dtype), *part[1:])[0] for part in map(inputs.direction, range(2))
    )
    y = (forward + reverse) / 2
    if inputs.z is not None:
        y = y * torch.nn.functional.silu(inputs.z.to(dtype))
    return y.to(inputs.u.dtype)


def _check_scan(u, delta, A, B, C, D, z, delta_bias) -> None:
    """One-line errors that name the argument."""
    operator = 'bidirectional_scan'
    named = {'u': u, 'delta': delta, 'A': A, 'B': B, 'C': C, 'D': D, 'z': z, 'delta_bias': delta_bias}
    for name, x in named.items():
        if x is not None or name in ('u', 'delta', 'A', 'B', 'C'):
            check_floating(operator, name, x)
    check_same_device(operator, named)
    if u.dim() != 4 or 0 in u.shape or u.shape[1] != 2:
        raise ValueError(f'{operator}: u must be (batch, 2, channels, length), none of them 0, got {tuple(u.shape)}')
    batch, _, channels, length = u.shape
    check_shape(operator, 'delta', delta, u.shape, 'the shape of u')
    if A.dim() != 3 or A.shape[:2] != (2, channels) or A.shape[2] == 0:
        raise ValueError(f'{operator}: A must be (2, channels={channels}, states), got {tuple(A.shape)}')
    for name in ('B', 'C'):
        check_shape(operator, name, named[name], (batch, 2, A.shape[2], length), '(batch, 2, states, length)')
    if z is not None:
        check_shape(operator, 'z', z, (batch, channels, length), '(batch, channels, length)')
    for name in ('D', 'delta_bias'):
        if named[name] is not None:
            check_shape(operator, name, named[name], (2, channels), '(2, channels)')


def _check_conv(x, weight, bias, activation) -> None:
    """One-line errors that name the argument."""
    operator = 'bidirectional_conv1d'
    if activation not in (None, 'silu'):
        raise ValueError(f"{operator}: activation must be None or 'silu', got {activation!r}")
    named = {'x': x, 'weight': weight, 'bias': bias}
    for name, tensor in named.items():
        if tensor is not None or name != 'bias':
            check_floating(operator, name, tensor)
    check_same_device(operator, named)
    if x.dim() != 3 or 0 in x.shape:
        raise ValueError(f'{operator}: x must be (batch, channels, length), none of them 0, got {tuple(x.shape)}')
    channels = x.shape[1]
    if weight.dim() != 3 or weight.shape[:2] != (2, channels) or weight.shape[2] == 0:
        raise ValueError(f'{operator}: weight must be (2, channels={channels}, taps), got {tuple(weight.shape)}')
    if bias is not None:
        check_shape(operator, 'bias', bias, (2, channels), '(2, channels)')


def _scan_forward(*args):
    *inputs, save, backend = args
    return get_backend(backend).bidirectional_forward(BidirectionalInputs(*inputs), save)


def _scan_forward_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save, backend):
    backend = get_backend(backend)
    shape = backend.bidirectional_saved_shape(u, B) if save else (0,)
    out = torch.empty_like(u[:, 0])
    y = torch.empty_like(out) if save and z is not None else u.new_empty(0)
    return out, u.new_empty(shape, dtype=backend.saved_dtype(u.dtype)), y


def _scan_backward(dout, states, y, *args):
    *rest, name = args
    inputs, backend = BidirectionalInputs(*rest), get_backend(name)
    if states.numel() == 0 and 0 not in backend.bidirectional_saved_shape(inputs.u, inputs.B):
        raise RuntimeError('bidirectional_scan_backward: the forward pass kept no states; call it with save=True')
    grads = backend.bidirectional_backward(dout, states, y, inputs)
    return tuple(dout.new_empty(0) if grad is None else grad for grad in grads)


def _scan_backward_fake(dout, states, y, u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend):
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    return tuple(dout.new_empty(0) if x is None else torch.empty_like(x) for x in inputs)


def _scan_setup_context(ctx, inputs, output) -> None:
    *tensors, delta_softplus, _, backend = inputs
    _, states, y = output
    ctx.mark_non_differentiable(states, y)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(states, y, *tensors)
    ctx.options = (delta_softplus, backend)


def _scan_autograd(ctx, dout, _states, _y):
    if dout is None:  # what comes after the scan has no gradient
        return (None,) * len(ctx.needs_input_grad)
    states, y, *tensors = ctx.saved_tensors
    grads = torch.ops.mmmap.bidirectional_scan_backward.default(dout, states, y, *tensors, *ctx.options)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads, strict=True)), None, None, None)


def _conv_forward(x, weight, bias, silu, backend):
    return get_backend(backend).bidirectional_conv_forward(x, weight, bias, silu)


def _conv_forward_fake(x, weight, bias, silu, backend):
    return stacked_like(x)


def _conv_backward(dout, x, weight, bias, silu, backend):
    dx, dweight, dbias = get_backend(backend).bidirectional_conv_backward(dout, x, weight, bias, silu)
    return dx, dweight, dout.new_empty(0) if dbias is None else dbias


def _conv_backward_fake(dout, x, weight, bias, silu, backend):
    return torch.empty_like(x), torch.empty_like(weight), dout.new_empty(0) if bias is None else torch.empty_like(bias)


def _conv_setup_context(ctx, inputs, output) -> None:
    x, weight, bias, *options = inputs
    ctx.save_for_backward(x, weight, bias)
    ctx.options = options


def _conv_autograd(ctx, dout):
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.mmmap.bidirectional_conv1d_backward.default(dout, x, weight, bias, *ctx.options)
    return dx, dweight, None if bias is None else dbias, None, None


for _name, _implementation, _fake in (
    ('bidirectional_scan', _scan_forward, _scan_forward_fake),
    ('bidirectional_scan_backward', _scan_backward, _scan_backward_fake),
    ('bidirectional_conv1d', _conv_forward, _conv_forward_fake),
    ('bidirectional_conv1d_backward', _conv_backward, _conv_backward_fake),
):
    register(_name, _implementation, _fake)
register_autograd('bidirectional_scan', _scan_autograd, _scan_setup_context)
register_autograd('bidirectional_conv1d', _conv_autograd, _conv_setup_context)
refuse_double_backward('bidirectional_scan_backward')
refuse_double_backward('bidirectional_conv1d_backward')


def _one(shape):
    """Shape of one direction of ``u``."""
    return shape[0], *shape[2:]


@register_flop_formula(torch.ops.mmmap.bidirectional_scan)
def bidirectional_scan_flops(u_shape, delta_shape, A_shape, B_shape, C_shape, D_shape, z_shape, *args, **kwargs) -> int:
    """Two scans, and once for both: their sum, its half and the gate (SiLU 4, product 1)."""
    one = selective_scan_flops(_one(u_shape), None, A_shape[1:], None, None, D_shape, None)
    batch, _, channels, length = u_shape
    return 2 * one + batch * channels * length * (2 + (5 if z_shape is not None else 0))


@register_flop_formula(torch.ops.mmmap.bidirectional_scan_backward)
def bidirectional_scan_backward_flops(
    dout_shape,
    states_shape,
    y_shape,
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
    """Two backward passes without a gate, and once for both: the gradients of the gate (10) and of the half."""
    one = selective_scan_backward_flops(None, None, None, _one(u_shape), None, A_shape[1:], None, None, D_shape, None)
    batch, _, channels, length = u_shape
    return 2 * one + batch * channels * length * (1 + (10 if z_shape is not None else 0))


@register_flop_formula(torch.ops.mmmap.bidirectional_conv1d)
def bidirectional_conv1d_flops(x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Two convolutions."""
    return 2 * causal_conv1d_flops(x_shape, weight_shape[1:], bias_shape, silu)


@register_flop_formula(torch.ops.mmmap.bidirectional_conv1d_backward)
def bidirectional_conv1d_backward_flops(dout_shape, x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Two backward passes and the sum of their gradients of the input."""
    batch, channels, length = x_shape
    one = causal_conv1d_backward_flops(dout_shape, x_shape, weight_shape[1:], bias_shape, silu)
    return 2 * one + batch * channels * length
