"""The encoder of the released PointMAP code: its mixer, its blocks, and how they are joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmmap.models.layers import (
    Block,
    Context,
    HybridEncoder,
    LocalAggregation,
    MambaMixer,
    MixerBlock,
    TransformerBlock,
)
from mmmap.ops import knn

#: The released ``bimamba_type``: two scans, both forward, or one.
RELEASED_TYPES = ('v4', 'v2')


@dataclass(frozen=True, kw_only=True)
class ReleasedContext(Context):
    """What the released blocks share in one forward pass.

    Attributes:
        positions (Tensor): Positions of the tokens, which every block adds again, shape (B, L, C).
    """

    positions: Tensor


class ReleasedLocalAggregation(LocalAggregation):
    """As released: divides by the deviation of the whole batch, and adds tokens without a place in normalised form."""

    def _deviation(self, differences: Tensor) -> Tensor:
        return differences.std() + 1e-5

    def _leading(self, tokens: Tensor) -> Tensor:
        return tokens


class ReleasedMixer(MambaMixer):
    """As released: two scans, both forward, which are added.

    The second scan takes the projection with its channels in reverse, so that gate and input change places. Type 'v2'
    has no second scan, and its parameters get zero gradients.

    Args:
        embed_dim, d_state, d_conv, expand, scan_backend: See :class:`MambaMixer`.
        released (str): 'v4' or 'v2'. Defaults to 'v4'.

    Raises:
        ValueError: If ``released`` is another.
    """

    def __init__(
        self,
        embed_dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        scan_backend: str = 'auto',
        released: str = 'v4',
    ) -> None:
        if released not in RELEASED_TYPES:
            raise ValueError(f'released={released!r}: must be one of {RELEASED_TYPES}')
        super().__init__(embed_dim, d_state, d_conv, expand, scan_backend)
        self.released = released

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Mix a sequence of tokens (B, L, C); ``causal`` is ignored, as all scans run forward."""
        x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        y = self._scan(x, z, direction=0)
        if self.released == 'v4':
            y = y + self._scan(z.flip(1), x.flip(1), direction=1).flip(1)
        return self.out_proj(y.transpose(1, 2))


class _OneStreamBlock(Block):
    """``x = x + positions``, ``x = x + local(x)``, ``x = x + mix(norm(x))``, without a branch."""

    opens_branch = False
    counted_as = None
    norm: nn.Module
    local_type = ReleasedLocalAggregation

    def forward(self, branch: Tensor | None, stream: Tensor, context: Any) -> tuple[None, Tensor]:
        """See :meth:`Block.forward`; the context is a :class:`ReleasedContext`."""
        x = stream + context.positions
        x = x if self.local is None else x + self.drop_path(self.local(x, context.neighbours))
        return None, x + self.drop_path(self._mix(self.norm(x)))

    def _mix(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class ReleasedMambaBlock(_OneStreamBlock, MixerBlock):
    """A :class:`ReleasedMixer` on the stream."""

    mixer_type = ReleasedMixer
    counted_as = None
    norm_type = nn.LayerNorm

    def _mix(self, x: Tensor) -> Tensor:
        return self.mixer(x)


class ReleasedTransformerBlock(_OneStreamBlock):
    """A :class:`TransformerBlock` without biases of queries, keys and values. Its skips are added to the stream's."""

    attends = True
    counted_as = None

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float = 4.0, **common: Any) -> None:
        super().__init__(embed_dim, **common)
        self.norm = nn.LayerNorm(embed_dim, eps=self.norm_eps)
        self.transformer = TransformerBlock(embed_dim, num_heads, mlp_ratio, qkv_bias=False, norm_eps=self.norm_eps)

    def _mix(self, x: Tensor) -> Tensor:
        return self.transformer(None, x, Context())[1]


class ReleasedPointEncoder(HybridEncoder):
    """Mamba and Transformer blocks on one stream, to which the positions are added before every block.

    The rate of stochastic depth rises linearly from 0 along the M blocks; a T block has that of the M block before it.
    The arguments are those of :class:`HybridEncoder`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    block_types: ClassVar[Mapping[str, type[Block]]] = {'M': ReleasedMambaBlock, 'T': ReleasedTransformerBlock}
    norm_type = nn.LayerNorm

    @staticmethod
    def drop_path_rates(kinds: Sequence[type[Block]], drop_path_rate: float) -> list[float]:
        """See :meth:`HybridEncoder.drop_path_rates`."""
        mixers = [issubclass(kind, MixerBlock) for kind in kinds]
        rates = torch.linspace(0, drop_path_rate, sum(mixers), device='cpu').tolist() or [0.0]
        return [rates[max(sum(mixers[: i + 1]) - 1, 0)] for i in range(len(kinds))]

    def _check(self, options: Mapping[str, object]) -> None:
        super()._check(options)
        if self.settings['local_neighbours'] == 0:
            raise ValueError('local_neighbours=0: the released encoder needs at least 1')

    def forward(  # type: ignore[override]
        self, x: Tensor, positions: Tensor, coords: Tensor, out_indices: Sequence[int] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Encode a sequence of tokens.

        Args:
            x (Tensor): Tokens without their positions, shape (B, L, C).
            positions (Tensor): Their positions, shape (B, L, C).
            coords (Tensor): Places of the last T tokens in space, shape (B, T, D).
            out_indices (Sequence[int], optional): See :meth:`HybridEncoder.forward`.

        Returns:
            Tensor | tuple[Tensor, ...]: Shape (B, L, C); with ``out_indices`` a tuple of it, in the order given.
        """
        neighbours = knn(coords, coords, min(self.local_neighbours, coords.shape[1]))[1]
        return self._run_blocks(x, out_indices, ReleasedContext(neighbours=neighbours, positions=positions))
