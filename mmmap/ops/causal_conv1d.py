"""The causal depthwise convolution of Mamba as one torch operator over exchangeable backends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backends import REFERENCE, get_backend, resolve
from mmmap.ops.backends.reference import causal_conv1d_reference
from mmmap.ops.library import (
    LIBRARY,
    check_floating,
    check_same_device,
    check_shape,
    refuse_double_backward,
    register,
    register_autograd,
)

_INPUTS = 'Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse, str backend'
LIBRARY.define(f'causal_conv1d({_INPUTS}) -> Tensor')
LIBRARY.define(f'causal_conv1d_backward(Tensor dout, {_INPUTS}) -> (Tensor, Tensor, Tensor)')


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    reverse: bool = False,
    backend: str = 'auto',
) -> Tensor:
    """Depthwise convolution in which a position sees itself and the ``K - 1`` before it, zeros before the start.

    ``out[t] = sum over k of weight[:, k] x[t - K + 1 + k]``; with ``reverse`` the mirror image,
    ``out[t] = sum over k of weight[:, k] x[t + K - 1 - k]``. Sums are kept in float32 (float64 if ``x`` is float64).

    Args:
        x: Input ``(batch, channels, length)``, any strides.
        weight: ``(channels, K)``.
        bias: ``(channels,)``.
        activation: None or ``'silu'``.
        reverse: Whether the sequence runs from the last position to the first.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output, shape and type of ``x``.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape, device or activation does not fit, or the backend cannot be used.
    """
    _check_inputs(x, weight, bias, activation)
    name = resolve(backend, x.device.type, x.dtype)
    silu = activation == 'silu'
    if name == REFERENCE:
        return causal_conv1d_reference(x, weight, bias, silu, reverse)
    return torch.ops.mmmap.causal_conv1d.default(x, weight, bias, silu, reverse, name)


def _check_inputs(x, weight, bias, activation) -> None:
    """One-line errors that name the argument."""
    if activation not in (None, 'silu'):
        raise ValueError(f"causal_conv1d: activation must be None or 'silu', got {activation!r}")
    named = {'x': x, 'weight': weight, 'bias': bias}
    for name, tensor in named.items():
        if tensor is not None or name != 'bias':
            check_floating('causal_conv1d', name, tensor)
    check_same_device('causal_conv1d', named)
    if x.dim() != 3 or 0 in x.shape:
        raise ValueError(f'causal_conv1d: x must be (batch, channels, length), none of them 0, got {tuple(x.shape)}')
    channels = x.shape[1]
    if weight.dim() != 2 or weight.shape[0] != channels or weight.shape[1] == 0:
        raise ValueError(f'causal_conv1d: weight must be (channels={channels}, taps), got {tuple(weight.shape)}')
    if bias is not None:
        check_shape('causal_conv1d', 'bias', bias, (channels,), '(channels,)')


def _forward(x, weight, bias, silu, reverse, backend):
    return get_backend(backend).conv_forward(x, weight, bias, silu, reverse)


def _forward_fake(x, weight, bias, silu, reverse, backend):
    return torch.empty_like(x)


def _backward(dout, x, weight, bias, silu, reverse, backend):
    dx, dweight, dbias = get_backend(backend).conv_backward(dout, x, weight, bias, silu, reverse)
    return dx, dweight, dout.new_empty(0) if dbias is None else dbias


def _backward_fake(dout, x, weight, bias, silu, reverse, backend):
    return torch.empty_like(x), torch.empty_like(weight), dout.new_empty(0) if bias is None else torch.empty_like(bias)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, bias, *options = inputs
    ctx.save_for_backward(x, weight, bias)
    ctx.options = options


def _autograd(ctx, dout):
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.mmmap.causal_conv1d_backward.default(dout, x, weight, bias, *ctx.options)
    return dx, dweight, None if bias is None else dbias, None, None, None


register('causal_conv1d', _forward, _forward_fake)
register('causal_conv1d_backward', _backward, _backward_fake)
register_autograd('causal_conv1d', _autograd, _setup_context)
refuse_double_backward('causal_conv1d_backward')


@register_flop_formula(torch.ops.mmmap.causal_conv1d)
def causal_conv1d_flops(x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Additions and multiplications: two per tap, one for the bias, four for SiLU."""
    batch, channels, length = x_shape
    return batch * channels * length * (2 * weight_shape[1] + (bias_shape is not None) + 4 * bool(silu))


@register_flop_formula(torch.ops.mmmap.causal_conv1d_backward)
def causal_conv1d_backward_flops(dout_shape, x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Four per tap (input and weights), one for the bias; with SiLU the forward pass again and six more."""
    batch, channels, length = x_shape
    again = causal_conv1d_flops(x_shape, weight_shape, bias_shape, True) + 6 * batch * channels * length if silu else 0
    return batch * channels * length * (4 * weight_shape[1] + (bias_shape is not None)) + again
