"""The backend in plain torch, for any device, with a backward pass of its own.

It keeps one state for each chunk of steps, and computes the states of one chunk at a time again. Within a chunk, all
but the recurrence itself is one tensor operation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from mmmap.ops.backends.base import ConvGrads, ScanBackend, ScanGrads, ScanInputs, compute_dtype, copy_like


def _chunk_length(length: int) -> int:
    """Steps in a chunk: about sqrt(length), which balances the kept states against those of one chunk."""
    return min(64, max(8, math.isqrt(length)))


def _spans(length: int) -> list[tuple[int, int]]:
    step = _chunk_length(length)
    return [(start, min(start + step, length)) for start in range(0, length, step)]


class _Scan:
    """The inputs of one scan, time first and in the order of the recurrence."""

    def __init__(self, inputs: ScanInputs):
        u, delta, A, B, C, _, _, delta_bias, delta_softplus, reverse = inputs
        self.dtype = compute_dtype(u.dtype)
        self.batch, self.channels, self.length = u.shape
        self.groups, self.states = B.shape[1:3]
        self.reverse = reverse
        # (groups, channels of a group, states), so that B and C broadcast over the channels of their group.
        self.A = A.to(self.dtype).view(self.groups, -1, self.states)
        self.B, self.C = B, C
        self.u, self.delta, self.bias, self.softplus = u, delta, delta_bias, delta_softplus

    def where(self, start: int, stop: int) -> slice:
        """Steps ``start:stop`` of the recurrence as positions of the input."""
        return slice(self.length - stop, self.length - start) if self.reverse else slice(start, stop)

    def steps(self, x: Tensor, start: int, stop: int) -> Tensor:
        """``(batch, channels, length)`` -> ``(steps, batch, groups, channels of a group)`` in the computing type."""
        part = x[:, :, self.where(start, stop)].to(self.dtype).permute(2, 0, 1)
        part = part.flip(0) if self.reverse else part
        return part.reshape(stop - start, self.batch, self.groups, -1)

    def weights(self, x: Tensor, start: int, stop: int) -> Tensor:
        """``(batch, groups, states, length)`` -> ``(steps, batch, groups, states)`` in the computing type."""
        part = x[..., self.where(start, stop)].to(self.dtype).permute(3, 0, 1, 2)
        return part.flip(0) if self.reverse else part

    def put(self, target: Tensor, value: Tensor, start: int, stop: int) -> None:
        """The inverse of :meth:`steps` and :meth:`weights`: write values ``(steps, ...)`` into ``target``."""
        value = value.flip(0) if self.reverse else value
        target[..., self.where(start, stop)] = value.reshape(stop - start, *target.shape[:-1]).movedim(0, -1)

    def raw_step_size(self, start: int, stop: int) -> Tensor:
        raw = self.steps(self.delta, start, stop)
        return raw if self.bias is None else raw + self.bias.to(self.dtype).view(self.groups, -1)

    def step_size(self, raw: Tensor) -> Tensor:
        return F.softplus(raw, threshold=20) if self.softplus else raw

    def chunk_states(self, state: Tensor, dt: Tensor, u: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Decays and states ``(steps, batch, groups, channels, states)`` of a chunk that starts after ``state``."""
        decay = torch.exp(dt[..., None] * self.A)
        states = (dt * u)[..., None] * B[:, :, :, None]
        for now, decay_t in zip(states.unbind(0), decay.unbind(0), strict=True):
            now.addcmul_(decay_t, state)
            state = now
        return decay, states

    def zeros(self) -> Tensor:
        shape = (self.batch, self.groups, self.channels // self.groups, self.states)
        return self.u.new_zeros(shape, dtype=self.dtype)


class TorchBackend(ScanBackend):
    """Plain torch with a backward pass of its own."""

    name = 'torch'

    @override
    def unavailable(self) -> str | None:
        return None

    @override
    def saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        batch, channels, length = u.shape
        chunk = _chunk_length(length)
        return ((length + chunk - 1) // chunk, batch, channels, B.shape[2])

    @override
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        scan = _Scan(inputs)
        u, _, _, B, C, D, z, *_ = inputs
        out = torch.empty_like(u)
        saved = u.new_empty(self.saved_shape(u, B) if save else (0,), dtype=scan.dtype)
        state = scan.zeros()
        for index, (start, stop) in enumerate(_spans(scan.length)):
            if save:
                saved[index] = state.view(saved.shape[1:])
            part_u, dt = scan.steps(u, start, stop), scan.step_size(scan.raw_step_size(start, stop))
            _, states = scan.chunk_states(state, dt, part_u, scan.weights(B, start, stop))
            y = (states @ scan.weights(C, start, stop)[..., None])[..., 0]
            if D is not None:
                y += D.to(scan.dtype).view(scan.groups, -1) * part_u
            if z is not None:
                y *= F.silu(scan.steps(z, start, stop))
            scan.put(out, y, start, stop)
            state = states[-1].clone()
        return out, state.view(scan.batch, scan.channels, scan.states), saved

    @override
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        scan = _Scan(inputs)
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, _ = inputs
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (u, delta, B, C))
        dz = None if z is None else torch.empty_like(z)
        dA = torch.zeros_like(scan.A)
        skip = None if D is None else D.to(scan.dtype).view(scan.groups, -1)
        dD, dbias = torch.zeros_like(scan.A[..., 0]), torch.zeros_like(scan.A[..., 0])
        carry = scan.zeros() if dlast is None else dlast.to(scan.dtype).reshape(scan.zeros().shape)
        for index, (start, stop) in reversed(list(enumerate(_spans(scan.length)))):
            part_u, raw = scan.steps(u, start, stop), scan.raw_step_size(start, stop)
            dt, part_B, part_C = scan.step_size(raw), scan.weights(B, start, stop), scan.weights(C, start, stop)
            border = saved[index].view(carry.shape)
            decay, states = scan.chunk_states(border, dt, part_u, part_B)

            dy = scan.steps(dout, start, stop)
            if z is not None and dz is not None:
                y = (states @ part_C[..., None])[..., 0]
                y = y if skip is None else y + skip * part_u
                gate = scan.steps(z, start, stop)
                sigmoid = torch.sigmoid(gate)
                scan.put(dz, dy * y * sigmoid * (1 + gate * (1 - sigmoid)), start, stop)
                dy = dy * gate * sigmoid

            # Of each state: from its output and from the next state.
            dstates = dy[..., None] * part_C[:, :, :, None]
            for dstate, decay_t in zip(reversed(dstates.unbind(0)), reversed(decay.unbind(0)), strict=True):
                dstate += carry
                carry = dstate * decay_t
            scan.put(dC, (dy[..., None, :] @ states)[..., 0, :], start, stop)
            dt_u = dt * part_u
            scan.put(dB, (dt_u[..., None, :] @ dstates)[..., 0, :], start, stop)
            ddt_u = (dstates @ part_B[..., None])[..., 0]
            # The exponent's gradient reuses the memory of the decays.
            decay[0] *= border
            decay[1:] *= states[:-1]
            dexponent = decay.mul_(dstates)
            dA += (dexponent * dt[..., None]).sum((0, 1))
            ddt = (dexponent * scan.A).sum(-1) + ddt_u * part_u
            du_part = ddt_u * dt
            if skip is not None:
                du_part += dy * skip
                dD += (dy * part_u).sum((0, 1))
            scan.put(du, du_part, start, stop)
            if delta_softplus:
                ddt = torch.where(raw > 20, ddt, ddt * torch.sigmoid(raw))
            dbias += ddt.sum((0, 1))
            scan.put(ddelta, ddt, start, stop)
        grad_D = None if D is None else copy_like(dD.view(-1), D)
        grad_bias = None if delta_bias is None else copy_like(dbias.view(-1), delta_bias)
        return du, ddelta, copy_like(dA.view(A.shape), A), dB, dC, grad_D, dz, grad_bias

    @override
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        y = self._convolve(x, weight, bias, reverse)
        return copy_like(F.silu(y) if silu else y, x)

    @override
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> ConvGrads:
        dtype = compute_dtype(x.dtype)
        dy = dout.to(dtype)
        if silu:
            y = self._convolve(x, weight, bias, reverse)
            sigmoid = torch.sigmoid(y)
            dy = dy * sigmoid * (1 + y * (1 - sigmoid))
        inputs, taps = x.to(dtype), weight.to(dtype)
        dx, dweight = torch.zeros_like(dy), torch.zeros_like(taps)
        for tap, (source, target) in enumerate(_tap_slices(x.shape[2], weight.shape[1], reverse)):
            dx[..., source] += dy[..., target] * taps[:, tap, None]
            dweight[:, tap] = (dy[..., target] * inputs[..., source]).sum((0, 2))
        dbias = None if bias is None else copy_like(dy.sum((0, 2)), bias)
        return copy_like(dx, x), copy_like(dweight, weight), dbias

    @staticmethod
    def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
        """The convolution as one shifted product per tap, in the computing type."""
        dtype = compute_dtype(x.dtype)
        inputs, taps = x.to(dtype), weight.to(dtype)
        y = torch.zeros_like(inputs) if bias is None else torch.empty_like(inputs).copy_(bias[:, None])
        for tap, (source, target) in enumerate(_tap_slices(x.shape[2], weight.shape[1], reverse)):
            y[..., target] += inputs[..., source] * taps[:, tap, None]
        return y


def _tap_slices(length: int, taps: int, reverse: bool) -> list[tuple[slice, slice]]:
    """For each tap, the positions it reads and the positions it contributes to."""
    pairs = []
    for tap in range(taps):
        shift = min(taps - 1 - tap, length)
        early, late = slice(0, length - shift), slice(shift, length)
        pairs.append((late, early) if reverse else (early, late))
    return pairs
