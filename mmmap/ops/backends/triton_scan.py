"""Triton kernels of the selective scan; imported on the first use of the backend only.

One program computes one block of channels of one batch element and direction, over one segment of time. A direction is
pointer arithmetic alone: step ``t`` of the recurrence is position ``t`` or ``length - 1 - t``.

* Forward: a thread holds all states of its channels, step after step; the state before each chunk (but the first) is
  kept for the backward pass.
* Backward: chunk after chunk from the last to the first, state by state. A thread holds all steps of a chunk of its
  channels in registers: the states are computed again forwards, then their gradients backwards. What a thread keeps
  from one chunk to the next goes through memory that it alone writes and reads.
* Segments of long sequences run side by side: a first pass finds what each segment adds to the state (or to its
  gradient), a second one chains these, and the kernels above start from there.

Neighbouring threads have neighbouring channels. The argument ``unit`` is 1, which the compiler does not know: it hides
that channels start at aligned addresses and that states lie side by side. Else a thread would get neighbouring
channels, to load them at once, and only part of the states.

``row`` numbers batch elements and directions, batch first. All sums are in ``CT``, float32 or float64.
"""

# ruff: noqa: RUF005 (triton compiles no unpacking into a tuple)
from __future__ import annotations

import triton
import triton.language as tl

# Specialising on these would compile again for every other length, or make constants of what the code calls methods of.
_PLAIN = [
    'length',
    'chunks',
    'segment_chunks',
    'reverse',
    'rows',
    'segments',
    'unit',
    'steps',
    'groups',
    'blocks',
    'size',
]


@triton.jit
def _exp(x, CT: tl.constexpr):
    """2 to the power of ``x``; e to the power of ``x`` in float64, where the GPU has no shortcut for either."""
    if tl.float64 == CT:
        return tl.exp(x)
    else:
        return tl.exp2(x)


