"""The Triton kernel of the scan's backward pass; ``triton_scan.py`` tells how they all work."""

# ruff: noqa: RUF005 (triton compiles no unpacking into a tuple)
from __future__ import annotations

import triton
import triton.language as tl

from mmmap.ops.backends.triton_math import PLAIN, exponential, locate, logistic, scaled_rates, step_size


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


@triton.jit(do_not_specialize=PLAIN)
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
    row, batch, direction, group, inner, channel, origin, sign = locate(
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
    packed += inner.to(tl.int64) * rows * groups * N * steps
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
            dt = tl.where(mask, step_size(raw, SOFTPLUS, CT), 0.0)
            dy = tl.load(dout + t * dout_l, mask=mask, other=0).to(CT) * scale
            if HAS_Z:
                gate = tl.load(z + t * z_l, mask=mask, other=0).to(CT)
                dy *= gate * logistic(gate)
            zero = tl.zeros((BD,), CT)
            dts, dt_xs, dys = dts + (dt,), dt_xs + (dt * x,), dys + (dy,)
            ys, ddts, ddt_xs = ys + (zero,), ddts + (zero,), ddt_xs + (zero,)

        border = saved + (row * (chunks - 1) + chunk - 1) * N * channels + channel + lane
        known = (chunk < end - 1) | HAS_CARRY
        for n in range(N):
            rate = tl.load(A + n, mask=here, other=0).to(CT)
            h0 = tl.load(border + n * channels, mask=here & (chunk > 0), other=0).to(CT)
            w = tl.load(carry + n * channels, mask=here & known, other=0)
            sum_dA = tl.load(dA + n * channels, mask=here & (chunk < end - 1), other=0)
            speed = scaled_rates(rate, CT)
            at = n * steps + chunk * T
            decays, states, weights_in = (), (h0,), ()
            for k in tl.static_range(T):
                weights_in = weights_in + (tl.load(B + at + k),)
                decays = decays + (exponential(dts[k] * speed, CT),)
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
                grad_dt = tl.where(raw > 20, grad_dt, grad_dt * logistic(raw))
            if HAS_BIAS:
                sum_dbias += tl.where(mask, grad_dt, 0.0)
            tl.store(du + t * du_l, grad_u.to(du.dtype.element_ty), mask=mask)
            tl.store(ddelta + t * ddelta_l, grad_dt.to(ddelta.dtype.element_ty), mask=mask)
            if HAS_DZ:
                y = ys[k]
                if HAS_D:
                    y += skip * x
                gate = tl.load(z + t * z_l, mask=mask, other=0).to(CT)
                sigmoid = logistic(gate)
                y *= tl.load(dout + t * dout_l, mask=mask, other=0).to(CT) * scale
                y *= sigmoid * (1 + gate * (1 - sigmoid))
                tl.store(dz + t * dz_l, y.to(dz.dtype.element_ty), mask=mask)
    if HAS_D:
        tl.store(dD + place + lane, sum_dD, mask=here)
    if HAS_BIAS:
        tl.store(dbias + place + lane, sum_dbias, mask=here)
