"""The decoder that rebuilds hidden tokens region by region."""

from typing import Any

import torch
from torch import Tensor

from mmmap.registry import MODELS

from ..layers import Tokens
from ..layers.region_attention import ATTENTION_RULES, region_attention
from .token_decoder import TokenDecoder


@MODELS.register_module()
class RegionCausalDecoder(TokenDecoder):
    """MAP's decoder: mask tokens are put back among the latents, and region r attends to the regions up to r.

    Nothing is shifted: a region attends to its own visible tokens too, and the last region to all tokens.

    Args:
        *args: See :class:`TokenDecoder`.
        **kwargs: See :class:`TokenDecoder`.
        attention (str): 'region_causal', 'full', 'causal' or 'local', see
            :func:`~mmmap.models.layers.region_attention.attention_mask`. Defaults to 'region_causal'.

    Raises:
        ValueError: If ``attention`` is unknown or the heads do not divide the width.
    """

    def __init__(self, *args: Any, attention: str = 'region_causal', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if attention not in ATTENTION_RULES:
            raise ValueError(f'attention={attention!r}: must be one of {ATTENTION_RULES}')
        self.attention = attention

    def forward(self, latent: Tensor, visible: Tensor | None, tokens: Tokens) -> Tensor:
        """Decode all tokens of the sequence, see :meth:`TokenDecoder.forward`."""
        restore = tokens.restore_indices(visible)
        x = self.embed(latent)
        batch, shown, dim = x.shape
        hidden = self.mask_token.to(x.dtype).expand(batch, restore.shape[1] - shown, -1)
        x = torch.cat([x, hidden], dim=1).gather(1, restore[..., None].expand(-1, -1, dim))
        x = x + self.pos_embed.of(tokens)
        attend = region_attention(self.attention, tokens.region_ids, tokens.region_size)
        for block in self.blocks:
            x = block(x, attend)
        return self.norm(x)
