"""The Triton backend: launches of the GPU kernels in ``triton_*.py``, which are compiled on their first use.

Nothing waits for the GPU, so that the launches can be captured in a CUDA graph. With ``TRITON_INTERPRET=1`` in the
environment the kernels run on the CPU, slowly, for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from typing_extensions import override

from mmmap.ops.backends.base import (
    BidirectionalInputs,
    ConvGrads,
    ScanGrads,
    ScanInputs,
    compute_dtype,
    copy_like,
    stacked_like,
)
from mmmap.ops.backends.fallback import TorchBackend
from mmmap.ops.backends.triton_tuning import Block, segments_for, tuning_for

# The kernels use tuples of tensors.
_LOWEST_TRITON = '3.3'
# Wider convolutions run in plain torch: the kernels unroll the taps.
_MOST_TAPS = 8


@functools.cache  # Asked at each call of an operator.
def _package_problem() -> str | None:
    """Why the installed Triton cannot be used, or None."""
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed (torch for CUDA brings it)'
    try:
        import triton
    except Exception as error:  # Broken installations raise many kinds of errors.
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f'triton cannot be imported ({first_line})'
    if TorchVersion(triton.__version__) < _LOWEST_TRITON:
        return f'triton {triton.__version__} is too old, the kernels need {_LOWEST_TRITON} (torch 2.7 brings it)'
    return None


def _interpreted() -> bool:
    return os.environ.get('TRITON_INTERPRET') == '1'


def _guard(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, which need not be the one of the tensors."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _strides(x: Tensor | None, axes: int) -> tuple[int, ...]:
    return (0,) * axes if x is None else x.stride()


def _plain(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _saved_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the kept states, bfloat16 if the inputs are."""
    return dtype if dtype == torch.bfloat16 else compute_dtype(dtype)


