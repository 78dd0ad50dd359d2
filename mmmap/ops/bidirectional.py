"""The scan and the convolution of Mamba in both directions at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backend_operator import define_backend_operator
from mmmap.ops.backends import REFERENCE, resolve_backend
from mmmap.ops.backends.base import BidirectionalInputs, ScanBackend, ScanGrads, compute_dtype, stacked_like
from mmmap.ops.backends.reference import causal_conv1d_reference, selective_scan_reference
from mmmap.ops.causal_conv1d import causal_conv1d_backward_flops, causal_conv1d_flops
from mmmap.ops.checks import check_conv, check_scan
from mmmap.ops.selective_scan import selective_scan_backward_flops, selective_scan_flops


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
    """The mean of two selective scans, one from either end, times one gate.

    ``out = (y_forward + y_reverse) / 2 * silu(z)``. Each direction is :func:`mmmap.ops.selective_scan` without a gate,
    with inputs and parameters of its own. No tensor is flipped. Types, strides and precision are as in
    :func:`mmmap.ops.selective_scan`; the sum may be rounded to the type of ``u`` before the gate.

    Args:
        u: Input ``(batch, 2, channels, length)``, the forward direction first, positions not flipped.
        delta: Step size, shape of ``u``.
        A: Decay rates ``(2, channels, states)``, real.
        B: Input weights ``(batch, 2, states, length)``.
        C: Output weights, shape of ``B``.
        D: Skip weights ``(2, channels)``.
        z: Gate ``(batch, channels, length)``.
        delta_bias: ``(2, channels)``, added to ``delta`` before softplus.
        delta_softplus: Whether to apply softplus to ``delta``.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output ``(batch, channels, length)``, type of ``u``.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape or device does not fit, or the backend cannot be used.
    """
    check_scan('bidirectional_scan', u, delta, A, B, C, D, z, delta_bias, directions=(2,))
    name = resolve_backend(backend, u.device.type, u.dtype)
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
        Output ``(batch, 2, channels, length)``, type of ``x``. Each direction by itself is dense in memory.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape, device or activation does not fit, or the backend cannot be used.
    """
    check_conv('bidirectional_conv1d', x, weight, bias, activation, directions=(2,))
    name = resolve_backend(backend, x.device.type, x.dtype)
    silu = activation == 'silu'
    if name == REFERENCE:
        biases = (None, None) if bias is None else bias
        return torch.stack([causal_conv1d_reference(x, weight[i], biases[i], silu, i == 1) for i in range(2)], dim=1)
    return torch.ops.mmmap.bidirectional_conv1d.default(x, weight, bias, silu, name)


def _scan_reference(inputs: BidirectionalInputs) -> Tensor:
    dtype = compute_dtype(inputs.u.dtype)
    # The sum is rounded once.
    forward, reverse = (
        selective_scan_reference(part.u.to(dtype), *part[1:])[0] for part in map(inputs.direction, range(2))
    )
    y = (forward + reverse) / 2
    if inputs.z is not None:
        y = y * torch.nn.functional.silu(inputs.z.to(dtype))
    return y.to(inputs.u.dtype)


def _scan_forward(backend: ScanBackend, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return backend.bidirectional_forward(BidirectionalInputs(*args[:-1]), args[-1])


def _scan_forward_fake(backend: ScanBackend, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, save = BidirectionalInputs(*args[:-1]), args[-1]
    shape = backend.bidirectional_saved_shape(inputs.u, inputs.B) if save else (0,)
    out = torch.empty_like(inputs.u[:, 0])
    y = torch.empty_like(out) if save and inputs.z is not None else out.new_empty(0)
    return out, out.new_empty(shape, dtype=backend.saved_dtype(out.dtype)), y


def _scan_backward(backend: ScanBackend, dout: Tensor, states: Tensor, y: Tensor, *args: Any) -> ScanGrads:
    inputs = BidirectionalInputs(*args)
    if states.numel() == 0 and 0 not in backend.bidirectional_saved_shape(inputs.u, inputs.B):
        raise RuntimeError('bidirectional_scan_backward: the forward pass kept no states; call it with save=True')
    return backend.bidirectional_backward(dout, states, y, inputs)


define_backend_operator(
    'bidirectional_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, '
    'Tensor? delta_bias, bool delta_softplus, bool save, str backend) -> (Tensor, Tensor, Tensor)',
    _scan_forward,
    _scan_forward_fake,
    _scan_backward,
    received='Tensor dout, Tensor states, Tensor y',
    kept=2,
    zeros=None,
)
define_backend_operator(
    'bidirectional_conv1d(Tensor x, Tensor weight, Tensor? bias, bool silu, str backend) -> Tensor',
    lambda backend, *inputs: backend.bidirectional_conv_forward(*inputs),
    lambda backend, x, *inputs: stacked_like(x),
    lambda backend, dout, *inputs: backend.bidirectional_conv_backward(dout, *inputs),
    zeros=lambda x: stacked_like(x).zero_(),
)


def _one(shape):
    """Shape of one direction of ``u``."""
    return shape[0], *shape[2:]


@register_flop_formula(torch.ops.mmmap.bidirectional_scan)
def bidirectional_scan_flops(u_shape, delta_shape, A_shape, B_shape, C_shape, D_shape, z_shape, *args, **kwargs) -> int:
    """Two scans; once for both, their sum, its half and the gate (SiLU 4, product 1)."""
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
    """Two backward passes without a gate; once for both, the gradients of the gate (10) and of the half."""
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