@triton.jit
def _rates(x, CT: tl.constexpr):
    """Decay rates in the unit of :func:`_exp`."""
    if tl.float64 == CT:
        return x.to(CT)
    else:
        return x.to(CT) * 1.4426950408889634


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _softplus(x, CT: tl.constexpr):
    """Softplus, the identity above 20, with a small relative error for very negative ``x`` too.

    A GPU's fast logarithm has a small absolute error only, so float32 takes log(1 + e) = 2 artanh(e / (2 + e)) as a
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
def _step_size(raw, SOFTPLUS: tl.constexpr, CT: tl.constexpr):
    if SOFTPLUS:
        return _softplus(raw, CT)
    else:
        return raw


@triton.jit
def _place(channels, group_channels, group_blocks, length, reverse, DIRECTIONS: tl.constexpr, BD: tl.constexpr):
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


@triton.jit
def _sum_channels(values, T: tl.constexpr, BD: tl.constexpr):
    """Sums over the channels of ``T`` vectors at once; lane ``i`` gets that of vector ``_summed(i)``.

    Lanes halve their work at each level: of every two vectors, a lane goes on with one and hands over the other one.
    This takes ``T`` exchanges instead of five for each vector.
    """
    W: tl.constexpr = min(BD, 32)
    lane = tl.arange(0, W)
    for level in tl.static_range(5):
        merged = ()
        if level == 0:
            for k in tl.static_range(T):
                merged = merged + (tl.sum(tl.reshape(values[k], (BD // W, W)), axis=0) if BD > W else values[k],)
            values = merged
            merged = ()
        if W >> level > 1:
            bit = W >> (level + 1)
            odd = (lane & bit) != 0
            for k in tl.static_range(max(T >> (level + 1), 1)):
                if T >> level > 1:
                    mine = tl.where(odd, values[2 * k + 1], values[2 * k])
                    other = tl.where(odd, values[2 * k], values[2 * k + 1])
                else:
                    mine, other = values[0], values[0]
                merged = merged + (mine + tl.gather(other, lane ^ bit, 0),)
            values = merged
    return values[0]


@triton.jit
def _summed(T: tl.constexpr, BD: tl.constexpr):
    """For each lane, the vector whose sum it gets from :func:`_sum_channels`, and whether it is the first such lane."""
    W: tl.constexpr = min(BD, 32)
    lane = tl.arange(0, W)
    index = lane * 0
    for level in tl.static_range(5):
        if T >> level > 1:
            index += ((lane // (W >> (level + 1))) % 2) << level
    return index, lane % (W // T) == 0


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


@triton.jit(do_not_specialize=_PLAIN)
def pack_kernel(
    B, C, packed_B, packed_C, B_b, B_r, B_g, B_n, B_l, C_b, C_r, C_g, C_n, C_l, length, steps, groups, reverse,
    STEPS_LAST: tl.constexpr, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BL: tl.constexpr,
    CT: tl.constexpr,
):  # fmt: skip
    """Weights as the recurrence meets them, with zeros after the end: every thread reads all of them, so this pays.

    (row, group, state, step), or (row, group, step, state) with states up to a power of 2.
    """
    here, real, set_, step, state = _weights(
        length, steps, groups, reverse, B_b, B_r, B_g, B_n, B_l, DIRECTIONS, N, NP, BL
    )
    into = (set_ * N + state) * steps + step if STEPS_LAST else (set_ * steps + step) * NP + state
    exists = (step < steps) & (state < N) if STEPS_LAST else (step < steps) & (state < NP)
    tl.store(packed_B + into, tl.load(B + here, mask=real, other=0).to(CT), mask=exists)
    here, _, _, _, _ = _weights(length, steps, groups, reverse, C_b, C_r, C_g, C_n, C_l, DIRECTIONS, N, NP, BL)
    tl.store(packed_C + into, tl.load(C + here, mask=real, other=0).to(CT), mask=exists)


@triton.jit(do_not_specialize=_PLAIN)
def unpack_kernel(
    part_B, part_C, dB, dC, dB_b, dB_r, dB_g, dB_n, dB_l, dC_b, dC_r, dC_g, dC_n, dC_l,
    length, steps, groups, reverse, blocks, size,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BL: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Sums of the ``blocks`` parts, ``size`` elements each, of the weights' gradients, put where they belong."""
    here, real, set_, step, state = _weights(
        length, steps, groups, reverse, dB_b, dB_r, dB_g, dB_n, dB_l, DIRECTIONS, N, NP, BL
    )
    part = (set_ * N + state) * steps + step
    sum_B, sum_C = tl.zeros((BL, NP), CT), tl.zeros((BL, NP), CT)
    for _ in range(blocks):
        sum_B += tl.load(part_B + part, mask=real, other=0)
        sum_C += tl.load(part_C + part, mask=real, other=0)
        part += size
    tl.store(dB + here, sum_B.to(dB.dtype.element_ty), mask=real)
    here, _, _, _, _ = _weights(length, steps, groups, reverse, dC_b, dC_r, dC_g, dC_n, dC_l, DIRECTIONS, N, NP, BL)
    tl.store(dC + here, sum_C.to(dC.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=_PLAIN)
def forward_kernel(
    u, delta, A, B, C, D, z, bias, out, saved, last, start,
    u_b, u_r, u_d, u_l, delta_b, delta_r, delta_d, delta_l, z_b, z_d, z_l, out_b, out_r, out_d, out_l,
    length, channels, group_channels, group_blocks, chunks, segment_chunks, reverse, rows, unit,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    SAVE: tl.constexpr, LAST: tl.constexpr, SEGMENTED: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Outputs (gated if there is a gate), kept borders (row, chunk - 1, state, channel), last states.

    ``B`` and ``C`` as :func:`pack_kernel` makes them, states last.
    """
    row, batch, direction, group, inner, channel, origin, sign = _place(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane, n = tl.arange(0, BD) + (unit - 1), tl.arange(0, NP)
    here = inner * BD + lane < group_channels
    states = here[:, None] & (n < N)[None, :]
    weights = direction * channels + channel + lane
    rates = _rates(tl.load(A + weights[:, None] * N + (n * unit)[None, :], mask=states, other=0), CT)
    if HAS_D:
        skip = tl.load(D + weights, mask=here, other=0).to(CT)
    if HAS_BIAS:
        shift = tl.load(bias + weights, mask=here, other=0).to(CT)

    origin = origin.to(tl.int64)
    u += batch * u_b + direction * u_r + channel.to(tl.int64) * u_d + origin * u_l
    delta += batch * delta_b + direction * delta_r + channel.to(tl.int64) * delta_d + origin * delta_l
    out += batch * out_b + direction * out_r + channel.to(tl.int64) * out_d + origin * out_l
    if HAS_Z:
        z += batch * z_b + channel.to(tl.int64) * z_d + origin * z_l
    packed = (row * (channels // group_channels) + group) * chunks * T * NP
    B += packed
    C += packed

    first = tl.program_id(1) * segment_chunks
    end = tl.minimum(first + segment_chunks, chunks)
    cell = n[None, :] * channels + channel + lane[:, None]
    if SEGMENTED:
        h = tl.load(start + (tl.program_id(1) * rows + row) * N * channels + cell, mask=states, other=0)
    else:
        h = tl.zeros((BD, NP), CT)

    # What comes from far away is loaded one step ahead of its use.
    t = (sign * first * T).to(tl.int64)
    next_u = tl.load(u + t * u_l + lane * u_d, mask=here, other=0)
    next_delta = tl.load(delta + t * delta_l + lane * delta_d, mask=here, other=0)
    if HAS_Z:
        next_z = tl.load(z + t * z_l + lane * z_d, mask=here, other=0)
    for chunk in range(first, end):
        if SAVE:
            border = (row * (chunks - 1) + chunk - 1) * N * channels
            tl.store(saved + border + cell, h, mask=states & (chunk > 0))
        for step in range(chunk * T, tl.minimum(chunk * T + T, length)):
            t = (sign * step).to(tl.int64)
            weight_in = tl.load(B + step * NP + n)
            weight_out = tl.load(C + step * NP + n)
            x, raw = next_u.to(CT), next_delta.to(CT)
            ahead = here & (step + 1 < length)
            next_u = tl.load(u + (t + sign) * u_l + lane * u_d, mask=ahead, other=0)
            next_delta = tl.load(delta + (t + sign) * delta_l + lane * delta_d, mask=ahead, other=0)
            if HAS_BIAS:
                raw += shift
            dt = _step_size(raw, SOFTPLUS, CT)
            h = _exp(dt[:, None] * rates, CT) * h + (dt * x)[:, None] * weight_in[None, :]
            y = tl.sum(h * weight_out[None, :], axis=1)
            if HAS_D:
                y += skip * x
            if HAS_Z:
                gate = next_z.to(CT)
                next_z = tl.load(z + (t + sign) * z_l + lane * z_d, mask=ahead, other=0)
                y *= gate * _sigmoid(gate)
            tl.store(out + t * out_l + lane * out_d, y.to(out.dtype.element_ty), mask=here)
    if LAST:
        # (row, channel, state)
        into = last + row * channels * N + (channel + lane)[:, None] * N + (n * unit)[None, :]
        tl.store(into, h, mask=states & (end == chunks))


@triton.jit(do_not_specialize=_PLAIN)
def segment_kernel(
    x, delta, A, weight, z, bias, state, total,
    x_b, x_r, x_d, x_l, delta_b, delta_r, delta_d, delta_l, weight_b, weight_r, weight_g, weight_n, weight_l,
    z_b, z_d, z_l,
    length, channels, group_channels, group_blocks, chunks, segment_chunks, reverse, rows, unit,
    scale: tl.constexpr, BACKWARD: tl.constexpr,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """What a segment adds to the state after it, and the sum of its step sizes, which gives its decay.

    Forward: ``x`` is ``u`` and ``weight`` is ``B``. Backward: ``x`` is the gradient of the output and ``weight`` is
    ``C``; time runs backwards, and what is found is what the segment adds to the gradient of the state before it.
    """
    row, batch, direction, group, inner, channel, origin, sign = _place(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane, n = tl.arange(0, BD) + (unit - 1), tl.arange(0, NP)
    here = inner * BD + lane < group_channels
    states = here[:, None] & (n < N)[None, :]
    weights = direction * channels + channel + lane
    rates = _rates(tl.load(A + weights[:, None] * N + (n * unit)[None, :], mask=states, other=0), CT)
    if HAS_BIAS:
        shift = tl.load(bias + weights, mask=here, other=0).to(CT)

    origin = origin.to(tl.int64)
    x += batch * x_b + direction * x_r + channel.to(tl.int64) * x_d + origin * x_l
    delta += batch * delta_b + direction * delta_r + channel.to(tl.int64) * delta_d + origin * delta_l
    weight += batch * weight_b + direction * weight_r + group.to(tl.int64) * weight_g + origin * weight_l
    if HAS_Z:
        z += batch * z_b + channel.to(tl.int64) * z_d + origin * z_l

    first = tl.program_id(1) * segment_chunks * T
    end = tl.minimum(first + segment_chunks * T, length)
    h = tl.zeros((BD, NP), CT)
    sum_dt = tl.zeros((BD,), CT)
    for index in range(first, end):
        step = first + end - 1 - index if BACKWARD else index
        t = (sign * step).to(tl.int64)
        value = tl.load(x + t * x_l + lane * x_d, mask=here, other=0).to(CT)
        raw = tl.load(delta + t * delta_l + lane * delta_d, mask=here, other=0).to(CT)
        factor = tl.load(weight + t * weight_l + n * weight_n, mask=n < N, other=0).to(CT)
        if HAS_BIAS:
            raw += shift
        dt = _step_size(raw, SOFTPLUS, CT)
        sum_dt += dt
        if HAS_Z:
            gate = tl.load(z + t * z_l + lane * z_d, mask=here, other=0).to(CT)
            value *= gate * _sigmoid(gate)
        decay = _exp(dt[:, None] * rates, CT)
        if BACKWARD:
            h = decay * (h + (scale * value)[:, None] * factor[None, :])
        else:
            h = decay * h + (dt * value)[:, None] * factor[None, :]
    place = tl.program_id(1) * rows + row
    tl.store(state + place * N * channels + n[None, :] * channels + channel + lane[:, None], h, mask=states)
    tl.store(total + place * channels + channel + lane, sum_dt, mask=here)


@triton.jit(do_not_specialize=_PLAIN)
def chain_kernel(
    state, total, A, channels, segments, rows,
    BACKWARD: tl.constexpr, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr,
    HAS_INITIAL: tl.constexpr, CT: tl.constexpr, initial,
):  # fmt: skip
    """Replace what each segment adds by what it starts from (backward: the gradient of the state after it)."""
    row = tl.program_id(1).to(tl.int64)
    lane, n = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, NP)
    here = lane < channels
    states = here[:, None] & (n < N)[None, :]
    weights = (row % DIRECTIONS) * channels + lane
    rates = _rates(tl.load(A + weights[:, None] * N + n[None, :], mask=states, other=0), CT)
    if HAS_INITIAL:
        h = tl.load(initial + (row * channels + lane[:, None]) * N + n[None, :], mask=states, other=0).to(CT)
    else:
        h = tl.zeros((BD, NP), CT)
    for index in range(segments):
        place = (segments - 1 - index if BACKWARD else index) * rows + row
        into = state + place * N * channels + n[None, :] * channels + lane[:, None]
        added = tl.load(into, mask=states, other=0)
        sum_dt = tl.load(total + place * channels + lane, mask=here, other=0)
        tl.store(into, h, mask=states)
        h = added + _exp(sum_dt[:, None] * rates, CT) * h


@triton.jit(do_not_specialize=_PLAIN)
def backward_kernel(
    dout, u, delta, A, B, C, D, z, bias, saved, carry,
    du, ddelta, dA, dB, dC, dD, dz, dbias,
    dout_b, dout_d, dout_l, u_b, u_r, u_d, u_l, delta_b, delta_r, delta_d, delta_l,
    z_b, z_d, z_l, du_b, du_r, du_d, du_l, ddelta_b, ddelta_r, ddelta_d, ddelta_l, dz_b, dz_d, dz_l,
    length, channels, group_channels, group_blocks, chunks, segment_chunks, reverse, rows, unit,
    scale: tl.constexpr,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_DZ: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    HAS_CARRY: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients; those of weights as partial sums that the caller adds up.

    ``dA`` (segment, row, state, channel); ``dD`` and ``dbias`` (segment, row, channel); ``dB`` and ``dC`` (block of a
    group, row, group, state, step). ``B`` and ``C`` as :func:`pack_kernel` makes them, steps last. ``carry`` (segment,
    row, state, channel) is scratch; with ``HAS_CARRY`` it holds the gradient of the state after each segment at first.
    ``HAS_DZ`` makes the gradient of the gate.
    """
    row, batch, direction, group, inner, channel, origin, sign = _place(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane = tl.arange(0, BD) + (unit - 1)
    which, once = _summed(T, BD)
    here = inner * BD + lane < group_channels
    weights = direction * channels + channel + lane
    if HAS_D:
        skip = tl.load(D + weights, mask=here, other=0).to(CT)
        sum_dD = tl.zeros((BD,), CT)
    shift = tl.zeros((BD,), CT)
    if HAS_BIAS:
        shift = tl.load(bias + weights, mask=here, other=0).to(CT)
        sum_dbias = tl.zeros((BD,), CT)

    d0 = channel.to(tl.int64)
    u += batch * u_b + direction * u_r + d0 * u_d + lane * u_d
    delta += batch * delta_b + direction * delta_r + d0 * delta_d + lane * delta_d
    du += batch * du_b + direction * du_r + d0 * du_d + lane * du_d
    ddelta += batch * ddelta_b + direction * ddelta_r + d0 * ddelta_d + lane * ddelta_d
    dout += batch * dout_b + d0 * dout_d + lane * dout_d
    if HAS_Z:
        z += batch * z_b + d0 * z_d + lane * z_d
    if HAS_DZ:
        dz += batch * dz_b + d0 * dz_d + lane * dz_d
    groups, steps = channels // group_channels, chunks * T
    packed = (row * groups + group) * N * steps
    B += packed
    C += packed
    packed += inner * rows * groups * N * steps
    dB += packed + which
    dC += packed + which
    place = (tl.program_id(1) * rows + row) * channels + channel
    carry += place * N - channel * (N - 1) + lane
    dA += place * N - channel * (N - 1) + lane
    A += weights * N

    first = tl.program_id(1) * segment_chunks
    end = tl.minimum(first + segment_chunks, chunks)
    for index in range(first, end):
        chunk = first + end - 1 - index
        p = (origin + sign * chunk * T).to(tl.int64)
        dts, dt_xs, dys, ys, ddts, ddt_xs = (), (), (), (), (), ()
        for k in tl.static_range(T):
            mask = here & (chunk * T + k < length)
            t = p + sign * k
            x = tl.load(u + t * u_l, mask=mask, other=0).to(CT)
            raw = tl.load(delta + t * delta_l, mask=mask, other=0).to(CT) + shift
            # A step size of 0 makes what lies beyond the end the identity.
            dt = tl.where(mask, _step_size(raw, SOFTPLUS, CT), 0.0)
            dy = tl.load(dout + t * dout_l, mask=mask, other=0).to(CT) * scale
            if HAS_Z:
                gate = tl.load(z + t * z_l, mask=mask, other=0).to(CT)
                dy *= gate * _sigmoid(gate)
            zero = tl.zeros((BD,), CT)
            dts, dt_xs, dys = dts + (dt,), dt_xs + (dt * x,), dys + (dy,)
            ys, ddts, ddt_xs = ys + (zero,), ddts + (zero,), ddt_xs + (zero,)

        border = saved + (row * (chunks - 1) + chunk - 1) * N * channels + channel + lane
        known = (chunk < end - 1) | HAS_CARRY
        for n in range(N):
            rate = tl.load(A + n, mask=here, other=0).to(CT)
            h0 = tl.load(border + n * channels, mask=here & (chunk > 0), other=0)
            w = tl.load(carry + n * channels, mask=here & known, other=0)
            sum_dA = tl.load(dA + n * channels, mask=here & (chunk < end - 1), other=0)
            speed = _rates(rate, CT)
            at = n * steps + chunk * T
            decays, states, weights_in = (), (h0,), ()
            for k in tl.static_range(T):
                weights_in = weights_in + (tl.load(B + at + k),)
                decays = decays + (_exp(dts[k] * speed, CT),)
                states = states + (decays[k] * states[k] + dt_xs[k] * weights_in[k],)
            # From the last step to the first: g is the gradient of the state, w what it hands to the state before.
            new_ddts, new_ddt_xs, new_ys = (), (), ()
            parts_dB, parts_dC = (), ()
            for k in tl.static_range(T - 1, -1, -1):
                weight_out = tl.load(C + at + k)
                g = dys[k] * weight_out + w
                w = decays[k] * g
                dexponent = w * states[k]
                sum_dA += dexponent * dts[k]
                new_ddts = (ddts[k] + dexponent * rate,) + new_ddts
                new_ddt_xs = (ddt_xs[k] + g * weights_in[k],) + new_ddt_xs
                parts_dB = (dt_xs[k] * g,) + parts_dB
                parts_dC = (dys[k] * states[k + 1],) + parts_dC
                if HAS_DZ:
                    new_ys = (ys[k] + states[k + 1] * weight_out,) + new_ys
            ddts, ddt_xs = new_ddts, new_ddt_xs
            if HAS_DZ:
                ys = new_ys
            tl.store(carry + n * channels, w, mask=here)
            tl.store(dA + n * channels, sum_dA, mask=here)
            tl.store(dB + at, _sum_channels(parts_dB, T, BD), mask=once)
            tl.store(dC + at, _sum_channels(parts_dC, T, BD), mask=once)
        # Where a block has fewer channels than threads, one thread writes the scratch for several.
        tl.debug_barrier()

        # Loaded again rather than held in registers during the loop.
        for k in tl.static_range(T):
            mask = here & (chunk * T + k < length)
            t = p + sign * k
            x = tl.load(u + t * u_l, mask=mask, other=0).to(CT)
            grad_u = ddt_xs[k] * dts[k]
            grad_dt = ddts[k] + ddt_xs[k] * x
            if HAS_D:
                grad_u += dys[k] * skip
                sum_dD += dys[k] * x
            if SOFTPLUS:
                raw = tl.load(delta + t * delta_l, mask=mask, other=0).to(CT) + shift
                grad_dt = tl.where(raw > 20, grad_dt, grad_dt * _sigmoid(raw))
            if HAS_BIAS:
                sum_dbias += tl.where(mask, grad_dt, 0.0)
            tl.store(du + t * du_l, grad_u.to(du.dtype.element_ty), mask=mask)
            tl.store(ddelta + t * ddelta_l, grad_dt.to(ddelta.dtype.element_ty), mask=mask)
            if HAS_DZ:
                y = ys[k]
                if HAS_D:
                    y += skip * x
                gate = tl.load(z + t * z_l, mask=mask, other=0).to(CT)
                sigmoid = _sigmoid(gate)
                y *= tl.load(dout + t * dout_l, mask=mask, other=0).to(CT) * scale
                y *= sigmoid * (1 + gate * (1 - sigmoid))
                tl.store(dz + t * dz_l, y.to(dz.dtype.element_ty), mask=mask)
    if HAS_D:
        tl.store(dD + place + lane, sum_dD, mask=here)
    if HAS_BIAS:
        tl.store(dbias + place + lane, sum_dbias, mask=here)


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
        value *= gate * _sigmoid(gate)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gate_backward_kernel(
    dout, total, z, dz, dout_b, dout_d, dout_l, total_b, total_d, total_l, z_b, z_d, z_l, dz_b, dz_d, dz_l,
    length, channels, BL: tl.constexpr, BD: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """The gradient of the gate."""
    batch, t, d, mask = _plane(length, channels, BL, BD)
    gate = tl.load(z + batch * z_b + t * z_l + d * z_d, mask=mask, other=0).to(CT)
    value = tl.load(total + batch * total_b + t * total_l + d * total_d, mask=mask, other=0).to(CT)
    dy = tl.load(dout + batch * dout_b + t * dout_l + d * dout_d, mask=mask, other=0).to(CT)
    sigmoid = _sigmoid(gate)
    value *= 0.5 * dy * sigmoid * (1 + gate * (1 - sigmoid))
    tl.store(dz + batch * dz_b + t * dz_l + d * dz_d, value.to(dz.dtype.element_ty), mask=mask)
