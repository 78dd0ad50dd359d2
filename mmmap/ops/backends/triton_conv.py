"""Triton kernels of the causal depthwise convolution; imported on the first use of the backend only.

A program computes a tile of steps and channels of one batch element, in one direction or in both. Step ``t`` of a
direction is position ``t`` or ``length - 1 - t``; the last tap meets the present step, the first one the oldest.
"""

from __future__ import annotations

import triton
import triton.language as tl

_PLAIN = ['length', 'reverse', 'tiles']


@triton.jit
def _tile(length, channels, BL: tl.constexpr, BD: tl.constexpr):
    """Batch element, number of the tile along time (over all elements), positions and channels."""
    blocks = tl.cdiv(channels, BD)
    spans = tl.cdiv(length, BL)
    block = tl.program_id(0) % blocks
    span = tl.program_id(0) // blocks
    t = ((span % spans) * BL + tl.arange(0, BL))[:, None]
    d = (block * BD + tl.arange(0, BD))[None, :]
    return (span // spans).to(tl.int64), span.to(tl.int64), t, d


@triton.jit
def _before(x, t, back, sign, x_l, length, CT: tl.constexpr, here):
    """The input ``back`` steps before position ``t``, 0 outside of the sequence."""
    p = t - sign * back
    return tl.load(x + p.to(tl.int64) * x_l, mask=here & (p >= 0) & (p < length), other=0).to(CT)


@triton.jit
def _convolve(x, weight, bias, t, d, sign, x_l, length, here, K: tl.constexpr, HAS_BIAS: tl.constexpr, CT: tl.constexpr,
              BL: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """The convolution at positions ``t``; ``x``, ``weight`` and ``bias`` point to the channels."""
    y = tl.zeros((BL, BD), CT)
    if HAS_BIAS:
        y += tl.load(bias, mask=here, other=0).to(CT)
    for k in tl.static_range(K):
        y += tl.load(weight + k, mask=here, other=0).to(CT) * _before(x, t, K - 1 - k, sign, x_l, length, CT, here)
    return y


@triton.jit(do_not_specialize=_PLAIN)
def conv_forward_kernel(
    x, weight, bias, out, x_b, x_d, x_l, out_b, out_r, out_d, out_l, length, channels, reverse,
    DIRECTIONS: tl.constexpr, K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Outputs of the direction ``reverse``, or of both."""
    batch, _, t, d = _tile(length, channels, BL, BD)
    here = d < channels
    x += batch * x_b + d.to(tl.int64) * x_d
    out += batch * out_b + d.to(tl.int64) * out_d + t.to(tl.int64) * out_l
    for r in tl.static_range(DIRECTIONS):
        sign = 1 - 2 * (reverse if DIRECTIONS == 1 else r)
        w, b = weight + (r * channels + d) * K, bias + r * channels + d
        y = _convolve(x, w, b, t, d, sign, x_l, length, here, K, HAS_BIAS, CT, BL, BD)
        if SILU:
            y = y / (1 + tl.exp(-y))
        tl.store(out, y.to(out.dtype.element_ty), mask=here & (t < length))
        out += out_r


@triton.jit(do_not_specialize=_PLAIN)
def conv_backward_kernel(
    dout, x, weight, bias, dx, dweight, dbias,
    dout_b, dout_r, dout_d, dout_l, x_b, x_d, x_l, dx_b, dx_d, dx_l, length, channels, reverse, tiles,
    DIRECTIONS: tl.constexpr, K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients; ``dweight`` (direction, tap, tile, channel) and ``dbias`` (direction, tile, channel) in parts.

    What is before SiLU is computed again wherever a tap needs its gradient.
    """
    batch, span, t, d = _tile(length, channels, BL, BD)
    here = d < channels
    x += batch * x_b + d.to(tl.int64) * x_d
    dout += batch * dout_b + d.to(tl.int64) * dout_d
    lane = tl.max(d, axis=0)
    grad_x = tl.zeros((BL, BD), CT)
    for r in tl.static_range(DIRECTIONS):
        sign = 1 - 2 * (reverse if DIRECTIONS == 1 else r)
        w, b = weight + (r * channels + d) * K, bias + r * channels + d
        for k in tl.static_range(K):
            # The step whose tap k meets step t.
            p = t + sign * (K - 1 - k)
            mask = here & (p >= 0) & (p < length)
            grad = tl.load(dout + p.to(tl.int64) * dout_l, mask=mask, other=0).to(CT)
            if SILU:
                y = _convolve(x, w, b, p, d, sign, x_l, length, here, K, HAS_BIAS, CT, BL, BD)
                sigmoid = 1 / (1 + tl.exp(-y))
                grad *= sigmoid * (1 + y * (1 - sigmoid))
            grad_x += tl.load(w + k, mask=here, other=0).to(CT) * grad
        # The last tap met step t itself.
        for k in tl.static_range(K):
            part = grad * _before(x, t, K - 1 - k, sign, x_l, length, CT, here)
            place = ((r * K + k) * tiles + span) * channels
            tl.store(dweight + place + lane, tl.sum(part, axis=0), mask=lane < channels)
        if HAS_BIAS:
            place = (r * tiles + span) * channels
            tl.store(dbias + place + lane, tl.sum(grad, axis=0), mask=lane < channels)
        dout += dout_r
    into = dx + batch * dx_b + d.to(tl.int64) * dx_d + t.to(tl.int64) * dx_l
    tl.store(into, grad_x.to(dx.dtype.element_ty), mask=here & (t < length))
