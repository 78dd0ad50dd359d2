"""The native CPU backend: C++ kernels, multi-threaded and vectorised, built when mmmap is installed."""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from mmmap.ops.backends.base import BidirectionalInputs, ConvGrads, ScanBackend, ScanGrads, ScanInputs, stacked_like

BUILD_HINT = 'build it with `pip install --no-build-isolation -e .` where a C++ compiler is installed'
# What the operators of the compiled library look like; the library tells the same number.
_INTERFACE = 2


@functools.cache
def _load() -> str | None:
    """Load the compiled library once; the reason why it cannot be used, or None."""
    library = Path(__file__).parent.parent / f'_native{sysconfig.get_config_var("EXT_SUFFIX")}'
    if not library.exists():
        return f'the native kernels are not built; {BUILD_HINT}'
    try:
        torch.ops.load_library(str(library))
    except OSError as error:  # Built against another torch, most often.
        return f'{library.name} cannot be loaded ({str(error).splitlines()[0]}); {BUILD_HINT}'
    found = getattr(torch.ops.mmmap_native, 'interface', lambda: 1)()
    if found != _INTERFACE:
        return f'{library.name} was built from other sources (interface {found}, needed {_INTERFACE}); {BUILD_HINT}'
    return None


@functools.cache
def _chunk_and_pad() -> tuple[int, int]:
    return torch.ops.mmmap_native.chunk(), torch.ops.mmmap_native.lane_pad()


class NativeBackend(ScanBackend):
    """The C++ kernels of ``mmmap/ops/csrc``."""

    name = 'native'

    @override
    def unavailable(self) -> str | None:
        return _load()

    @override
    def unsupported(self, device: str, dtype: torch.dtype) -> str | None:
        return None if device == 'cpu' else f'the tensors are on {device}, the native kernels run on cpu'

    @override
    def saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        chunk, pad = _chunk_and_pad()
        batch, channels, length = u.shape
        groups, states = B.shape[1:3]
        padded = groups * ((channels // groups + pad - 1) // pad) * pad
        return batch, (length + chunk - 1) // chunk - 1, padded * states

    @override
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.mmmap_native.scan_forward.default(*inputs, save)

    @override
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        return torch.ops.mmmap_native.scan_backward.default(dout, dlast, saved, *inputs)

    @override
    def bidirectional_forward(self, inputs: BidirectionalInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.mmmap_native.bidirectional_forward.default(*inputs, save)

    @override
    def bidirectional_backward(self, dout: Tensor, states: Tensor, y: Tensor, inputs: BidirectionalInputs) -> ScanGrads:
        return torch.ops.mmmap_native.bidirectional_backward.default(dout, states, y, *inputs)

    @override
    def bidirectional_conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        out = stacked_like(x)
        torch.ops.mmmap_native.bidirectional_conv_forward.default(out, x, weight, bias, silu)
        return out

    @override
    def bidirectional_conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool
    ) -> ConvGrads:
        return torch.ops.mmmap_native.bidirectional_conv_backward.default(dout, x, weight, bias, silu)

    @override
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        return torch.ops.mmmap_native.conv_forward.default(x, weight, bias, silu, reverse)

    @override
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> ConvGrads:
        return torch.ops.mmmap_native.conv_backward.default(dout, x, weight, bias, silu, reverse)
