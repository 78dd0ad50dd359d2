"""The decoder of autoregressive pretraining: each region from the latents of those before it."""

from functools import partial

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers.region_attention import attend
from .token_decoder import TokenDecoder


@MODELS.register_module()
class NextRegionDecoder(TokenDecoder):
    """Queries of a region attend to the latents of all earlier regions, and to a learned start token.

    A query is a mask token with its position; it sees no other query, so all regions are predicted at once, as by the
    decoder of ARM (arXiv 2406.07537). The first region sees the start token alone.

    Args:
        in_dim (int): Width C of the encoder's latents.
        grid (int | Sequence[int]): Rows and columns of tokens that the position embedding is stored for. Other grids
            are served by resizing it. Defaults to 14.
        embed_dim (int): Decoder width D. Defaults to 192.
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
        grid: int | tuple[int, int] = 14,
        embed_dim: int = 192,
        depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_dim, grid, embed_dim, depth, num_heads, mlp_ratio, init_cfg)
        self.start_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        nn.init.normal_(self.start_token, std=0.02)

    def forward(self, latent: Tensor, region_ids: Tensor, order: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Predict all tokens.

        Args:
            latent (Tensor): Encoded tokens in the order of the scans, shape (B, L, C).
            region_ids (Tensor): Region of each token in that order, shape (L,).
            order (Tensor, optional): Raster index of each token in that order, shape (L,); None for raster order.
            grid (tuple[int, int]): Rows and columns of the tokens.

        Returns:
            Tensor: Decoded tokens in raster order, shape (B, L, D).
        """
        positions = self.pos_embed(grid)
        query_regions, context_positions = region_ids, positions
        if order is not None:
            query_regions, context_positions = region_ids[order.argsort()], positions[:, order]
        context = self.embed(latent) + context_positions
        context = torch.cat([self.start_token.to(context.dtype).expand(len(context), -1, -1), context], dim=1)
        earlier = region_ids[None, :] < query_regions[:, None]
        start = torch.ones_like(earlier[:, :1])
        attention = partial(attend, mask=torch.cat([start, earlier], dim=1))
        x = (self.mask_token + positions).expand(len(latent), -1, -1)
        for block in self.blocks:
            x = block(x, attention, context)
        return self.norm(x)
