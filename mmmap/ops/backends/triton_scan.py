"""Triton kernels of the selective scan; imported on the first use of the backend only.

One program computes one block of channels of one batch element and direction, over one segment of time. Step ``t`` of
the recurrence is position ``t`` or ``length - 1 - t``, by pointer arithmetic alone.

* Forward: a thread holds all states of its channels, step after step. The state before each chunk but the first is
  kept for the backward pass.
* Backward: chunk after chunk from the last to the first, state by state. A thread holds all steps of a chunk of its
  channels in registers. It computes the states again forwards, then their gradients backwards. Values for the next
  chunk go through memory that no other thread uses.
* Loads take hundreds of cycles, and few threads run at once. So loads are issued ahead of use: in the forward pass some
  steps, in the backward pass the inputs of a chunk together and the values of a state one state ahead.
* Segments of long sequences run in parallel: a first pass finds what each segment adds to the state (or to its
  gradient), a second one chains these, and the kernels above start from there.

Adjacent threads have adjacent channels. The argument ``unit`` is 1, but unknown to the compiler: it hides that channels
start at aligned addresses, for which a thread would get several adjacent channels. Adjacent channels in memory, also in
``A`` (direction, state, channel), keep all states of a channel in one thread.

``row`` numbers batch elements and directions, batch first. All sums are in ``CT``, float32 or float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmmap.ops.backends.triton_math import PLAIN, exponential, locate, logistic, scaled_rates, step_size


@triton.jit(do_not_specialize=PLAIN)
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
    row, batch, direction, group, inner, channel, origin, sign = locate(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane, n = tl.arange(0, BD) + (unit - 1), tl.arange(0, NP)
    here = inner * BD + lane < group_channels
    states = (n < N)[:, None] & here[None, :]
    weights = direction * channels + channel + lane
    cell = n[:, None] * channels + channel + lane[None, :]
    rates = scaled_rates(tl.load(A + direction * N * channels + cell, mask=states, other=0), CT)
    if HAS_D:
        skip = tl.load(D + weights, mask=here, other=0).to(CT)
    shift = tl.zeros((BD,), CT)
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
    if SEGMENTED:
        h = tl.load(start + (tl.program_id(1) * rows + row) * N * channels + cell, mask=states, other=0)
    else:
        h = tl.zeros((NP, BD), CT)

    # Inputs are loaded two steps ahead of use, and step sizes computed one step ahead.
    at = (sign * first * T).to(tl.int64)
    u += at * u_l + lane * u_d
    delta += at * delta_l + lane * delta_d
    out += at * out_l + lane * out_d
    u_l, delta_l, out_l = sign * u_l, sign * delta_l, sign * out_l
    next_u = tl.load(u, mask=here, other=0)
    next_dt = step_size(tl.load(delta, mask=here, other=0).to(CT) + shift, SOFTPLUS, CT)
    second = here & (first * T + 1 < length)
    u += u_l
    delta += delta_l
    later_u = tl.load(u, mask=second, other=0)
    later_raw = tl.load(delta, mask=second, other=0)
    if HAS_Z:
        z += at * z_l + lane * z_d
        z_l = sign * z_l
        next_z = tl.load(z, mask=here, other=0).to(CT)
    next_in = tl.load(B + first * T * NP + n)
    next_out = tl.load(C + first * T * NP + n)
    for chunk in range(first, end):
        if SAVE:
            border = (row * (chunks - 1) + chunk - 1) * N * channels
            tl.store(saved + border + cell, h.to(saved.dtype.element_ty), mask=states & (chunk > 0))
        for step in range(chunk * T, tl.minimum(chunk * T + T, length)):
            weight_in, weight_out = next_in, next_out
            after = tl.minimum(step + 1, length - 1) * NP
            next_in = tl.load(B + after + n)
            next_out = tl.load(C + after + n)
            ahead = here & (step + 2 < length)
            u += u_l
            delta += delta_l
            x, dt = next_u.to(CT), next_dt
            next_dt = step_size(later_raw.to(CT) + shift, SOFTPLUS, CT)
            next_u = later_u
            later_u = tl.load(u, mask=ahead, other=0)
            later_raw = tl.load(delta, mask=ahead, other=0)
            h = tl.fma(exponential(dt[None, :] * rates, CT), h, (dt * x)[None, :] * weight_in[:, None])
            y = tl.sum(h * weight_out[:, None], axis=0)
            if HAS_D:
                y += skip * x
            if HAS_Z:
                gate = next_z
                z += z_l
                next_z = tl.load(z, mask=here & (step + 1 < length), other=0).to(CT)
                y *= gate * logistic(gate)
            tl.store(out, y.to(out.dtype.element_ty), mask=here)
            out += out_l
    if LAST:
        # (row, channel, state)
        into = last + row * channels * N + (n * unit)[:, None] + (channel + lane)[None, :] * N
        tl.store(into, h, mask=states & (end == chunks))


@triton.jit(do_not_specialize=PLAIN)
def segment_kernel(
    x, delta, A, weight, z, bias, state, total,
    x_b, x_r, x_d, x_l, delta_b, delta_r, delta_d, delta_l, weight_b, weight_r, weight_g, weight_n, weight_l,
    z_b, z_d, z_l,
    length, channels, group_channels, group_blocks, chunks, segment_chunks, reverse, rows, unit,
    scale: tl.constexpr, BACKWARD: tl.constexpr,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """What a segment adds to the state after it, and the sum of its step sizes, for its decay.

    Forward: ``x`` is ``u`` and ``weight`` is ``B``. Backward: ``x`` is the gradient of the output and ``weight`` is
    ``C``; time runs backwards, and what is found is what the segment adds to the gradient of the state before it.
    """
    row, batch, direction, group, inner, channel, origin, sign = locate(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane, n = tl.arange(0, BD) + (unit - 1), tl.arange(0, NP)
    here = inner * BD + lane < group_channels
    states = (n < N)[:, None] & here[None, :]
    weights = direction * channels + channel + lane
    cell = n[:, None] * channels + channel + lane[None, :]
    rates = scaled_rates(tl.load(A + direction * N * channels + cell, mask=states, other=0), CT)
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
    h = tl.zeros((NP, BD), CT)
    sum_dt = tl.zeros((BD,), CT)
    for index in range(first, end):
        step = first + end - 1 - index if BACKWARD else index
        t = (sign * step).to(tl.int64)
        value = tl.load(x + t * x_l + lane * x_d, mask=here, other=0).to(CT)
        raw = tl.load(delta + t * delta_l + lane * delta_d, mask=here, other=0).to(CT)
        factor = tl.load(weight + t * weight_l + n * weight_n, mask=n < N, other=0).to(CT)
        if HAS_BIAS:
            raw += shift
        dt = step_size(raw, SOFTPLUS, CT)
        sum_dt += dt
        if HAS_Z:
            gate = tl.load(z + t * z_l + lane * z_d, mask=here, other=0).to(CT)
            value *= gate * logistic(gate)
        decay = exponential(dt[None, :] * rates, CT)
        if BACKWARD:
            h = decay * (h + (scale * value)[None, :] * factor[:, None])
        else:
            h = decay * h + (dt * value)[None, :] * factor[:, None]
    place = tl.program_id(1) * rows + row
    tl.store(state + place * N * channels + cell, h, mask=states)
    tl.store(total + place * channels + channel + lane, sum_dt, mask=here)


@triton.jit(do_not_specialize=PLAIN)
def chain_kernel(
    state, total, A, channels, segments, rows,
    BACKWARD: tl.constexpr, DIRECTIONS: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr,
    HAS_INITIAL: tl.constexpr, CT: tl.constexpr, initial,
):  # fmt: skip
    """Replace what each segment adds by what it starts from (backward: the gradient of the state after it)."""
    row = tl.program_id(1).to(tl.int64)
    lane, n = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, NP)
    here = lane < channels
    states = (n < N)[:, None] & here[None, :]
    cell = n[:, None] * channels + lane[None, :]
    rates = scaled_rates(tl.load(A + (row % DIRECTIONS) * N * channels + cell, mask=states, other=0), CT)
    if HAS_INITIAL:
        h = tl.load(initial + n[:, None] + (row * channels + lane[None, :]) * N, mask=states, other=0).to(CT)
    else:
        h = tl.zeros((NP, BD), CT)
    for index in range(segments):
        place = (segments - 1 - index if BACKWARD else index) * rows + row
        into = state + place * N * channels + cell
        added = tl.load(into, mask=states, other=0)
        sum_dt = tl.load(total + place * channels + lane, mask=here, other=0)
        tl.store(into, h, mask=states)
        h = added + exponential(sum_dt[None, :] * rates, CT) * h
