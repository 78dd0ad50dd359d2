"""The bidirectional Mamba mixer of vision backbones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import bidirectional_conv1d, bidirectional_scan, causal_conv1d, selective_scan


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
        """Draw what belongs to the scans; the step sizes as a linear layer's, see :func:`init_step_sizes`."""
        bound = self.conv_weight.shape[-1] ** -0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        nn.init.uniform_(self.conv_bias, -bound, bound)
        for weight in (*self.x_proj_weight, *self.dt_proj_weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.dt_proj_bias)
        with torch.no_grad():
            states = torch.arange(1, self.d_state + 1, dtype=torch.float32)
            self.A_log.copy_(states.log().expand_as(self.A_log))

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
        batch, length, inner_dim = x.shape
        # The ops take (B, 2, E, L); their views keep the channels side by side, which is what they are fast on.
        u = bidirectional_conv1d(
            x.transpose(1, 2), self.conv_weight, self.conv_bias, activation='silu', backend=self.scan_backend
        )
        rows = u.permute(1, 0, 3, 2).reshape(2, batch * length, inner_dim)
        dt, B, C = _project(rows, self.x_proj_weight, batch).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = _project(dt, self.dt_proj_weight, batch)
        delta, B, C = (t.unflatten(1, (batch, length)).permute(1, 0, 3, 2) for t in (delta, B, C))
        y = bidirectional_scan(
            u,
            delta,
            -torch.exp(self.A_log),
            B,
            C,
            D=self.D,
            z=z.transpose(1, 2),
            delta_bias=self.dt_proj_bias,
            delta_softplus=True,
            backend=self.scan_backend,
        )
        return self.out_proj(y.transpose(1, 2))

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
