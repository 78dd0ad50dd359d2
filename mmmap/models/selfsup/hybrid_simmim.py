"""SimMIM on the hybrid backbone: mask tokens inside the encoder."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..reconstruction_results import Reconstruction
from .token_pretraining import MaskedPretraining


@MODELS.register_module()
class HybridSimMIM(MaskedPretraining):
    """SimMIM (arXiv 2111.09886): the encoder reads all tokens, and a learned token replaces each hidden one.

    There is no decoder: the head predicts from the encoded tokens. SimMIM itself hides 60 % and takes an L1 loss on raw
    pixels, ``PixelReconstructionHead(loss_type='l1', norm_pix=False)``.

    Args:
        backbone, head, masking, data_preprocessor, init_cfg: See :class:`MaskedPretraining`.
    """

    def __init__(self, backbone, head, masking=None, data_preprocessor=None, init_cfg=None) -> None:
        super().__init__(backbone, None, head, masking, data_preprocessor, init_cfg)
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.backbone.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Replace tokens, encode all, predict the replaced ones. See :class:`TokenPretraining`."""
        tokens = self.backbone.tokenize(inputs)
        mask, num_masked = self.draw_mask(tokens, mask)
        hidden = self.mask_token + self.backbone.position_embeddings(tokens)
        x = torch.where(mask[..., None], hidden.to(tokens.embeddings.dtype), tokens.embeddings)
        latent = self.backbone.encode(replace(tokens, embeddings=x))
        return self.result(tokens, inputs, latent, tokens.put_back(latent), mask, nothing_hidden=num_masked == 0)
