"""The interface of a scan backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Of u, delta, A, B, C, D, z and delta_bias; that of an input that is None is ignored.
ScanGrads = tuple[Tensor | None, ...]
ConvGrads = tuple[Tensor, Tensor, Tensor | None]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of states and sums for activations of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class ScanInputs(NamedTuple):
    """The arguments of one scan; ``B`` and ``C`` are ``(batch, groups, states, length)``."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    reverse: bool


def copy_like(value: Tensor, template: Tensor) -> Tensor:
    """``value`` in the type and memory layout of ``torch.empty_like(template)``."""
    result = torch.empty_like(template)
    return result.copy_(value)


def stacked_like(x: Tensor) -> Tensor:
    """Memory ``(batch, 2, channels, length)`` for the two directions of ``x`` ``(batch, channels, length)``.

    Each direction is dense and laid out like ``x``, so that matrix products of it need no copy.
    """
    batch, channels, length = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty((2, batch, length, channels)).permute(1, 0, 3, 2)
    return x.new_empty((2, batch, channels, length)).transpose(0, 1)


class BidirectionalInputs(NamedTuple):
    """The arguments of a scan in both directions; the axis of size 2 is the direction, forward first."""

    u: Tensor  # (batch, 2, channels, length)
    delta: Tensor  # like u
    A: Tensor  # (2, channels, states)
    B: Tensor  # (batch, 2, states, length)
    C: Tensor  # like B
    D: Tensor | None  # (2, channels)
    z: Tensor | None  # (batch, channels, length), one gate for both
    delta_bias: Tensor | None  # (2, channels)
    delta_softplus: bool

    def direction(self, index: int) -> ScanInputs:
        """The scan of one direction, without the gate."""
        u, delta, B, C = (x[:, index] for x in (self.u, self.delta, self.B, self.C))
        D, bias = (None if x is None else x[index] for x in (self.D, self.delta_bias))
        return ScanInputs(
            u, delta, self.A[index], B[:, None], C[:, None], D, None, bias, self.delta_softplus, index == 1
        )


class ScanBackend(ABC):
    """One implementation of the selective scan and of the causal convolution.

    Tensors may have any strides, and their floating types may differ. Each result has the type and the memory layout
    of ``torch.empty_like`` of its input; the convolution in both directions has those of :func:`stacked_like`.
    """

    name: str

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this backend cannot be used in this process, in one line; None if it can."""

    def unsupported(self, device: str, dtype: torch.dtype) -> str | None:
        """Why this backend cannot compute ``dtype`` on ``device``, in one line; None if it can."""
        return None

    @abstractmethod
    def saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        """Shape of the tensor that the forward pass keeps for the backward pass; with a 0 if there is none."""

    def saved_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Type of that tensor for inputs of type ``dtype``."""
        return compute_dtype(dtype)

    @abstractmethod
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Output like ``u``, last state ``(batch, channels, states)``, and what ``save`` keeps (else empty)."""

    @abstractmethod
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        """Gradients of the first eight inputs."""

    @abstractmethod
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution, output like ``x``."""

    @abstractmethod
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> ConvGrads:
        """Gradients of x, weight and bias."""

    def bidirectional_saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        """As :meth:`saved_shape` for both directions."""
        return 2, *self.saved_shape(u[:, 0], B[:, :1])

    def bidirectional_forward(self, inputs: BidirectionalInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The gated mean of both directions like ``u[:, 0]``, the kept states, and the sum before the gate.

        The states are empty without ``save``. The sum is empty without ``save`` or without a gate.
        """
        dtype = compute_dtype(inputs.u.dtype)
        forward, reverse = (self.scan_forward(inputs.direction(i), save) for i in range(2))
        y = copy_like(forward[0].to(dtype) + reverse[0], inputs.u[:, 0])
        out = y * 0.5
        if inputs.z is not None:
            out = copy_like(out * F.silu(inputs.z.to(dtype)), y)
        states = torch.stack([forward[2], reverse[2]]) if save else forward[2]
        return out, states, y if save and inputs.z is not None else y.new_empty(0)

    def bidirectional_backward(self, dout: Tensor, states: Tensor, y: Tensor, inputs: BidirectionalInputs) -> ScanGrads:
        """Gradients of the first eight inputs."""
        dy, dz = dout.to(compute_dtype(inputs.u.dtype)) * 0.5, None
        if inputs.z is not None:
            z = inputs.z.to(dy.dtype)
            sigmoid = torch.sigmoid(z)
            dz = copy_like(dy * y * sigmoid * (1 + z * (1 - sigmoid)), inputs.z)
            dy = dy * z * sigmoid
        forward, reverse = (self.scan_backward(dy, None, states[i], inputs.direction(i)) for i in range(2))

        grads = [
            None if x is None or a is None or b is None else copy_like(torch.stack([a, b], axis).view_as(x), x)
            for x, a, b, axis in zip(inputs[:8], forward, reverse, (1, 1, 0, 1, 1, 0, 0, 0), strict=True)
        ]
        return *grads[:6], dz, grads[7]

    def bidirectional_conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        """The convolution in both directions, ``(batch, 2, channels, length)`` as :func:`stacked_like` lays it out."""
        out = stacked_like(x)
        for i in range(2):
            out[:, i] = self.conv_forward(x, weight[i], None if bias is None else bias[i], silu, i == 1)
        return out

    def bidirectional_conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool
    ) -> ConvGrads:
        """Gradients of x, weight and bias."""
        grads = [
            self.conv_backward(dout[:, i], x, weight[i], None if bias is None else bias[i], silu, i == 1)
            for i in range(2)
        ]
        dx, dweight, dbias = zip(*grads, strict=True)
        return (
            torch.add(*dx, out=torch.empty_like(x)),
            copy_like(torch.stack(dweight), weight),
            None if bias is None else copy_like(torch.stack(dbias), bias),
        )
