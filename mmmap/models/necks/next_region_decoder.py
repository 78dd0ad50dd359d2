"""The decoder of autoregressive pretraining: each region from the latents of those before it."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import Tokens
from ..layers.region_attention import attend
from .token_decoder import TokenDecoder


@MODELS.register_module()
class NextRegionDecoder(TokenDecoder):
    """Queries of a region attend to the latents of all earlier regions, and to a learned start token.

    A query is a mask token with its position. It attends to no other query, so all regions are predicted at once, as in
    the decoder of ARM (arXiv 2406.07537). The first region attends to the start token alone.

    Args:
        *args: See :class:`TokenDecoder`.
        **kwargs: See :class:`TokenDecoder`.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    predicts_ahead = True
    undecayed = ('mask_token', 'start_token')

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.start_token = nn.Parameter(torch.empty_like(self.mask_token))
        nn.init.normal_(self.start_token, std=0.02)

    def forward(self, latent: Tensor, visible: Tensor | None, tokens: Tokens) -> Tensor:
        """Predict all tokens, see :meth:`TokenDecoder.forward`."""
        positions = self.pos_embed.of(tokens).view(-1, tokens.region_ids.shape[-1], self.mask_token.shape[-1])
        context = self.embed(latent) + tokens.take(positions, visible)
        context = torch.cat([self.start_token.to(context.dtype).expand(len(context), -1, -1), context], dim=1)
        regions = tokens.region_ids.view(-1, tokens.region_ids.shape[-1], 1)
        earlier = tokens.take(regions, visible).mT < regions
        mask = torch.cat([torch.ones_like(earlier[..., :1]), earlier], dim=-1)
        attention = partial(attend, mask=mask[0] if visible is None else mask[:, None])
        x = (self.mask_token + positions).expand(len(latent), -1, -1)
        for block in self.blocks:
            x = block(x, attention, context)
        return self.norm(x)
