"""Triton kernels of the causal depthwise convolution; imported on the first use of the backend only.

A program computes a tile of steps and channels of one batch element, in one direction or in both. Step ``t`` of a
direction is position ``t`` or ``length - 1 - t``; the last tap meets the present step, the first one the oldest.
"""

# ruff: noqa: RUF005 (triton compiles no unpacking into a tuple)
from __future__ import annotations

import triton
import triton.language as tl

_PLAIN = ['length', 'reverse', 'spans']


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


@triton.jit
def _slope(y, SILU: tl.constexpr):
    """Derivative of the activation at ``y``."""
    if SILU:
        sigmoid = 1 / (1 + tl.exp(-y))
        return sigmoid * (1 + y * (1 - sigmoid))
    else:
        return y * 0 + 1


@triton.jit(do_not_specialize=_PLAIN)
def conv_backward_kernel(
    dout, x, weight, bias, dx, dweight, dbias,
    dout_b, dout_r, dout_d, dout_l, x_b, x_d, x_l, dx_b, dx_d, dx_l, length, channels, reverse, spans,
    DIRECTIONS: tl.constexpr, K: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients; ``dweight`` (direction, tap, tile, channel) and ``dbias`` (direction, tile, channel) in parts.

    A thread goes along the positions of its channels, with the inputs and the sums of ``dx`` that taps still reach in
    registers. It begins and ends ``K - 1`` positions outside of its tile, as outputs there depend on the tile's inputs.
    In one direction, step ``s`` is position ``s`` or ``length - 1 - s``; with both, the taps of the second one reach
    ahead.
    """
    blocks = tl.cdiv(channels, BD)
    tile = (tl.program_id(0) // blocks).to(tl.int64)
    batch, first = tile // spans, (tile % spans).to(tl.int32) * BL
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    here = d < channels
    turned = reverse if DIRECTIONS == 1 else 0
    origin, sign = turned * (length - 1), 1 - 2 * turned
    x += batch * x_b + d.to(tl.int64) * x_d
    dout += batch * dout_b + d.to(tl.int64) * dout_d
    dx += batch * dx_b + d.to(tl.int64) * dx_d

    # Taps by their distance: ``behind[j]`` meets the input j steps before, ``ahead[j]`` the one j steps after.
    zero = tl.zeros((BD,), CT)
    behind, ahead, sums_behind, sums_ahead = (), (), (), ()
    for j in tl.static_range(K):
        behind = behind + (tl.load(weight + d * K + K - 1 - j, mask=here, other=0).to(CT),)
        sums_behind = sums_behind + (zero,)
        if DIRECTIONS == 2:
            ahead = ahead + (tl.load(weight + (channels + d) * K + K - 1 - j, mask=here, other=0).to(CT),)
            sums_ahead = sums_ahead + (zero,)
    shift, shift_ahead, sum_bias, sum_bias_ahead = zero, zero, zero, zero
    if HAS_BIAS:
        shift = tl.load(bias + d, mask=here, other=0).to(CT)
        if DIRECTIONS == 2:
            shift_ahead = tl.load(bias + channels + d, mask=here, other=0).to(CT)

    # ``inputs[i]`` is that of step s - (K - 1) + i, and so is ``grads[i]``, the sum of its gradient.
    inputs, grads = (), ()
    for i in tl.static_range(2 * K - 1):
        early = first - 2 * (K - 1) + i - 1
        real = here & (early >= 0) & (early < length)
        inputs = inputs + (tl.load(x + (origin + sign * early).to(tl.int64) * x_l, mask=real, other=0).to(CT),)
        grads = grads + (zero,)
    for step in range(first - (K - 1), first + BL + K - 1):
        coming = step + K - 1
        real = here & (coming >= 0) & (coming < length)
        inputs = inputs[1:] + (tl.load(x + (origin + sign * coming).to(tl.int64) * x_l, mask=real, other=0).to(CT),)
        t = (origin + sign * step).to(tl.int64)
        real = here & (step >= 0) & (step < length)
        inside = real & (step >= first) & (step < first + BL)

        grad = tl.load(dout + t * dout_l, mask=real, other=0).to(CT)
        y = shift
        for j in tl.static_range(K):
            y += behind[j] * inputs[K - 1 - j]
        grad *= _slope(y, SILU)
        counted = tl.where(inside, grad, 0.0)
        new_sums = ()
        for j in tl.static_range(K):
            new_sums = new_sums + (sums_behind[j] + counted * inputs[K - 1 - j],)
        sums_behind = new_sums
        sum_bias += counted
        if DIRECTIONS == 2:
            grad_ahead = tl.load(dout + dout_r + t * dout_l, mask=real, other=0).to(CT)
            y = shift_ahead
            for j in tl.static_range(K):
                y += ahead[j] * inputs[K - 1 + j]
            grad_ahead *= _slope(y, SILU)
            counted = tl.where(inside, grad_ahead, 0.0)
            new_sums = ()
            for j in tl.static_range(K):
                new_sums = new_sums + (sums_ahead[j] + counted * inputs[K - 1 + j],)
            sums_ahead = new_sums
            sum_bias_ahead += counted

        new_grads = ()
        for i in tl.static_range(2 * K - 1):
            total = grads[i]
            if i < K:
                total += behind[K - 1 - i] * grad
            if DIRECTIONS == 2 and i >= K - 1:
                total += ahead[i - (K - 1)] * grad_ahead
            new_grads = new_grads + (total,)
        # No later output depends on the input K - 1 steps behind.
        done = step - (K - 1)
        t = (origin + sign * done).to(tl.int64)
        wanted = here & (done >= first) & (done < first + BL) & (done < length)
        tl.store(dx + t * dx_l, new_grads[0].to(dx.dtype.element_ty), mask=wanted)
        grads = new_grads[1:] + (zero,)

    tiles = (tl.num_programs(0) // blocks).to(tl.int64)
    for j in tl.static_range(K):
        place = ((K - 1 - j) * tiles + tile) * channels
        tl.store(dweight + place + d, sums_behind[j], mask=here)
        if DIRECTIONS == 2:
            tl.store(dweight + K * tiles * channels + place + d, sums_ahead[j], mask=here)
    if HAS_BIAS:
        tl.store(dbias + tile * channels + d, sum_bias, mask=here)
        if DIRECTIONS == 2:
            tl.store(dbias + (tiles + tile) * channels + d, sum_bias_ahead, mask=here)
