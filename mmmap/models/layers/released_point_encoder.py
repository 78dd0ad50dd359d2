"""The encoder of the released PointMAP code, which differs from :class:`HybridEncoder` in how blocks are joined."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmap.ops import knn

from .checkpointing import check_with_cp, run_block
from .hybrid_encoder import check_layout
from .local_aggregation import LocalAggregation
from .mamba_mixer import MambaMixer
from .tokens import CloudTokens
from .transformer_block import TransformerBlock
from .weight_init import init_linears, init_step_sizes

#: The released ``bimamba_type``: two scans, both forward, or one.
RELEASED_TYPES = ('v4', 'v2')


@dataclass(frozen=True, kw_only=True)
class ReleasedTokens(CloudTokens):
    """Tokens whose positions are not in the embeddings, as the encoder adds them before every block.

    Attributes:
        positions (Tensor): The positions, shape (B, L, C).
    """

    positions: Tensor


class ReleasedLocalAggregation(LocalAggregation):
    """As released: one deviation of the whole batch, and tokens without a place are added in normalised form.

    What a cloud gives depends on the others of its batch.
    """

    def _deviation(self, differences: Tensor) -> Tensor:
        return differences.std() + 1e-5

    def _leading(self, tokens: Tensor) -> Tensor:
        return tokens


class ReleasedMixer(MambaMixer):
    """As released: both scans run forward, the second on channels in reverse, and are added.

    The second scan takes the projection with its channels in reverse, so that the gate becomes its input and the input
    its gate. Type 'v2' has no second scan; its parameters get zero gradients.

    Args:
        embed_dim (int): Token width C.
        d_state (int): States N per channel.
        d_conv (int): Width K of the causal convolutions.
        expand (int): The scans run on ``E = expand * embed_dim`` channels.
        scan_backend (str): Backend of the scans.
        released (str): 'v4' or 'v2'.
    """

    def __init__(
        self, embed_dim: int, d_state: int, d_conv: int, expand: int, scan_backend: str, released: str
    ) -> None:
        super().__init__(embed_dim, d_state, d_conv, expand, scan_backend)
        self.released = released

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence of tokens (B, L, C)."""
        x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        y = self._scan(x, z, direction=0)
        if self.released == 'v4':
            y = y + self._scan(z.flip(1), x.flip(1), direction=1).flip(1)
        return self.out_proj(y.transpose(1, 2))


class ReleasedBlock(nn.Module):
    """``x + local(x)``, then ``x + mix(norm(x))``; for a Transformer block too, whose own skips are inside ``mix``.

    Args:
        letter (str): 'M', ``mix`` is the module ``mixer``, or 'T', it is ``transformer``.
        mix (nn.Module): From tokens (B, L, C) to the like.
        embed_dim (int): Token width C.
        drop_path_rate (float): Chance that a sample's branch is not added.
        norm_eps (float): Epsilon of the LayerNorms.
    """

    def __init__(self, letter: str, mix: nn.Module, embed_dim: int, drop_path_rate: float, norm_eps: float) -> None:
        super().__init__()
        self.local = ReleasedLocalAggregation(embed_dim, norm_eps)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.drop_path = DropPath(drop_path_rate)
        self.mix_name = 'mixer' if letter == 'M' else 'transformer'
        self.add_module(self.mix_name, mix)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """Tokens (B, L, C) and the neighbours (B, T, k) of the last T among them."""
        x = x + self.drop_path(self.local(x, neighbours))
        return x + self.drop_path(getattr(self, self.mix_name)(self.norm(x)))


class ReleasedPointEncoder(nn.Module):
    """Mamba and Transformer blocks on one stream, to which the positions are added again before every block.

    Args:
        embed_dim (int): Token width C.
        layout (str): One letter a block, 'M' or 'T'.
        num_heads (int): Heads of the Transformer blocks, whose projections of queries, keys and values have no bias.
        mlp_ratio (float): MLP width of the Transformer blocks over ``embed_dim``. Defaults to 4.
        d_state (int): States per channel of the scans. Defaults to 16.
        d_conv (int): Width of the causal convolutions. Defaults to 4.
        expand (int): Channels of the scans over ``embed_dim``. Defaults to 2.
        drop_path_rate (float): Stochastic depth on both branches, rising linearly from 0 along the M blocks; a T block
            has the rate of the M block before it. Defaults to 0.
        norm_eps (float): Epsilon of every norm. Defaults to 1e-5.
        weight_init (str): See :class:`HybridEncoder`. Defaults to 'mamba'.
        with_cp (bool | str): As in :class:`HybridEncoder`. Defaults to False.
        scan_backend (str): Backend of the scans. Defaults to 'auto'.
        local_neighbours (int): Neighbours in space of a token, itself among them. Defaults to 4.
        released (str): 'v4' or 'v2', see :class:`ReleasedMixer`. Defaults to 'v4'.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        embed_dim: int,
        layout: str,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-5,
        weight_init: str = 'mamba',
        with_cp: bool | str = False,
        scan_backend: str = 'auto',
        local_neighbours: int = 4,
        released: str = 'v4',
    ) -> None:
        super().__init__()
        check_layout(layout, weight_init, drop_path_rate)
        check_with_cp(with_cp)
        if released not in RELEASED_TYPES:
            raise ValueError(f'released={released!r}: must be one of {RELEASED_TYPES}')
        if not isinstance(local_neighbours, int) or local_neighbours < 1:
            raise ValueError(f'local_neighbours={local_neighbours!r}: the released encoder needs at least 1')
        self.embed_dim = embed_dim
        self.layout = layout
        self.with_cp = with_cp
        self.local_neighbours = local_neighbours
        rates = torch.linspace(0, drop_path_rate, layout.count('M'), device='cpu').tolist()
        self.blocks = nn.ModuleList()
        for i, letter in enumerate(layout):
            if letter == 'M':
                mix = ReleasedMixer(embed_dim, d_state, d_conv, expand, scan_backend, released)
            else:
                mix = TransformerBlock(embed_dim, num_heads, mlp_ratio, norm_eps, qkv_bias=False)
            before = max(layout[: i + 1].count('M') - 1, 0)
            rate = rates[before] if rates else 0.0
            self.blocks.append(ReleasedBlock(letter, mix, embed_dim, rate, norm_eps))
        # The last sum of a HybridEncoder has one.
        self.drop_path = nn.Identity()
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        init_linears(self)
        if weight_init == 'mamba':
            init_step_sizes(self)

    def forward(
        self, x: Tensor, positions: Tensor, coords: Tensor, taps: Sequence[int] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Encode a sequence of tokens.

        Args:
            x (Tensor): Tokens without their positions, shape (B, L, C).
            positions (Tensor): Their positions, shape (B, L, C).
            coords (Tensor): Places of the last T tokens in space, shape (B, T, D).
            taps (Sequence[int], optional): Blocks (0 first) whose normalised output to return instead of the last
                one's. Those behind the last of them are not computed.

        Returns:
            Tensor | tuple[Tensor, ...]: Shape (B, L, C); with ``taps`` a tuple of it, in the order given.
        """
        neighbours = knn(coords, coords, min(self.local_neighbours, coords.shape[1]))[1]
        tapped = {}
        for i, block in enumerate(self.blocks):
            x = x + positions
            x = run_block(block, self.with_cp, x, neighbours)
            if taps is not None and i in taps:
                tapped[i] = self.norm(x)
                if len(tapped) == len(set(taps)):
                    break
        return self.norm(x) if taps is None else tuple(tapped[i] for i in taps)
