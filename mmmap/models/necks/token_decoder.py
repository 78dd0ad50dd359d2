"""Base of the decoders of tokens."""

from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import CoordinatePositionEncoding, DecoderBlock, LearnedPositionEmbedding, Tokens, init_linears
from ..protocols import PositionEncoding


class TokenDecoder(BaseModule):
    """Parts of a decoder that rebuilds tokens from latents: projection, mask token, positions, blocks and norm.

    Args:
        in_dim (int): Width C of the encoder's latents. In a model it defaults to the backbone's.
        grid (int | Sequence[int], optional): Rows and columns of tokens that the position embedding is stored for.
            It is resized for other grids. None encodes the coordinates of the tokens instead, as for clouds. In a
            model it defaults to the backbone's. Defaults to 14.
        embed_dim (int): Decoder width D. Defaults to 192, for every size of encoder as released.
        depth (int): Blocks. Defaults to 4.
        num_heads (int): Attention heads. Defaults to 16.
        mlp_ratio (float): MLP width over ``embed_dim``. Defaults to 4.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    takes: ClassVar[dict[str, str]] = {'in_dim': 'width', 'grid': 'grid'}
    #: Whether no token reaches the prediction of its own region, as autoregressive pretraining needs.
    predicts_ahead: ClassVar[bool] = False
    pos_embed: PositionEncoding
    compilable = True
    undecayed: ClassVar[tuple[str, ...]] = ('mask_token',)

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
        self.shapes = dict(width=embed_dim)
        self.embed = nn.Linear(in_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = LearnedPositionEmbedding(grid, embed_dim) if grid else CoordinatePositionEncoding(embed_dim)
        self.blocks = nn.ModuleList(DecoderBlock(embed_dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linears(self)

    def forward(self, latent: Tensor, visible: Tensor | None, tokens: Tokens) -> Tensor:
        """Decode all tokens.

        Args:
            latent (Tensor): Encoded tokens in the order of the scans, shape (B, L_visible, C).
            visible (Tensor, optional): Which tokens they are, shape (B, L_visible). None is all of them.
            tokens (Tokens): The tokens that the backbone made of the inputs.

        Returns:
            Tensor: Decoded tokens in the order of ``tokens``, shape (B, L, D).
        """
        raise NotImplementedError
