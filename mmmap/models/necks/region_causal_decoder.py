"""The decoder that rebuilds hidden tokens region by region."""

import torch
from torch import Tensor

from mmmap.registry import MODELS

from ..layers.region_attention import ATTENTION_RULES, region_attention
from .token_decoder import TokenDecoder


@MODELS.register_module()
class RegionCausalDecoder(TokenDecoder):
    """MAP's decoder: mask tokens are put back among the latents and region r sees regions up to r.

    Nothing is shifted: a region's own visible tokens are seen, and the last region sees everything.

    Args:
        in_dim (int): Width C of the encoder's latents.
        grid (int | Sequence[int], optional): Rows and columns of tokens that the position embedding is stored for.
            Other grids are served by resizing it. None is for tokens of point clouds, whose positions are made of
            their coordinates. Defaults to 14.
        embed_dim (int): Decoder width D. Defaults to 192, for every size of encoder as released.
        depth (int): Blocks. Defaults to 4.
        num_heads (int): Attention heads. Defaults to 16.
        mlp_ratio (float): MLP width over ``embed_dim``. Defaults to 4.
        attention (str): 'region_causal', 'full', 'causal' or 'local', see
            :func:`~mmmap.models.layers.region_attention.attention_mask`. Defaults to
            'region_causal'.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``attention`` is unknown or the heads do not divide the width.
    """

    def __init__(
        self,
        in_dim: int,
        grid: int | tuple[int, int] | None = 14,
        embed_dim: int = 192,
        depth: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        attention: str = 'region_causal',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_dim, grid, embed_dim, depth, num_heads, mlp_ratio, init_cfg)
        if attention not in ATTENTION_RULES:
            raise ValueError(f'attention={attention!r}: must be one of {ATTENTION_RULES}')
        self.attention = attention
        self.by_coords = grid is None

    def forward(
        self,
        latent: Tensor,
        restore: Tensor,
        region_ids: Tensor,
        grid: tuple[int, int] | None,
        region_size: int | None = None,
        coords: Tensor | None = None,
    ) -> Tensor:
        """Decode all tokens of the sequence.

        Args:
            latent (Tensor): Encoded visible tokens, shape (B, L_visible, C).
            restore (Tensor): For each token of the full sequence its place in ``[visible | hidden]``, shape (B, L).
            region_ids (Tensor): Region of each token, shape (L,) or (B, L).
            grid (tuple[int, int], optional): Rows and columns of the tokens; None for tokens of point clouds.
            region_size (int, optional): Tokens of a region where all are equal runs of neighbouring tokens, which is
                cheaper. None makes no assumption. Defaults to None.
            coords (Tensor, optional): Centres of the tokens of point clouds, shape (B, L, 3). Defaults to None.

        Returns:
            Tensor: Decoded tokens in sequence order, shape (B, L, D).

        Raises:
            ValueError: If the tokens have a grid and the decoder has none, or the other way round.
        """
        if self.by_coords != (grid is None):
            raise ValueError(
                f'grid: the decoder was built with{"out" * self.by_coords} one, '
                f'the tokens have {grid or "none"}; grid=None is for tokens of point clouds'
            )
        x = self.embed(latent)
        batch, visible, dim = x.shape
        hidden = self.mask_token.to(x.dtype).expand(batch, restore.shape[1] - visible, -1)
        x = torch.cat([x, hidden], dim=1).gather(1, restore[..., None].expand(-1, -1, dim))
        x = x + self.pos_embed(coords if self.by_coords else grid)
        attend = region_attention(self.attention, region_ids, region_size)
        for block in self.blocks:
            x = block(x, attend)
        return self.norm(x)
