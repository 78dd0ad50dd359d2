"""Triton kernels that reorder the weights of the scan, and that apply the gate of both directions."""

from __future__ import annotations

import triton
import triton.language as tl

from mmmap.ops.backends.triton_math import PLAIN, logistic


@triton.jit
def _weights(
    length, steps, groups, reverse, b, r, g, n, at, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
    BL: tl.constexpr,
):  # fmt: skip
    """A tile of input or output weights: offsets, what exists, number of row and group, steps, states.

    ``b`` to ``at`` are strides.
    """
    spans = tl.cdiv(steps, BL)
    set_ = (tl.program_id(0) // spans).to(tl.int64)
    row = set_ // groups
    direction = row % DIRECTIONS
    turned = reverse if DIRECTIONS == 1 else direction.to(tl.int32)
    step = (tl.program_id(0) % spans * BL + tl.arange(0, BL))[:, None]
    state = tl.arange(0, NP)[None, :]
    position = (turned * (length - 1) + (1 - 2 * turned) * step).to(tl.int64)
    offset = row // DIRECTIONS * b + direction * r + set_ % groups * g + state * n + position * at
    return offset, (step < length) & (state < N), set_, step, state


@triton.jit
def _by_chunks(set_, step, state, steps, N: tl.constexpr, T: tl.constexpr):
    """Offsets in (set, chunk, state, 2, step of the chunk)."""
    return ((set_ * (steps // T) + step // T) * N + state) * 2 * T + step % T


@triton.jit(do_not_specialize=PLAIN)
def pack_kernel(
    B, C, packed_B, packed_C, B_b, B_r, B_g, B_n, B_l, C_b, C_r, C_g, C_n, C_l, length, steps, groups, reverse,
    T: tl.constexpr, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BL: tl.constexpr,
    CT: tl.constexpr,
):  # fmt: skip
    """Weights in the order of the recurrence, with zeros after the end, as every thread reads all of them.

    (row, group, step, state) with states up to a power of 2; or with ``T`` steps in a chunk, (row, group, chunk, state,
    2, step of the chunk), where both weights of a state and chunk are adjacent.
    """
    here, real, set_, step, state = _weights(
        length, steps, groups, reverse, B_b, B_r, B_g, B_n, B_l, DIRECTIONS, N, NP, BL
    )
    if T:
        into = _by_chunks(set_, step, state, steps, N, T)
        exists = (step < steps) & (state < N)
    else:
        into = (set_ * steps + step) * NP + state
        exists = (step < steps) & (state < NP)
    tl.store(packed_B + into, tl.load(B + here, mask=real, other=0).to(CT), mask=exists)
    here, _, _, _, _ = _weights(length, steps, groups, reverse, C_b, C_r, C_g, C_n, C_l, DIRECTIONS, N, NP, BL)
    tl.store(packed_C + into, tl.load(C + here, mask=real, other=0).to(CT), mask=exists)


@triton.jit(do_not_specialize=PLAIN)
def unpack_kernel(
    part_B, part_C, dB, dC, dB_b, dB_r, dB_g, dB_n, dB_l, dC_b, dC_r, dC_g, dC_n, dC_l,
    length, steps, groups, reverse, blocks, size,
    T: tl.constexpr, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BL: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights: sums of ``blocks`` parts with ``size`` elements each."""
    here, real, set_, step, state = _weights(
        length, steps, groups, reverse, dB_b, dB_r, dB_g, dB_n, dB_l, DIRECTIONS, N, NP, BL
    )
    part = _by_chunks(set_, step, state, steps, N, T)
    sum_B, sum_C = tl.zeros((BL, NP), CT), tl.zeros((BL, NP), CT)
    for _ in range(blocks):
        sum_B += tl.load(part_B + part, mask=real, other=0)
        sum_C += tl.load(part_C + part, mask=real, other=0)
        part += size
    tl.store(dB + here, sum_B.to(dB.dtype.element_ty), mask=real)
    here, _, _, _, _ = _weights(length, steps, groups, reverse, dC_b, dC_r, dC_g, dC_n, dC_l, DIRECTIONS, N, NP, BL)
    tl.store(dC + here, sum_C.to(dC.dtype.element_ty), mask=real)


@triton.jit
def _plane(length, channels, BL: tl.constexpr, BD: tl.constexpr):
    """Batch element, steps and channels of an elementwise program, and which of them exist."""
    blocks = tl.cdiv(channels, BD)
    tiles = blocks * tl.cdiv(length, BL)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    t = (tile // blocks * BL + tl.arange(0, BL))[:, None].to(tl.int64)
    d = (tile % blocks * BD + tl.arange(0, BD))[None, :].to(tl.int64)
    return batch, t, d, (t < length) & (d < channels)


@triton.jit
def gate_forward_kernel(
    y, z, out, total, y_b, y_r, y_d, y_l, z_b, z_d, z_l, out_b, out_d, out_l, length, channels,
    HAS_Z: tl.constexpr, KEEP: tl.constexpr, BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """The gated mean of both directions, and their sum, which is laid out like the output."""
    batch, t, d, mask = _plane(length, channels, BL, BD)
    at = y + batch * y_b + t * y_l + d * y_d
    value = tl.load(at, mask=mask, other=0).to(CT) + tl.load(at + y_r, mask=mask, other=0).to(CT)
    at = batch * out_b + t * out_l + d * out_d
    if KEEP:
        tl.store(total + at, value.to(total.dtype.element_ty), mask=mask)
    value *= 0.5
    if HAS_Z:
        gate = tl.load(z + batch * z_b + t * z_l + d * z_d, mask=mask, other=0).to(CT)
        value *= gate * logistic(gate)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gate_backward_kernel(
    dout, total, z, dz, dy, dout_b, dout_d, dout_l, total_b, total_d, total_l, z_b, z_d, z_l, dz_b, dz_d, dz_l,
    dy_b, dy_d, dy_l, length, channels, BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients of the gate and of each direction's output."""
    batch, t, d, mask = _plane(length, channels, BL, BD)
    gate = tl.load(z + batch * z_b + t * z_l + d * z_d, mask=mask, other=0).to(CT)
    value = tl.load(total + batch * total_b + t * total_l + d * total_d, mask=mask, other=0).to(CT)
    half = 0.5 * tl.load(dout + batch * dout_b + t * dout_l + d * dout_d, mask=mask, other=0).to(CT)
    sigmoid = logistic(gate)
    value *= half * sigmoid * (1 + gate * (1 - sigmoid))
    tl.store(dz + batch * dz_b + t * dz_l + d * dz_d, value.to(dz.dtype.element_ty), mask=mask)
    tl.store(dy + batch * dy_b + t * dy_l + d * dy_d, (half * gate * sigmoid).to(dy.dtype.element_ty), mask=mask)
