"""The two operators in plain torch, one time step after another: to be read, and to test the backends against.

These are no custom operators, so that autograd differentiates these lines. Memory is
O(batch * channels * length * states).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmap.ops.backends.base import compute_dtype


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The scan of :func:`mmmap.ops.selective_scan`; ``B`` and ``C`` are ``(batch, groups, states, length)``.

    Returns:
        Output like ``u`` and last state ``(batch, channels, states)`` in the computing type.
    """
    dtype = compute_dtype(u.dtype)
    dt, inputs, A = delta.to(dtype), u.to(dtype), A.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        dt = F.softplus(dt, threshold=20)
    # (batch, groups, channels of a group, ...): B and C broadcast over the channels of their group.
    groups = (B.shape[1], u.shape[1] // B.shape[1])
    A = A.unflatten(0, groups)
    state = u.new_zeros((u.shape[0], *A.shape), dtype=dtype)
    # unbind, not indexing: the backward of every x[..., t] would fill a zero tensor of the size of x.
    sequences = dt.unflatten(1, groups), inputs.unflatten(1, groups), B.to(dtype), C.to(dtype)
    steps = list(zip(*(x.unbind(-1) for x in sequences), strict=True))
    outputs = []
    for dt_t, u_t, B_t, C_t in reversed(steps) if reverse else steps:
        state = torch.exp(dt_t.unsqueeze(-1) * A) * state + (dt_t * u_t).unsqueeze(-1) * B_t.unsqueeze(2)
        outputs.append((state @ C_t.unsqueeze(-1)).squeeze(-1))
    y = torch.stack(outputs[::-1] if reverse else outputs, dim=-1).flatten(1, 2)
    if D is not None:
        y = y + D.to(dtype)[:, None] * inputs
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype), state.flatten(1, 2)


def causal_conv1d_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False, reverse: bool = False
) -> Tensor:
    """The convolution of :func:`mmmap.ops.causal_conv1d`."""
    dtype = compute_dtype(x.dtype)
    taps = weight.to(dtype)[:, None]
    past = weight.shape[1] - 1
    padded = F.pad(x.to(dtype), (0, past) if reverse else (past, 0))
    y = F.conv1d(
        padded, taps.flip(-1) if reverse else taps, None if bias is None else bias.to(dtype), groups=x.shape[1]
    )
    return (F.silu(y) if silu else y).to(x.dtype)
