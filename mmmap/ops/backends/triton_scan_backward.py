"""The Triton kernel of the scan's backward pass; ``triton_scan.py`` tells how they all work."""

# ruff: noqa: RUF005 (triton compiles no unpacking into a tuple)
from __future__ import annotations

import triton
import triton.language as tl

from mmmap.ops.backends.triton_math import PLAIN, exponential, locate, logistic, scaled_rates, step_size


@triton.jit
def _sum_channels(values, T: tl.constexpr, BD: tl.constexpr):
    """Sums over the channels of ``T`` vectors at once; lane ``i`` gets that of vector ``_summed(i)``.

    At each level, a lane keeps one of every two vectors and gives the other one to another lane. This takes ``T``
    exchanges instead of five for each vector.
    """
    W: tl.constexpr = BD if BD < 32 else 32
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
            for k in tl.static_range(T >> (level + 1) if T >> (level + 1) else 1):
                if T >> level > 1:
                    mine = tl.where(odd, values[2 * k + 1], values[2 * k])
                    other = tl.where(odd, values[2 * k], values[2 * k + 1])
                else:
                    mine, other = values[0], values[0]
                merged = merged + (mine + tl.gather(other, lane ^ bit, 0),)
            values = merged
    return values[0]


@triton.jit
def _load_steps(at, stride, left, here, T: tl.constexpr):
    """Load ``T`` steps from ``at`` on at once. If only ``left`` exist, the last one is repeated."""
    none = ()
    for _ in tl.static_range(T):
        none = none + (tl.zeros(here.shape, at.dtype.element_ty),)
    found = none
    # Always true. The compiler moves no loads out of the branch, so that none waits for the one before.
    if left > 0:
        steps, source = (), at
        for k in tl.static_range(T):
            steps = steps + (tl.load(source, mask=here, other=0),)
            source += tl.where(k + 1 < left, stride, 0)
        found = steps
    return found


