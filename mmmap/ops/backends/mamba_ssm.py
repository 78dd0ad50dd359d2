"""An alternative CUDA backend: the public functions of the packages mamba-ssm and causal-conv1d.

Both are imported on their first use. A reverse scan makes flipped copies. Inputs of mixed types are cast to float32.
The backward pass runs the forward kernel again: the functions keep what they need in an autograd graph, which an
operator cannot return.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from mmmap.ops.backends.base import ConvGrads, ScanGrads, ScanInputs, copy_like
from mmmap.ops.backends.fallback import TorchBackend

# Widths that the kernels of causal-conv1d are compiled for.
_CONV_TAPS = (2, 3, 4)


@functools.cache
def _find(module: str, function: str) -> Callable | str:
    """The function, or why it cannot be imported, in one line."""
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # Broken CUDA packages raise many kinds of errors.
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f'{module}.{function} cannot be imported ({first_line}); see "With a GPU" in docs/en/get_started.md'


def _scan_function() -> Callable | str:
    return _find('mamba_ssm.ops.selective_scan_interface', 'selective_scan_fn')


def _scan(inputs: ScanInputs, *tensors: Tensor | None, **options: bool) -> Any:
    function: Any = _scan_function()
    return function(*tensors, inputs.delta_softplus, **options)


@functools.cache
def _conv_function() -> Callable | None:
    function = _find('causal_conv1d', 'causal_conv1d_fn')
    if isinstance(function, str):
        warnings.warn(f'mmmap: the causal convolution runs in plain torch, since {function}', stacklevel=2)
        return None
    return function


def _kernel_inputs(inputs: ScanInputs) -> list[Tensor | None]:
    """What the kernels take: sequences of one type, float32 weights, the first step first."""
    u, delta, A, B, C, D, z, delta_bias, _, reverse = inputs
    types = {x.dtype for x in (u, delta, B, C, z) if x is not None}
    dtype = types.pop() if len(types) == 1 else torch.float32

    def sequence(x: Tensor | None) -> Tensor | None:
        return None if x is None else (x.flip(-1) if reverse else x).to(dtype)

    def weight(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(torch.float32)

    step = sequence(u), sequence(delta), weight(A), sequence(B), sequence(C)
    return [*step, weight(D), sequence(z), weight(delta_bias)]


def _conv_inputs(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> list[Tensor | None]:
    """What the kernel takes; adjacent channels need their number and the strides in multiples of 8."""
    x = x.flip(-1) if reverse else x
    if x.stride(2) != 1 and (x.shape[1] % 8 or x.stride(0) % 8 or x.stride(2) % 8):
        x = x.contiguous()
    return [x, weight.to(torch.float32), None if bias is None else bias.to(torch.float32)]


def _gradients(function: Callable[..., Tensor], arguments: list[Tensor | None], dout: Tensor) -> list[Any]:
    """Gradients of one autograd function, which is all that torch records inside an operator; None for a None."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in arguments]
    with torch.enable_grad():
        out = function(*leaves)
    grads = iter(torch.autograd.grad(out, [x for x in leaves if x is not None], dout.to(out.dtype)))
    return [None if x is None else next(grads) for x in leaves]


class MambaSsmBackend(TorchBackend):
    """The scan of mamba-ssm, and the convolution of causal-conv1d or, for other widths, of plain torch."""

    name = 'mamba_ssm'

    @override
    def unavailable(self) -> str | None:
        if not torch.cuda.is_available():
            return 'torch sees no CUDA device'
        found = _scan_function()
        return found if isinstance(found, str) else None

    @override
    def unsupported(self, device: str, dtype: torch.dtype) -> str | None:
        if device != 'cuda':
            return f'the tensors are on {device}, the kernels of mamba-ssm run on cuda'
        return 'the kernels of mamba-ssm have no float64' if dtype == torch.float64 else None

    @override
    def saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        return (0,)

    @override
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        out, last = _scan(inputs, *_kernel_inputs(inputs), return_last_state=True)
        out = copy_like(out.flip(-1) if inputs.reverse else out, inputs.u)
        # The last state is a strided view into what the kernel keeps.
        saved = out.new_empty(0, dtype=last.dtype)
        return out, last.to(torch.float32).clone(memory_format=torch.contiguous_format), saved

    @override
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        if dlast is not None:
            raise RuntimeError("selective_scan: mamba_ssm has no gradient of the last state; use backend='torch'")
        reverse = inputs.reverse
        grads = _gradients(functools.partial(_scan, inputs), _kernel_inputs(inputs), dout.flip(-1) if reverse else dout)
        of_sequences = (True, True, False, True, True, False, True, False)
        return tuple(
            None if x is None or grad is None else copy_like(grad.flip(-1) if reverse and flipped else grad, x)
            for x, grad, flipped in zip(inputs[:8], grads, of_sequences, strict=True)
        )

    @override
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        function = _conv_function()
        if function is None or weight.shape[1] not in _CONV_TAPS:
            return super().conv_forward(x, weight, bias, silu, reverse)
        out = function(*_conv_inputs(x, weight, bias, reverse), activation='silu' if silu else None)
        return copy_like(out.flip(-1) if reverse else out, x)

    @override
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> ConvGrads:
        function = _conv_function()
        if function is None or weight.shape[1] not in _CONV_TAPS:
            return super().conv_backward(dout, x, weight, bias, silu, reverse)
        dx, dweight, dbias = _gradients(
            functools.partial(function, activation='silu' if silu else None),
            _conv_inputs(x, weight, bias, reverse),
            dout.flip(-1) if reverse else dout,
        )
        dx = copy_like(dx.flip(-1) if reverse else dx, x)
        return dx, copy_like(dweight, weight), None if bias is None else copy_like(dbias, bias)
