"""The bidirectional Mamba mixer of vision backbones."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import bidirectional_conv1d, bidirectional_scan, causal_conv1d, selective_scan

#: Range of the step sizes that Mamba's initialisation draws from (arXiv 2312.00752, section 3.6).
DT_MIN, DT_MAX = 1e-3, 1e-1


def _project(rows: Tensor, weight: Tensor, batch: int) -> Tensor:
    """Each direction's tokens (2, T, in) by its weight (2, out, in); T is a multiple of ``batch``."""
    weight = weight.transpose(1, 2)
    parts = math.gcd(batch, 32) if rows.is_cuda else 1
    if parts == 1:
        return torch.bmm(rows, weight)
    # The gradient of a narrow weight is a sum over all tokens for few outputs. As sums of parts it fills a GPU.
    return torch.matmul(rows.unflatten(1, (parts, -1)), weight[:, None]).flatten(1, 2)


class MambaMixer(nn.Module):
    """Bidirectional Mamba mixer: two selective scans over one input projection, averaged.

    Both directions have parameters of their own, stacked along a first axis of size 2 (forward, then from the last
    token to the first), so that each step of a mixer is one operation for both. They are gated before the average, as
    in Vim (arXiv 2401.09417) and in the released MAP code, by one gate; the state-space model is Mamba's S6 (arXiv
    2312.00752).

    Args:
        embed_dim (int): Token width C.
        d_state (int): States N per channel. Defaults to 16.
        d_conv (int): Width K of the causal convolutions. Defaults to 4.
        expand (int): The scans run on ``E = expand * embed_dim`` channels. Defaults to 2.
        scan_backend (str): Backend of :func:`mmmap.ops.bidirectional_scan` and
            :func:`mmmap.ops.bidirectional_conv1d`. Defaults to 'auto'.
    """

    #: Parameters that weight decay leaves alone: those that Mamba's authors exempt, and biases, here matrices.
    undecayed = ('conv_bias', 'dt_proj_bias', 'A_log', 'D')
    #: Parameters with one set for each direction along their first axis, the forward scan's first.
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
        """Draw what belongs to the scans; the step sizes as a linear layer's, see :meth:`reset_step_sizes`."""
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
        """Draw Mamba's step sizes: log-uniform in [1e-3, 1e-1] at a zero input."""
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj_weight, -bound, bound)
        with torch.no_grad():
            dt = torch.empty_like(self.dt_proj_bias).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
            self.dt_proj_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) == dt

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Mix a sequence of tokens.

        Args:
            x (Tensor): Tokens, shape (B, L, C).
            causal (bool): Scan forward only: no token sees a later one, and the parameters of the other direction get
                zero gradients. Defaults to False.

        Returns:
            Tensor: Mixed tokens, shape (B, L, C).
        """
        if causal:
            return self._forward_causal(x)
        x, z = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(self._scan_both(*self._scan_inputs(x), D=self.D, z=z.transpose(1, 2)).transpose(1, 2))

    def _scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the scans of both directions get of projected tokens (B, L, E): u and delta (B, 2, E, L), B and C."""
        batch, length, inner_dim = x.shape
        # The ops take (B, 2, E, L); their views keep the channels side by side, which is what they are fast on.
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
        """Both scans and their mean, (B, E, L)."""
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
        """How much the scans carry from each token to one token.

        Given its step sizes and its B and C, a selective scan is linear in its input: in each channel
        ``y[i] = sum over j of a[i, j] u[j] + D u[i]``. Ali, Zimerman and Wolf call the matrix ``a`` the hidden
        attention of Mamba (arXiv 2403.01590): ``a[i, j] = C[i] exp(A (dt[j+1] + ... + dt[i])) dt[j] B[j]`` for j up to
        i, and likewise from the other end for the reverse scan. This is the row of the token: the absolute values of
        ``a``, averaged over the channels, of both directions, which a mixer averages. The skip D, the gate and the
        convolution before the scan are left out.

        Args:
            x (Tensor): Tokens, shape (B, L, C).
            position (int): Place i of the token in the sequence.

        Returns:
            Tensor: Responses, not normalised, shape (B, L).
        """
        with torch.no_grad():
            u, *others = self._scan_inputs(self.in_proj(x).chunk(2, dim=-1)[0])
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            y = self._scan_both(u, *others)
            # Neither samples nor channels mix, so that one backward pass gives the row in all of them.
            (row,) = torch.autograd.grad(y[..., position].sum(), u)
        return row.abs().sum(1).mean(1)

    def _forward_causal(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        return self.out_proj(self._scan(x, z, direction=0).transpose(1, 2))

    def _scan(self, x: Tensor, z: Tensor, direction: int) -> Tensor:
        """One gated scan from the first to the last token with a direction's parameters, (B, E, L) in and out."""
        conv_weight, conv_bias = self.conv_weight[direction], self.conv_bias[direction]
        u = causal_conv1d(x, conv_weight, conv_bias, activation='silu', backend=self.scan_backend)
        dt, B, C = F.linear(u.transpose(1, 2), self.x_proj_weight[direction]).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        delta = F.linear(dt, self.dt_proj_weight[direction])
        return selective_scan(
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
