"""The decoder of the released PointMAP code."""

from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.models.layers import CloudTokens, Context, CoordinatePositionEncoding, TransformerBlock, init_linears
from mmmap.models.layers.region_attention import region_attention
from mmmap.registry import MODELS


@MODELS.register_module()
class ReleasedPointDecoder(BaseModule):
    """PointMAP's decoder as released: its regions are runs of ``[visible | hidden]`` tokens, not of places.

    The first regions hold all visible tokens, in the order of the sequence, and see no hidden one. The positions are
    added before every block.

    Args:
        embed_dim (int): Width C of the latents and of the decoder. In a model it defaults to the backbone's. Defaults
            to 384.
        depth (int): Blocks. Defaults to 4.
        num_heads (int): Attention heads. Defaults to 6.
        mlp_ratio (float): MLP width over ``embed_dim``. Defaults to 4.
        drop_path_rate (float): Stochastic depth, rising linearly from 0. Defaults to 0.1.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    token_type: ClassVar[type[CloudTokens]] = CloudTokens
    takes: ClassVar[dict[str, str]] = {'embed_dim': 'width'}
    predicts_ahead: ClassVar[bool] = False
    compilable = True
    undecayed = ('mask_token',)

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
        self.shapes = dict(width=embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = CoordinatePositionEncoding(embed_dim)
        rates = torch.linspace(0, drop_path_rate, depth, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, mlp_ratio, qkv_bias=False, drop_path_rate=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.normal_(self.mask_token, std=0.02)
        init_linears(self)

    def forward(self, latent: Tensor, visible: Tensor | None, tokens: CloudTokens) -> Tensor:
        """Decode all tokens of the sequence, see :meth:`TokenDecoder.forward`."""
        restore = tokens.restore_indices(visible)
        positions = self.pos_embed(tokens.take(tokens.coords, restore.argsort(dim=1)))
        batch, shown, dim = latent.shape
        hidden = self.mask_token.to(latent.dtype).expand(batch, restore.shape[1] - shown, -1)
        x = torch.cat([latent, hidden], dim=1)
        context = Context(region_attention('region_causal', tokens.region_ids, tokens.region_size))
        for block in self.blocks:
            x = block(None, x + positions, context)[1]
        return self.norm(x).gather(1, restore[..., None].expand(-1, -1, dim))
