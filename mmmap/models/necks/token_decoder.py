"""What the decoders of tokens share."""

import torch
from mmengine.model import BaseModule
from torch import nn

from ..layers import CoordinatePositionEncoding, DecoderBlock, LearnedPositionEmbedding, init_linears


class TokenDecoder(BaseModule):
    """Parts of a decoder that rebuilds tokens from latents: projection, mask token, positions, blocks and norm.

    Args:
        in_dim (int): Width C of the encoder's latents.
        grid (int | Sequence[int], optional): Rows and columns of tokens that the position embedding is stored for.
            Other grids are served by resizing it. None is for tokens of point clouds, whose positions are made of
            their coordinates. Defaults to 14.
        embed_dim (int): Decoder width D. Defaults to 192, for every size of encoder as released.
        depth (int): Blocks. Defaults to 4.
        num_heads (int): Attention heads. Defaults to 16.
        mlp_ratio (float): MLP width over ``embed_dim``. Defaults to 4.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        in_dim: int,
        grid: int | tuple[int, int] | None = 14,
        embed_dim: int = 192,
        depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed = nn.Linear(in_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = (
            CoordinatePositionEncoding(embed_dim) if grid is None else LearnedPositionEmbedding(grid, embed_dim)
        )
        self.blocks = nn.ModuleList(DecoderBlock(embed_dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linears(self)
