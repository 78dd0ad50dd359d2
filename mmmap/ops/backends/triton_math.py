"""Functions that the Triton kernels of the scan share."""

from __future__ import annotations

import triton
import triton.language as tl

# Triton would compile again for each value of these, or replace them by constants, which have no methods.
PLAIN = ['length', 'chunks', 'segment_chunks', 'reverse', 'rows', 'segments']
PLAIN += ['unit', 'steps', 'groups', 'blocks', 'size']


@triton.jit
def exponential(x, CT: tl.constexpr):
    """2 to the power of ``x``; in float64, where the GPU has no instruction for it, e to the power of ``x``."""
    if tl.float64 == CT:
        return tl.exp(x)
    else:
        return tl.exp2(x)


@triton.jit
def scaled_rates(x, CT: tl.constexpr):
    """Decay rates in the unit of :func:`exponential`."""
    if tl.float64 == CT:
        return x.to(CT)
    else:
        return x.to(CT) * 1.4426950408889634


@triton.jit
def logistic(x):
    """The sigmoid."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def softplus(x, CT: tl.constexpr):
    """Softplus, the identity above 20, with a small relative error also for very negative ``x``.

    The fast logarithm of a GPU has a small absolute error only. So in float32 log(1 + e) = 2 artanh(e / (2 + e)) is a
    series, whose argument is at most 1/3.
    """
    e = tl.exp(-tl.abs(x))
    if tl.float64 == CT:
        one = 1 + e
        tail = tl.where(one == 1, e, tl.log(one) * (e / tl.where(one == 1, 1, one - 1)))
    else:
        s = e / (2 + e)
        q = s * s
        series = 1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15)))
        tail = 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * series))))
    return tl.where(x > 20, x, tl.maximum(x, 0) + tail)


@triton.jit
def step_size(raw, SOFTPLUS: tl.constexpr, CT: tl.constexpr):
    """Step sizes of raw values."""
    if SOFTPLUS:
        return softplus(raw, CT)
    else:
        return raw


@triton.jit
def locate(channels, group_channels, group_blocks, length, reverse, DIRECTIONS: tl.constexpr, BD: tl.constexpr):
    """Row, batch element, direction, group, block in the group, first channel, position of step 0, sign of a step."""
    blocks = channels // group_channels * group_blocks
    block = tl.program_id(0) % blocks
    row = (tl.program_id(0) // blocks).to(tl.int64)
    direction = row % DIRECTIONS
    turned = reverse if DIRECTIONS == 1 else direction.to(tl.int32)
    group = block // group_blocks
    inner = block % group_blocks
    channel = group * group_channels + inner * BD
    return row, row // DIRECTIONS, direction, group, inner, channel, turned * (length - 1), 1 - 2 * turned
