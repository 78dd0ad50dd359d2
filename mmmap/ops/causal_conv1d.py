"""The causal depthwise convolution of Mamba."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backend_operator import define_backend_operator
from mmmap.ops.backends import REFERENCE, resolve_backend
from mmmap.ops.backends.reference import causal_conv1d_reference
from mmmap.ops.checks import check_conv


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    reverse: bool = False,
    backend: str = 'auto',
) -> Tensor:
    """Depthwise convolution over each position and the ``K - 1`` before it, with zeros before the start.

    ``out[t] = sum over k of weight[:, k] x[t - K + 1 + k]``, or with ``reverse``
    ``out[t] = sum over k of weight[:, k] x[t + K - 1 - k]``. Sums are in float32 (float64 if ``x`` is float64).

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
    check_conv('causal_conv1d', x, weight, bias, activation)
    name = resolve_backend(backend, x.device.type, x.dtype)
    silu = activation == 'silu'
    if name == REFERENCE:
        return causal_conv1d_reference(x, weight, bias, silu, reverse)
    return torch.ops.mmmap.causal_conv1d.default(x, weight, bias, silu, reverse, name)


define_backend_operator(
    'causal_conv1d(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse, str backend) -> Tensor',
    lambda backend, *inputs: backend.conv_forward(*inputs),
    lambda backend, x, *inputs: torch.empty_like(x),
    lambda backend, dout, *inputs: backend.conv_backward(dout, *inputs),
)


@register_flop_formula(torch.ops.mmmap.causal_conv1d)
def causal_conv1d_flops(x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Additions and multiplications: two per tap, one for the bias, four for SiLU."""
    batch, channels, length = x_shape
    return batch * channels * length * (2 * weight_shape[1] + (bias_shape is not None) + 4 * bool(silu))


@register_flop_formula(torch.ops.mmmap.causal_conv1d_backward)
def causal_conv1d_backward_flops(dout_shape, x_shape, weight_shape, bias_shape, silu, *args, **kwargs) -> int:
    """Four per tap (input and weights), one for the bias. With SiLU, the forward pass again and six more."""
    batch, channels, length = x_shape
    again = causal_conv1d_flops(x_shape, weight_shape, bias_shape, True) + 6 * batch * channels * length if silu else 0
    return batch * channels * length * (4 * weight_shape[1] + (bias_shape is not None)) + again