class _Scan:
    """The launches of one scan, in one direction or in both; ``u`` is ``(batch, directions, channels, length)``."""

    def __init__(self, inputs: ScanInputs | BidirectionalInputs):
        import triton.language as tl

        from mmmap.ops.backends import triton_layout, triton_scan, triton_scan_backward

        self.around, self.kernels, self.gradients = triton_layout, triton_scan, triton_scan_backward
        if isinstance(inputs, BidirectionalInputs):
            u, delta, A, B, C, D, _, bias, softplus = inputs
            reverse = False
            B, C = B.unsqueeze(2), C.unsqueeze(2)
        else:
            u, delta, A, B, C, D, _, bias, softplus, reverse = inputs
            u, delta, B, C = (x.unsqueeze(1) for x in (u, delta, B, C))
        self.u, self.delta, self.B, self.C = u, delta, B, C
        self.A, self.D, self.bias = A.mT.contiguous(), _plain(D), _plain(bias)
        self.batch, self.directions, self.channels, self.length = u.shape
        self.groups, self.states = B.shape[2:4]
        self.rows = self.batch * self.directions
        self.tuning = tuning_for(self.length)
        self.chunks = -(-self.length // self.tuning.chunk)
        self.dtype, self.saved_dtype = compute_dtype(u.dtype), _saved_dtype(u.dtype)
        self.padded = 1 << (self.states - 1).bit_length()
        self.options = dict(
            DIRECTIONS=self.directions,
            N=self.states,
            T=self.tuning.chunk,
            HAS_BIAS=bias is not None,
            SOFTPLUS=softplus,
            CT=tl.float64 if self.dtype == torch.float64 else tl.float32,
        )
        self.weight_options = dict(
            DIRECTIONS=self.directions, N=self.states, NP=self.padded, BL=32, CT=self.options['CT']
        )
        self.reverse = int(reverse)

    def empty(self, *shape: int) -> Tensor:
        return self.u.new_empty(shape, dtype=self.dtype)

    def plan(self, block: Block) -> tuple[tuple[int, int], tuple[int, ...], int]:
        """Grid, the sizes that the kernels of a scan take, and blocks of a group."""
        group = self.channels // self.groups
        blocks = -(-group // block.channels)
        programs = self.rows * self.groups * blocks
        segments, size = segments_for(self.tuning, programs, self.chunks, self.u.device)
        sizes = (self.length, self.channels, group, blocks, self.chunks, size, self.reverse, self.rows, 1)
        return (programs, segments), sizes, blocks

    def by_chunks(self, *shape: int) -> Tensor:
        """Empty memory for the weights that go in and out, those of a chunk and state side by side."""
        return self.empty(*shape, self.rows, self.groups, self.chunks, self.states, 2, self.tuning.chunk)

    def pack(self, B: Tensor, C: Tensor, chunk: int) -> None:
        """Put the weights into ``B`` and ``C`` as the kernels read them, for ``chunk`` see :func:`pack_kernel`."""
        steps = self.chunks * self.tuning.chunk
        with _guard(self.u):
            self.around.pack_kernel[self.spans(steps)](
                self.B, self.C, B, C, *self.B.stride(), *self.C.stride(), self.length, steps, self.groups, self.reverse,
                T=chunk, **self.weight_options,
            )  # fmt: skip

    def unpack(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of partial gradients, of shape ``(blocks, *by_chunks().shape)``, like the weights."""
        part_B, part_C = parts.unbind(-2)
        dB, dC = torch.empty_like(self.B), torch.empty_like(self.C)
        steps = self.chunks * self.tuning.chunk
        with _guard(self.u):
            self.around.unpack_kernel[self.spans(steps)](
                part_B, part_C, dB, dC, *dB.stride(), *dC.stride(), self.length, steps, self.groups, self.reverse,
                len(parts), parts[0].numel(), T=self.tuning.chunk, **self.weight_options,
            )  # fmt: skip
        return dB, dC

    def spans(self, steps: int) -> tuple[int]:
        """Grid of the kernels that go over the weights."""
        return (self.rows * self.groups * -(-steps // self.weight_options['BL']),)

    def starts(
        self, grid, sizes, block: Block, x: Tensor, weight: Tensor, z: Tensor | None, scale: float, backward: bool,
        initial: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """State before each segment, or gradient of the state after it: (segments, rows, states, channels)."""
        segments = grid[1]
        state = self.empty(segments, self.rows, self.states, self.channels)
        total = self.empty(segments, self.rows, self.channels)
        self.kernels.segment_kernel[grid](
            x, self.delta, self.A, weight, z, self.bias, state, total,
            *x.stride(), *self.delta.stride(), *weight.stride(), *_strides(z, 3), *sizes,
            scale, backward, NP=self.padded, HAS_Z=z is not None, **block.launch(), **self.options,
        )  # fmt: skip
        self.kernels.chain_kernel[(-(-self.channels // 32), self.rows)](
            state, total, self.A, self.channels, segments, self.rows,
            BACKWARD=backward, DIRECTIONS=self.directions, N=self.states, NP=self.padded, BD=32,
            HAS_INITIAL=initial is not None, CT=self.options['CT'], initial=initial, num_warps=1,
        )  # fmt: skip
        return state

    def forward(self, out: Tensor, z: Tensor | None, save: bool, last: Tensor | None) -> Tensor:
        """Fill ``out``, laid out like ``u``, and the states ``last`` ``(rows, channels, states)``; the kept states."""
        block = self.tuning.forward
        grid, sizes, _ = self.plan(block)
        B, C = (self.empty(self.rows, self.groups, self.chunks * self.tuning.chunk, self.padded) for _ in range(2))
        self.pack(B, C, 0)
        saved = self.u.new_empty(self.saved_shape(self.u, self.B) if save else 0, dtype=self.saved_dtype)
        with _guard(self.u):
            start = None
            if grid[1] > 1:
                start = self.starts(grid, sizes, block, self.u, self.B, None, 1.0, False, None)
            self.kernels.forward_kernel[grid](
                self.u, self.delta, self.A, B, C, self.D, z, self.bias, out, saved, last, start,
                *self.u.stride(), *self.delta.stride(), *_strides(z, 3), *out.stride(), *sizes,
                NP=self.padded, HAS_D=self.D is not None, HAS_Z=z is not None, SAVE=save,
                LAST=last is not None, SEGMENTED=start is not None, **block.launch(), **self.options,
            )  # fmt: skip
        return saved

    def backward(
        self, dout: Tensor, z: Tensor | None, dlast: Tensor | None, saved: Tensor, want_dz: bool, scale: float
    ) -> tuple[Any, ...]:
        """Gradients of u, delta, A, B, C, D, z (if wanted) and bias; shapes with directions and groups."""
        u, delta, rows = self.u, self.delta, self.rows
        block = self.tuning.backward
        grid, sizes, blocks = self.plan(block)
        segments = grid[1]
        du, ddelta = (torch.empty_like(x) for x in (u, delta))
        dz = torch.empty_like(z) if z is not None and want_dz else None
        dA = self.empty(segments, rows, self.states, self.channels)
        weights, parts = self.by_chunks(), self.by_chunks(blocks)
        self.pack(weights.select(-2, 0), weights.select(-2, 1), self.tuning.chunk)
        dD, dbias = (None if x is None else self.empty(segments, rows, self.channels) for x in (self.D, self.bias))
        with _guard(u):
            if segments > 1:
                shaped = dout.unsqueeze(1).expand(-1, self.directions, -1, -1)
                dlast = None if dlast is None else dlast.contiguous()
                carry = self.starts(grid, sizes, block, shaped, self.C, z, scale, True, dlast)
            else:
                carry = self.empty(1, rows, self.states, self.channels)
                if dlast is not None:
                    carry[0].copy_(dlast.transpose(1, 2))
            self.gradients.backward_kernel[grid](
                dout, u, delta, self.A, weights, self.D, z, self.bias, saved, carry,
                du, ddelta, dA, parts, dD, dz, dbias,
                *dout.stride(), *u.stride(), *delta.stride(), *_strides(z, 3),
                *du.stride(), *ddelta.stride(), *_strides(dz, 3), *sizes,
                scale, HAS_D=self.D is not None, HAS_Z=z is not None, HAS_DZ=want_dz,
                HAS_CARRY=segments > 1 or dlast is not None, **block.launch(), **self.options,
            )  # fmt: skip

        def over_batch(x: Any) -> Any:
            """Sums of ``(segments, rows, ...)``, as ``(directions, ...)``."""
            return None if x is None else x.unflatten(1, (self.batch, self.directions)).sum((0, 1))

        return du, ddelta, over_batch(dA).mT, *self.unpack(parts), over_batch(dD), dz, over_batch(dbias)

    @staticmethod
    def saved_shape(u: Tensor, B: Tensor) -> tuple[int, ...]:
        """``u`` with a dimension of directions; of ``B`` the last but one dimension is the states."""
        batch, directions, channels, length = u.shape
        return batch, directions, -(-length // tuning_for(length).chunk) - 1, B.shape[-2], channels


def _like(value: Tensor | None, template: Tensor | None) -> Any:
    return None if value is None or template is None else copy_like(value.reshape(template.shape), template)


class TritonBackend(TorchBackend):
    """Triton kernels; plain torch for convolutions of more than eight taps."""

    name = 'triton'

    @override
    def unavailable(self) -> str | None:
        if (reason := _package_problem()) is not None:
            return reason
        if not torch.cuda.is_available() and not _interpreted():
            return 'torch sees no CUDA device to run triton kernels on'
        return None

    @override
    def unsupported(self, device: str, dtype: torch.dtype) -> str | None:
        if device == 'cuda' or (device == 'cpu' and _interpreted()):
            return None
        return f'the tensors are on {device}, triton kernels run on cuda'

    @override
    def saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        return _Scan.saved_shape(u.unsqueeze(1), B)

    @override
    def saved_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return _saved_dtype(dtype)

    @override
    def scan_forward(self, inputs: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        scan, out = _Scan(inputs), torch.empty_like(inputs.u)
        last = scan.empty(scan.rows, scan.channels, scan.states)
        return out, last, scan.forward(out.unsqueeze(1), inputs.z, save, last)

    @override
    def scan_backward(self, dout: Tensor, dlast: Tensor | None, saved: Tensor, inputs: ScanInputs) -> ScanGrads:
        scan = _Scan(inputs)
        du, ddelta, dA, dB, dC, dD, dz, dbias = scan.backward(
            dout, inputs.z, dlast, saved, want_dz=inputs.z is not None, scale=1.0
        )
        du, ddelta, dB, dC = (x.squeeze(1) for x in (du, ddelta, dB, dC))
        return du, ddelta, _like(dA, inputs.A), dB, dC, _like(dD, inputs.D), dz, _like(dbias, inputs.delta_bias)

    @override
    def bidirectional_saved_shape(self, u: Tensor, B: Tensor) -> tuple[int, ...]:
        return _Scan.saved_shape(u, B)

    @override
    def bidirectional_forward(self, inputs: BidirectionalInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        scan = _Scan(inputs)
        u, z = inputs.u, inputs.z
        y, out = torch.empty_like(u), torch.empty_like(u[:, 0])
        saved = scan.forward(y, None, save, None)
        keep = save and z is not None
        total = torch.empty_like(out) if keep else out.new_empty(0)
        tiles, tile = _elementwise(out)
        with _guard(u):
            scan.around.gate_forward_kernel[(tiles,)](
                y, z, out, total, *y.stride(), *_strides(z, 3), *out.stride(), scan.length, scan.channels,
                HAS_Z=z is not None, KEEP=keep, CT=scan.options['CT'], **tile,
            )  # fmt: skip
        return out, saved, total

    @override
    def bidirectional_backward(self, dout: Tensor, states: Tensor, y: Tensor, inputs: BidirectionalInputs) -> ScanGrads:
        scan = _Scan(inputs)
        z, dz, dy, scale = inputs.z, None, dout, 0.5
        if z is not None:
            dz, dy, scale = torch.empty_like(z), torch.empty_like(dout), 1.0
            tiles, tile = _elementwise(z)
            with _guard(z):
                scan.around.gate_backward_kernel[(tiles,)](
                    dout, y, z, dz, dy, *dout.stride(), *y.stride(), *z.stride(), *dz.stride(), *dy.stride(),
                    scan.length, scan.channels, CT=scan.options['CT'], **tile,
                )  # fmt: skip
        du, ddelta, dA, dB, dC, dD, _, dbias = scan.backward(dy, None, None, states, want_dz=False, scale=scale)
        dB, dC = dB.squeeze(2), dC.squeeze(2)
        return du, ddelta, _like(dA, inputs.A), dB, dC, _like(dD, inputs.D), dz, _like(dbias, inputs.delta_bias)

    @override
    def conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
        if weight.shape[1] > _MOST_TAPS:
            return super().conv_forward(x, weight, bias, silu, reverse)
        out = torch.empty_like(x)
        _conv_forward(x, weight.unsqueeze(0), bias, silu, reverse, out.unsqueeze(1))
        return out

    @override
    def conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
    ) -> ConvGrads:
        if weight.shape[1] > _MOST_TAPS:
            return super().conv_backward(dout, x, weight, bias, silu, reverse)
        dx, dweight, dbias = _conv_backward(dout.unsqueeze(1), x, weight.unsqueeze(0), bias, silu, reverse)
        return dx, _like(dweight, weight), _like(dbias, bias)

    @override
    def bidirectional_conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        if weight.shape[2] > _MOST_TAPS:
            return super().bidirectional_conv_forward(x, weight, bias, silu)
        out = stacked_like(x)
        _conv_forward(x, weight, bias, silu, False, out)
        return out

    @override
    def bidirectional_conv_backward(
        self, dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool
    ) -> ConvGrads:
        if weight.shape[2] > _MOST_TAPS:
            return super().bidirectional_conv_backward(dout, x, weight, bias, silu)
        dx, dweight, dbias = _conv_backward(dout, x, weight, bias, silu, False)
        return dx, _like(dweight, weight), _like(dbias, bias)


def _elementwise(x: Tensor) -> tuple[int, dict[str, int]]:
    """Programs and tile of an elementwise kernel over ``(batch, channels, length)``."""
    tuning = tuning_for(x.shape[2])
    tiles = x.shape[0] * -(-x.shape[1] // tuning.conv.channels) * -(-x.shape[2] // tuning.conv_steps)
    return tiles, dict(BL=tuning.conv_steps, **tuning.conv.launch())


def _conv_options(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> dict[str, object]:
    import triton.language as tl

    return dict(
        DIRECTIONS=weight.shape[0],
        K=weight.shape[2],
        HAS_BIAS=bias is not None,
        SILU=silu,
        CT=tl.float64 if x.dtype == torch.float64 else tl.float32,
    )


def _conv_forward(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool, out: Tensor) -> None:
    """Fill ``out`` (batch, directions, channels, length) for weights ``(directions, channels, taps)``."""
    from mmmap.ops.backends.triton_conv import conv_forward_kernel

    tiles, tile = _elementwise(x)
    with _guard(x):
        conv_forward_kernel[(tiles,)](
            x, weight.contiguous(), weight if bias is None else bias.contiguous(), out, *x.stride(), *out.stride(),
            x.shape[2], x.shape[1], int(reverse), **_conv_options(x, weight, bias, silu), **tile,
        )  # fmt: skip


def _conv_backward(
    dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
) -> ConvGrads:
    """Gradients of x, weight ``(directions, channels, taps)`` and bias ``(directions, channels)``, None without one."""
    from mmmap.ops.backends.triton_conv import conv_backward_kernel

    (directions, channels, taps), dtype = weight.shape, compute_dtype(x.dtype)
    tuning = tuning_for(x.shape[2])
    steps, block = tuning.conv_backward_steps, tuning.conv_backward
    spans = -(-x.shape[2] // steps)
    tiles = x.shape[0] * spans
    dx = torch.empty_like(x)
    dweight = x.new_empty((directions, taps, tiles, channels), dtype=dtype)
    dbias = x.new_empty((directions, tiles, channels), dtype=dtype)
    with _guard(x):
        conv_backward_kernel[(tiles * -(-channels // block.channels),)](
            dout, x, weight.contiguous(), weight if bias is None else bias.contiguous(), dx, dweight, dbias,
            *dout.stride(), *x.stride(), *dx.stride(), x.shape[2], channels, int(reverse), spans,
            BL=steps, **_conv_options(x, weight, bias, silu), **block.launch(),
        )  # fmt: skip
    return dx, dweight.sum(2).transpose(1, 2), None if bias is None else dbias.sum(1)
