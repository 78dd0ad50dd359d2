"""Tokens gather features of their neighbours in space."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import gather_points

#: Added to the variance of the differences under its root.
STD_EPS = 1e-5


class LocalAggregation(nn.Module):
    """Gathers features of neighbours in space, as Mamba3D's local norm pooling does (arXiv 2404.14966).

    The differences to the neighbours are divided by their standard deviation and put beside the token itself. Each
    channel is averaged over the neighbours with softmax weights, and a linear layer restores the width of the token.

    The deviation is that of all neighbours and channels of a cloud, ``sqrt(var + 1e-5)``. The released PointMAP code
    takes that of the whole batch.

    Args:
        embed_dim (int): Token width C.
        norm_eps (float): Epsilon of the LayerNorms. Defaults to 1e-5.
    """

    counted_as: ClassVar[dict[str, str]] = {'': 'neighbours'}

    def __init__(self, embed_dim: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.scale = nn.Parameter(torch.ones(2 * embed_dim))
        self.shift = nn.Parameter(torch.zeros(2 * embed_dim))
        self.norm_pooled = nn.LayerNorm(2 * embed_dim, eps=norm_eps)
        self.proj = nn.Linear(2 * embed_dim, embed_dim)

    def _deviation(self, differences: Tensor) -> Tensor:
        """The divisor of differences (B, T, k, C)."""
        places = (1, 2, 3)
        if self.training:
            variance = differences.var(dim=places, keepdim=True)
        else:
            # The same in two passes: a tenth of the time on a CPU, but more memory in training.
            squares = (differences - differences.mean(dim=places, keepdim=True)).square()
            variance = squares.sum(dim=places, keepdim=True) / (differences[0].numel() - 1)
        return (variance + STD_EPS).sqrt()

    def _leading(self, tokens: Tensor) -> Tensor:
        """The result for normalised tokens without a place, such as a class token."""
        return torch.zeros_like(tokens)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Gather features, to be added to the tokens.

        Args:
            x (Tensor): Tokens, shape (B, L, C). The last T of them have a place in space.
            neighbours (Tensor): Neighbours of each of the T, as indices of the T, shape (B, T, k), int64.

        Returns:
            Tensor: Shape (B, L, C).
        """
        leading, tokens = self.norm(x).split([x.shape[1] - neighbours.shape[1], neighbours.shape[1]], dim=1)
        differences = gather_points(tokens.contiguous(), neighbours) - tokens[:, :, None]
        differences = differences / self._deviation(differences)
        values = torch.cat([differences, tokens[:, :, None].expand_as(differences)], dim=-1)
        values = values * self.scale + self.shift
        pooled = (values * values.softmax(dim=2)).sum(dim=2)
        local = F.silu(self.proj(self.norm_pooled(pooled)))
        return torch.cat([self._leading(leading), local], dim=1) if leading.shape[1] else local
