"""The selective scan of Mamba (S6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mmmap.ops.backend_operator import define_backend_operator
from mmmap.ops.backends import REFERENCE, resolve_backend
from mmmap.ops.backends.base import ScanBackend, ScanGrads, ScanInputs, compute_dtype
from mmmap.ops.backends.reference import selective_scan_reference
from mmmap.ops.checks import check_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    reverse: bool = False,
    backend: str = 'auto',
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan of Mamba (arXiv 2312.00752).

    With ``dt = delta + delta_bias``, or the softplus of that, for every channel and state::

        h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t],    y[t] = sum over states of C[t] h[t] + D u[t]
        out[t] = y[t] * silu(z[t])

    States and sums are in float32 (float64 if ``u`` is float64). The types of the inputs may differ, as under autocast;
    each gradient has the type of its input. Strides are free; on a CPU, channels adjacent in memory are fastest.
    A compiled function keeps the backend that was chosen when it was compiled.

    Args:
        u: Input ``(batch, channels, length)``.
        delta: Step size, shape of ``u``.
        A: Decay rates ``(channels, states)``, real.
        B: Input weights ``(batch, states, length)``, or ``(batch, groups, states, length)`` with weights for each group
            of adjacent channels.
        C: Output weights, shape of ``B``.
        D: Skip weights ``(channels,)``.
        z: Gate, shape of ``u``.
        delta_bias: ``(channels,)``, added to ``delta`` before softplus.
        delta_softplus: Whether to apply softplus to ``delta`` (the identity above 20).
        return_last_state: Whether to return the last state too.
        reverse: Whether the scan runs from the last position to the first. Only ``mamba_ssm`` makes flipped copies.
        backend: ``'auto'`` or a name from :func:`mmmap.ops.available_backends`.

    Returns:
        Output, shape and type of ``u``. With ``return_last_state`` also the state after the last step (``reverse``:
        after position 0), ``(batch, channels, states)``, differentiable.

    Raises:
        TypeError: An argument is not a real floating-point tensor.
        ValueError: A shape or device does not fit, or the backend cannot be used.
    """
    check_scan('selective_scan', u, delta, A, B, C, D, z, delta_bias)
    name = resolve_backend(backend, u.device.type, u.dtype)
    if B.dim() == 3:
        B, C = B.unsqueeze(1), C.unsqueeze(1)
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    if name == REFERENCE:
        out, last = selective_scan_reference(*inputs)
    else:
        save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs[:8] if x is not None)
        out, last = torch.ops.mmmap.selective_scan.default(*inputs, save, name)[:2]
    return (out, last) if return_last_state else out


def _forward(backend: ScanBackend, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return backend.scan_forward(ScanInputs(*args[:-1]), args[-1])


def _forward_fake(backend: ScanBackend, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    u, _, A, B, *_, save = args
    shape = backend.saved_shape(u, B) if save else (0,)
    last = u.new_empty((u.shape[0], u.shape[1], A.shape[1]), dtype=compute_dtype(u.dtype))
    return torch.empty_like(u), last, u.new_empty(shape, dtype=backend.saved_dtype(u.dtype))


def _backward(backend: ScanBackend, dout: Tensor, dlast: Tensor | None, saved: Tensor, *args: Any) -> ScanGrads:
    inputs = ScanInputs(*args)
    if saved.numel() == 0 and 0 not in backend.saved_shape(inputs.u, inputs.B):
        raise RuntimeError('selective_scan_backward: the forward pass kept no states; call it with save=True')
    return backend.scan_backward(dout, dlast, saved, inputs)


define_backend_operator(
    'selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, '
    'bool delta_softplus, bool reverse, bool save, str backend) -> (Tensor, Tensor, Tensor)',
    _forward,
    _forward_fake,
    _backward,
    received='Tensor dout, Tensor? dlast, Tensor saved',
    kept=1,
)


@register_flop_formula(torch.ops.mmmap.selective_scan)
def selective_scan_flops(u_shape, delta_shape, A_shape, B_shape, C_shape, D_shape, z_shape, *args, **kwargs) -> int:
    """Operations of a forward pass; an exponential counts as one.

    For each state: ``dt A``, its exponential, the product of ``dt u`` with B, ``a h + b`` (two), ``C h`` and its sum
    (two): 7. For each position and channel: ``dt u`` 1, the skip 2, the gate 5 (SiLU 4, product 1).
    """
    batch, channels, length = u_shape
    per_position = 7 * A_shape[1] + 1 + (2 if D_shape is not None else 0) + (5 if z_shape is not None else 0)
    return batch * channels * length * per_position


@register_flop_formula(torch.ops.mmmap.selective_scan_backward)
def selective_scan_backward_flops(
    dout_shape,
    dlast_shape,
    saved_shape,
    u_shape,
    delta_shape,
    A_shape,
    B_shape,
    C_shape,
    D_shape,
    z_shape,
    *args,
    **kwargs,
) -> int:
    """Operations of a backward pass, which computes the states again.

    For each state: 5 to compute it (7 with a gate, which needs the output), 14 for the gradients of state, B, C, A and
    step size. For each position and channel: ``dt u`` and the gradients of u and dt 5, the skip 4, the gate 10.
    """
    batch, channels, length = u_shape
    gated = z_shape is not None
    per_position = (21 if gated else 19) * A_shape[1] + 5 + (4 if D_shape is not None else 0) + (10 if gated else 0)
    return batch * channels * length * per_position
