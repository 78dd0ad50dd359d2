"""The bidirectional Mamba mixer of vision backbones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import causal_conv1d, selective_scan


class ScanDirection(nn.Module):
    """One direction of a mixer: causal convolution, input-dependent parameters, selective scan, gate.

    Args:
        inner_dim (int): Channels E of the scan.
        d_state (int): States N per channel.
        d_conv (int): Width K of the causal convolution.
        dt_rank (int): Rank of the step-size projection.
        reverse (bool): Scan from the last token to the first; the op does so, no tensor is flipped here.
        scan_backend (str): Backend of :func:`mmmap.ops.selective_scan` and :func:`mmmap.ops.causal_conv1d`.
    """

    def __init__(
        self, inner_dim: int, d_state: int, d_conv: int, dt_rank: int, reverse: bool, scan_backend: str = 'auto'
    ) -> None:
        super().__init__()
        self.d_state = d_state
        self.dt_rank = dt_rank
        self.reverse = reverse
        self.scan_backend = scan_backend
        self.conv_weight = nn.Parameter(torch.empty(inner_dim, d_conv))
        self.conv_bias = nn.Parameter(torch.empty(inner_dim))
        self.x_proj = nn.Linear(inner_dim, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner_dim)
        self.A_log = nn.Parameter(torch.empty(inner_dim, d_state))
        self.D = nn.Parameter(torch.ones(inner_dim))
        bound = d_conv**-0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        nn.init.uniform_(self.conv_bias, -bound, bound)
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, d_state + 1, dtype=torch.float32).log().expand(inner_dim, d_state))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Scan a sequence.

        Args:
            x (Tensor): Scan input, shape (B, L, E).
            z (Tensor): Gate, shape (B, L, E).

        Returns:
            Tensor: Gated scan output, shape (B, L, E).
        """
        # The ops take (B, E, L); a transposed view keeps the channels contiguous, which is what they are fast on.
        x = causal_conv1d(
            x.transpose(1, 2),
            self.conv_weight,
            self.conv_bias,
            activation='silu',
            reverse=self.reverse,
            backend=self.scan_backend,
        )
        dt, B, C = self.x_proj(x.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = selective_scan(
            x,
            F.linear(dt, self.dt_proj.weight).transpose(1, 2),
            -torch.exp(self.A_log),
            B.transpose(1, 2),
            C.transpose(1, 2),
            D=self.D,
            z=z.transpose(1, 2),
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            reverse=self.reverse,
            backend=self.scan_backend,
        )
        return y.transpose(1, 2)


class MambaMixer(nn.Module):
    """Bidirectional Mamba mixer: two selective scans over one input projection, averaged.

    Both directions have parameters of their own and are gated before the average, as in Vim (arXiv 2401.09417) and in
    the released MAP code; the state-space model is Mamba's S6 (arXiv 2312.00752).

    Args:
        embed_dim (int): Token width C.
        d_state (int): States per channel. Defaults to 16.
        d_conv (int): Width of the causal convolution. Defaults to 4.
        expand (int): The scan runs on ``expand * embed_dim`` channels. Defaults to 2.
        scan_backend (str): Backend of the scan and the convolution. Defaults to 'auto'.
    """

    def __init__(
        self, embed_dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, scan_backend: str = 'auto'
    ) -> None:
        super().__init__()
        inner_dim = expand * embed_dim
        dt_rank = math.ceil(embed_dim / 16)
        self.in_proj = nn.Linear(embed_dim, 2 * inner_dim, bias=False)
        self.forward_scan = ScanDirection(inner_dim, d_state, d_conv, dt_rank, False, scan_backend)
        self.backward_scan = ScanDirection(inner_dim, d_state, d_conv, dt_rank, True, scan_backend)
        self.out_proj = nn.Linear(inner_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence of tokens, shape (B, L, C) in and out."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj((self.forward_scan(x, z) + self.backward_scan(x, z)) * 0.5)
