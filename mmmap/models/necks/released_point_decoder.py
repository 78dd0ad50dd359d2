"""The decoder of the released PointMAP code."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import CoordinatePositionEncoding, TransformerBlock, init_linears
from ..layers.region_attention import region_attention


@MODELS.register_module()
class ReleasedPointDecoder(BaseModule):
    """PointMAP's decoder as released: regions are runs of ``[visible | hidden]``, and so not of places.

    The first regions hold all visible tokens, in sequence order, and see no hidden one. The positions are added again
    before every block.

    Args:
        embed_dim (int): Width C of the encoder's latents and of the decoder. Defaults to 384.
        depth (int): Blocks. Defaults to 4.
        num_heads (int): Attention heads. Defaults to 6.
        mlp_ratio (float): MLP width over ``embed_dim``. Defaults to 4.
        drop_path_rate (float): Stochastic depth, rising linearly from 0. Defaults to 0.1.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(
        self,
        embed_dim: int = 384,
        depth: int = 4,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = CoordinatePositionEncoding(embed_dim)
        rates = torch.linspace(0, drop_path_rate, depth, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, mlp_ratio, qkv_bias=False, drop_path_rate=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linears(self)

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
            region_ids (Tensor): Region of each place in ``[visible | hidden]``, shape (L,).
            grid (None): What tokens of images have.
            region_size (int, optional): See :class:`RegionCausalDecoder`. Defaults to None.
            coords (Tensor): Centres of the tokens, shape (B, L, 3).

        Returns:
            Tensor: Decoded tokens in sequence order, shape (B, L, C).

        Raises:
            ValueError: If the tokens are an image's.
        """
        if grid is not None:
            raise ValueError(f'grid={grid}: ReleasedPointDecoder is for tokens of point clouds')
        order = restore.argsort(dim=1)[..., None]
        positions = self.pos_embed(coords.gather(1, order.expand(-1, -1, coords.shape[-1])))
        batch, visible, dim = latent.shape
        hidden = self.mask_token.to(latent.dtype).expand(batch, restore.shape[1] - visible, -1)
        x = torch.cat([latent, hidden], dim=1)
        attend = region_attention('region_causal', region_ids, region_size)
        for block in self.blocks:
            x = block(x + positions, attend)
        return self.norm(x).gather(1, restore[..., None].expand(-1, -1, dim))
