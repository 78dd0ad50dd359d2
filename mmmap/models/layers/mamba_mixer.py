"""The bidirectional Mamba mixer of vision backbones."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import bidirectional_conv1d, bidirectional_scan, causal_conv1d, selective_scan

#: Range of the step sizes that Mamba's initialisation draws from (arXiv 2312.00752, section 3.6).
DT_MIN, DT_MAX = 1e-3, 1e-1


def _project(rows: Tensor, weight: Tensor, batch: int) -> Tensor:
    """Multiply the tokens (2, T, in) of each direction by its weight (2, out, in); T is a multiple of ``batch``."""
    weight = weight.transpose(1, 2)
    parts = math.gcd(batch, 32) if rows.is_cuda else 1
    if parts == 1:
        return torch.bmm(rows, weight)
    # The gradient of a narrow weight sums over many tokens for few outputs. Sums of parts use more of a GPU.
    return torch.matmul(rows.unflatten(1, (parts, -1)), weight[:, None]).flatten(1, 2)


class MambaMixer(nn.Module):
    """Bidirectional Mamba mixer: the mean of two selective scans (S6, arXiv 2312.00752) over one input projection.

    Each direction has its own parameters. They are stacked along a first axis of size 2 (forward, then from the last
    token to the first), so that each step is one operation for both. One gate multiplies both scans before the mean, as
    in Vim (arXiv 2401.09417) and in the released MAP code.

    Args:
        embed_dim (int): Token width C.
        d_state (int): States N per channel. Defaults to 16.
        d_conv (int): Width K of the causal convolutions. Defaults to 4.
        expand (int): The scans run on ``E = expand * embed_dim`` channels. Defaults to 2.
        scan_backend (str): Backend of scans and convolutions, see :mod:`mmmap.ops`. Defaults to 'auto'.
    """

    #: Parameters without weight decay: those that Mamba's authors exempt, and the biases, which are matrices here.
    undecayed = ('conv_bias', 'dt_proj_bias', 'A_log', 'D')
    #: Parameters whose first axis is the direction, the forward scan first.
    directed = ('conv_weight', 'conv_bias', 'x_proj_weight', 'dt_proj_weight', 'dt_proj_bias', 'A_log', 'D')
    #: See :class:`Block`.
    counted_as: ClassVar[dict[str, str]] = {
        '': 'Mamba: projections',
        'conv': 'Mamba: convolution',
        'A_log': 'Mamba: scan',
        'D': 'Mamba: scan',
        'scan': 'Mamba: scan',
    }
    kept_operators = ('mmmap.bidirectional_scan', 'mmmap.selective_scan')

    def __init__(
        self, embed_dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, scan_backend: str = 'auto'
    ) -> None:
        super().__init__()
        inner_dim = expand * embed_dim
        self.d_state = d_state
        self.dt_rank = math.ceil(embed_dim / 16)
        self.scan_backend = scan_backend
        self.in_proj = nn.Linear(embed_dim, 2 * inner_dim, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(2, inner_dim, d_conv))
        self.conv_bias = nn.Parameter(torch.empty(2, inner_dim))
        self.x_proj_weight = nn.Parameter(torch.empty(2, self.dt_rank + 2 * d_state, inner_dim))
        self.dt_proj_weight = nn.Parameter(torch.empty(2, inner_dim, self.dt_rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(2, inner_dim))
        self.A_log = nn.Parameter(torch.empty(2, inner_dim, d_state))
        self.D = nn.Parameter(torch.ones(2, inner_dim))
        self.out_proj = nn.Linear(inner_dim, embed_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the scans; the step sizes as a linear layer, but see :meth:`reset_step_sizes`."""
        bound = self.conv_weight.shape[-1] ** -0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        nn.init.uniform_(self.conv_bias, -bound, bound)
        for weight in (*self.x_proj_weight, *self.dt_proj_weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.dt_proj_bias)
        with torch.no_grad():
            states = torch.arange(1, self.d_state + 1, dtype=torch.float32)
            self.A_log.copy_(states.log().expand_as(self.A_log))

    def reset_step_sizes(self) -> None:
        """Draw the step sizes as in Mamba: log-uniform in [1e-3, 1e-1] at a zero input."""
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj_weight, -bound, bound)
        with torch.no_grad():
            dt = torch.empty_like(self.dt_proj_bias).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
            self.dt_proj_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) == dt

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Mix a sequence of tokens, shape (B, L, C) in and out.

        With ``causal`` only the forward scan runs, so that no token sees a later one. The parameters of the other
        direction get zero gradients.
        """
        if causal:
            x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
            return self.out_proj(self._scan(x, z, direction=0).transpose(1, 2))
        x, z = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(self._scan_both(*self._scan_inputs(x), D=self.D, z=z.transpose(1, 2)).transpose(1, 2))

    def _scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The inputs of both scans from projected tokens (B, L, E): u and delta (B, 2, E, L), B and C."""
        batch, length, inner_dim = x.shape
        # The operators take (B, 2, E, L). They are fast on views that keep the channels of a token side by side.
        u = bidirectional_conv1d(
            x.transpose(1, 2), self.conv_weight, self.conv_bias, activation='silu', backend=self.scan_backend
        )
        rows = u.permute(1, 0, 3, 2).reshape(2, batch * length, inner_dim)
        dt, B, C = _project(rows, self.x_proj_weight, batch).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = _project(dt, self.dt_proj_weight, batch)
        delta, B, C = (t.unflatten(1, (batch, length)).permute(1, 0, 3, 2) for t in (delta, B, C))
        return u, delta, B, C

    def _scan_both(
        self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """The mean of both scans, shape (B, E, L)."""
        return bidirectional_scan(
            u,
            delta,
            -torch.exp(self.A_log),
            B,
            C,
            D=D,
            z=z,
            delta_bias=self.dt_proj_bias,
            delta_softplus=True,
            backend=self.scan_backend,
        )

    def response(self, x: Tensor, position: int) -> Tensor:
        """The weights (B, L) of all tokens (B, L, C) in the scans at one position.

        Given its step sizes, B and C, a selective scan is linear in its input: in each channel
        ``y[i] = sum over j of a[i, j] u[j] + D u[i]``. Ali, Zimerman and Wolf (arXiv 2403.01590) call the matrix ``a``
        the hidden attention of Mamba: ``a[i, j] = C[i] exp(A (dt[j+1] + ... + dt[i])) dt[j] B[j]`` for j up to i, and
        likewise from the other end for the reverse scan. The result is the row of the token in the mean of both
        directions: absolute values, averaged over the channels, and not normalised. The skip D, the gate and the
        convolution are left out.
        """
        with torch.no_grad():
            u, *others = self._scan_inputs(self.in_proj(x).chunk(2, dim=-1)[0])
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            y = self._scan_both(u, *others)
            # Samples and channels do not mix, so one backward pass gives the row for all of them.
            (row,) = torch.autograd.grad(y[..., position].sum(), u)
        return row.abs().sum(1).mean(1)

    def _scan(self, x: Tensor, z: Tensor, direction: int) -> Tensor:
        """One gated scan from the first to the last token with the parameters of a direction, (B, E, L) in and out."""
        conv_weight, conv_bias = self.conv_weight[direction], self.conv_bias[direction]
        u = causal_conv1d(x, conv_weight, conv_bias, activation='silu', backend=self.scan_backend)
        dt, B, C = F.linear(u.transpose(1, 2), self.x_proj_weight[direction]).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        delta = F.linear(dt, self.dt_proj_weight[direction])
        scanned: Any = selective_scan(
            u,
            delta.transpose(1, 2),
            -torch.exp(self.A_log[direction]),
            B.transpose(1, 2),
            C.transpose(1, 2),
            D=self.D[direction],
            z=z,
            delta_bias=self.dt_proj_bias[direction],
            delta_softplus=True,
            backend=self.scan_backend,
        )
        return scanned