@triton.jit
def _load_weights(at, T: tl.constexpr, CT: tl.constexpr):
    """The weights of ``T`` steps, the same for all threads, two in one load where they have 32 bits."""
    found = ()
    if T == 1 or tl.float64 == CT:
        for k in tl.static_range(T):
            found = found + (tl.load(at + k),)
    else:
        pairs = at.to(tl.pointer_type(tl.int64))
        for k in tl.static_range(T // 2):
            pair = tl.load(pairs + k)
            found = found + (
                pair.to(tl.int32).to(tl.float32, bitcast=True),
                (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True),
            )
    return found


@triton.jit
def _summed(T: tl.constexpr, BD: tl.constexpr):
    """For each lane, the vector whose sum it gets from :func:`_sum_channels`, and whether it is the first such lane."""
    W: tl.constexpr = BD if BD < 32 else 32
    lane = tl.arange(0, W)
    index = lane * 0
    for level in tl.static_range(5):
        if T >> level > 1:
            index += ((lane // (W >> (level + 1))) % 2) << level
    return index, lane % (W // T) == 0


@triton.jit(do_not_specialize=PLAIN)
def backward_kernel(
    dout, u, delta, A, weights, D, z, bias, saved, carry,
    du, ddelta, dA, dweights, dD, dz, dbias,
    dout_b, dout_d, dout_l, u_b, u_r, u_d, u_l, delta_b, delta_r, delta_d, delta_l,
    z_b, z_d, z_l, du_b, du_r, du_d, du_l, ddelta_b, ddelta_r, ddelta_d, ddelta_l, dz_b, dz_d, dz_l,
    length, channels, group_channels, group_blocks, chunks, segment_chunks, reverse, rows, unit,
    scale: tl.constexpr,
    DIRECTIONS: tl.constexpr, N: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_DZ: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    HAS_CARRY: tl.constexpr, CT: tl.constexpr,
):  # fmt: skip
    """Gradients; those of weights as partial sums that the caller adds up.

    ``dA`` (segment, row, state, channel); ``dD`` and ``dbias`` (segment, row, channel). ``weights`` are ``B`` and ``C``
    as :func:`pack_kernel` makes them for chunks, ``dweights`` their gradients, the same for each block of a group.
    ``carry`` (segment, row, state, channel) is scratch; with ``HAS_CARRY`` it holds the gradient of the state after
    each segment at first. ``HAS_DZ`` makes the gradient of the gate.
    """
    row, batch, direction, group, inner, channel, origin, sign = locate(
        channels, group_channels, group_blocks, length, reverse, DIRECTIONS, BD
    )
    lane = tl.arange(0, BD) + (unit - 1)
    # Zeros, unknown to the compiler: addresses that it knows to be the same for all threads cost more.
    same = tl.arange(0, BD) * (unit - 1)
    which, once = _summed(T, BD)
    here = inner * BD + lane < group_channels
    own = direction * channels + channel + lane
    if HAS_D:
        skip = tl.load(D + own, mask=here, other=0).to(CT)
        sum_dD = tl.zeros((BD,), CT)
    shift = tl.zeros((BD,), CT)
    if HAS_BIAS:
        shift = tl.load(bias + own, mask=here, other=0).to(CT)
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
    groups = channels // group_channels
    packed = (row * groups + group) * chunks * N * 2 * T
    weights += packed
    dweights += packed + inner.to(tl.int64) * rows * groups * chunks * N * 2 * T + which
    place = (tl.program_id(1) * rows + row) * channels + channel
    carry_at = carry + (place * N - channel * (N - 1))
    carry = carry_at + lane
    dA += place * N - channel * (N - 1) + lane
    A += direction * N * channels + channel + lane

    first = tl.program_id(1) * segment_chunks
    end = tl.minimum(first + segment_chunks, chunks)
    # From here on pointers are at step 0, and strides go from step to step.
    origin = origin.to(tl.int64)
    u += origin * u_l
    delta += origin * delta_l
    dout += origin * dout_l
    du += origin * du_l
    ddelta += origin * ddelta_l
    u_l, delta_l, dout_l, du_l, ddelta_l = sign * u_l, sign * delta_l, sign * dout_l, sign * du_l, sign * ddelta_l
    if HAS_Z:
        z += origin * z_l
        z_l = sign * z_l
    if HAS_DZ:
        dz += origin * dz_l
        dz_l = sign * dz_l
    for n in range(N):  # Initial values for the first chunk.
        if not HAS_CARRY:
            tl.store(carry + n * channels, tl.zeros((BD,), CT), mask=here)
        tl.store(dA + n * channels, tl.zeros((BD,), CT), mask=here)
    tl.debug_barrier()
    # Weights are brought into the cache one state ahead.
    touched = tl.zeros((2 * T,), CT)
    for index in range(first, end):
        chunk = first + end - 1 - index
        p = (chunk * T).to(tl.int64)
        border = saved + (row * (chunks - 1) + chunk - 1) * N * channels + channel + lane
        earlier = here & (chunk > 0)
        # These are loaded one state ahead of use.
        next_rate = tl.load(A, mask=here, other=0).to(CT)
        next_h = tl.load(border, mask=earlier, other=0).to(CT)
        next_w = tl.load(carry, mask=here, other=0)
        next_dA = tl.load(dA, mask=here, other=0)
        touched = tl.maximum(touched, tl.load(weights + chunk * N * 2 * T + tl.arange(0, 2 * T)))
        dts, dt_xs, dys, ys, ddts, ddt_xs = (), (), (), (), (), ()
        left = length - chunk * T
        xs, raws, douts = (
            _load_steps(u + p * u_l, u_l, left, here, T),
            _load_steps(delta + p * delta_l, delta_l, left, here, T),
            _load_steps(dout + p * dout_l, dout_l, left, here, T),
        )
        if HAS_Z:
            gates = _load_steps(z + p * z_l, z_l, left, here, T)
        for k in tl.static_range(T):
            # A step size of 0 makes what lies beyond the end the identity.
            dt = tl.where(here & (k < left), step_size(raws[k].to(CT) + shift, SOFTPLUS, CT), 0.0)
            dy = douts[k].to(CT) * scale
            if HAS_Z:
                gate = gates[k].to(CT)
                dy *= gate * logistic(gate)
            zero = tl.zeros((BD,), CT)
            dts, dt_xs, dys = dts + (dt,), dt_xs + (dt * xs[k].to(CT),), dys + (dy,)
            ys, ddts, ddt_xs = ys + (zero,), ddts + (zero,), ddt_xs + (zero,)

        for n in range(N):
            rate, h0, w, sum_dA = next_rate, next_h, next_w, next_dA
            line = (chunk * N + n) * 2 * T
            from_weights = weights + line + same
            weights_in = _load_weights(from_weights, T, CT)
            speed = scaled_rates(rate, CT)
            decays, states = (), (h0,)
            for k in tl.static_range(T):
                decays = decays + (exponential(dts[k] * speed, CT),)
                states = states + (tl.fma(decays[k], states[k], dt_xs[k] * weights_in[k]),)
            weights_out = _load_weights(from_weights + T, T, CT)
            # The loads that follow must not delay the weights.
            tl.debug_barrier()
            ahead = tl.minimum(n + 1, N - 1)
            next_rate = tl.load(A + ahead * channels, mask=here, other=0).to(CT)
            next_h = tl.load(border + ahead * channels, mask=earlier, other=0).to(CT)
            next_w = tl.load(carry + ahead * channels, mask=here, other=0)
            next_dA = tl.load(dA + ahead * channels, mask=here, other=0)
            touched = tl.maximum(touched, tl.load(weights + (chunk * N + ahead) * 2 * T + tl.arange(0, 2 * T)))
            # From the last step to the first: g is the gradient of the state, w its part for the state before.
            new_ddts, new_ddt_xs, new_ys = (), (), ()
            parts_dB, parts_dC = (), ()
            for k in tl.static_range(T - 1, -1, -1):
                g = dys[k] * weights_out[k] + w
                w = decays[k] * g
                dexponent = w * states[k]
                sum_dA += dexponent * dts[k]
                new_ddts = (ddts[k] + dexponent * rate,) + new_ddts
                new_ddt_xs = (ddt_xs[k] + g * weights_in[k],) + new_ddt_xs
                parts_dB = (dt_xs[k] * g,) + parts_dB
                parts_dC = (dys[k] * states[k + 1],) + parts_dC
                if HAS_DZ:
                    new_ys = (ys[k] + states[k + 1] * weights_out[k],) + new_ys
            ddts, ddt_xs = new_ddts, new_ddt_xs
            if HAS_DZ:
                ys = new_ys
            tl.store(carry + n * channels, w, mask=here)
            tl.store(dA + n * channels, sum_dA, mask=here)
            tl.store(dweights + line, _sum_channels(parts_dB, T, BD), mask=once)
            tl.store(dweights + line + T, _sum_channels(parts_dC, T, BD), mask=once)
        # Where a block has fewer channels than threads, one thread writes the scratch for several.
        tl.debug_barrier()

        # Loaded again rather than held in registers during the loop.
        xs = _load_steps(u + p * u_l, u_l, left, here, T)
        if SOFTPLUS:
            raws = _load_steps(delta + p * delta_l, delta_l, left, here, T)
        if HAS_DZ:
            gates, douts = (
                _load_steps(z + p * z_l, z_l, left, here, T),
                _load_steps(dout + p * dout_l, dout_l, left, here, T),
            )
            to_z = dz + p * dz_l
        to_u, to_delta = du + p * du_l, ddelta + p * ddelta_l
        for k in tl.static_range(T):
            mask = here & (k < left)
            x = tl.where(mask, xs[k].to(CT), 0.0)
            grad_u = ddt_xs[k] * dts[k]
            grad_dt = ddts[k] + ddt_xs[k] * x
            if HAS_D:
                grad_u += dys[k] * skip
                sum_dD += dys[k] * x
            if SOFTPLUS:
                raw = raws[k].to(CT) + shift
                grad_dt = tl.where(raw > 20, grad_dt, grad_dt * logistic(raw))
            if HAS_BIAS:
                sum_dbias += tl.where(mask, grad_dt, 0.0)
            tl.store(to_u, grad_u.to(du.dtype.element_ty), mask=mask)
            tl.store(to_delta, grad_dt.to(ddelta.dtype.element_ty), mask=mask)
            to_u += du_l
            to_delta += ddelta_l
            if HAS_DZ:
                y = ys[k]
                if HAS_D:
                    y += skip * x
                gate = gates[k].to(CT)
                sigmoid = logistic(gate)
                y *= douts[k].to(CT) * scale
                y *= sigmoid * (1 + gate * (1 - sigmoid))
                tl.store(to_z, y.to(dz.dtype.element_ty), mask=mask)
                to_z += dz_l
    # Values without a use would not be loaded. The scratch is no longer needed.
    tl.store(carry_at, tl.max(touched, axis=0))
    if HAS_D:
        tl.store(dD + place + lane, sum_dD, mask=here)
    if HAS_BIAS:
        tl.store(dbias + place + lane, sum_dbias, mask=here)
