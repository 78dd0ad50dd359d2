"""The protocol of a scan backend: what each implementation of the two operators provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

ScanGrads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


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


class ScanBackend(ABC):
    """One implementation of the selective scan and of the causal convolution.

    Tensors may have any strides and their floating types may differ. Results have the type and the
    memory layout of ``torch.empty_like`` of the input that they belong to, as the operators promise to the compiler.
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
        """Shape of the tensor that the forward pass keeps for the backward pass; some size is 0 for nothing."""

    @abstractmethod
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Output like ``u``, last state ``(batch, channels, states)``, and what ``save`` keeps (else empty)."""

    @abstractmethod
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        """Gradients of u, delta, A, B, C, D, z and delta_bias; None where the input is None."""

    @abstractmethod
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        """Causal depthwise convolution, output like ``x``."""

    @abstractmethod
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of x, weight and bias; None where the input is None."""


def like(value: Tensor, template: Tensor) -> Tensor:
    """``value`` in the type and memory layout of ``torch.empty_like(template)``."""
    result = torch.empty_like(template)
    return result.copy_(value)
