"""SimMIM on the hybrid backbone: mask tokens inside the encoder."""

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from .token_pretraining import MaskedPretraining, Reconstruction


@MODELS.register_module()
class HybridSimMIM(MaskedPretraining):
    """SimMIM (arXiv 2111.09886): the encoder reads all tokens, a learned one in place of each hidden one.

    There is no decoder: the head predicts from the encoded tokens. SimMIM's own choice is 60 % hidden and an L1 loss on
    raw pixels, ``PixelReconstructionHead(loss_type='l1', norm_pix=False)``.

    Args:
        backbone (dict | nn.Module): A backbone with ``tokenize``, ``encode`` and ``positions``, such as
            :class:`MAPHybrid`.
        head (dict | nn.Module): Such as :class:`PixelReconstructionHead` with ``in_dim`` the backbone's width.
        masking (dict | MaskingStrategy, optional): The masking strategy. None is ``RandomMasking(ratio=0.5)``.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor; mmpretrain's
            ``SelfSupDataPreprocessor`` by default.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the backbone has register tokens.
    """

    def __init__(self, backbone, head, masking=None, data_preprocessor=None, init_cfg=None) -> None:
        super().__init__(backbone, None, head, masking, data_preprocessor, init_cfg)
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.backbone.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Replace tokens, encode all, predict the pixels of the replaced ones.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W).
            mask (Tensor, optional): Tokens to hide, shape (B, L), bool or 0 / 1, the same number in every sample. Drawn
                by the masking strategy if None.

        Returns:
            Reconstruction: Latents of all tokens, predictions, mask and loss.

        Raises:
            ValueError: If the mask has another shape or does not hide the same number of tokens in every sample.
        """
        tokens = self.backbone.tokenize(inputs)
        mask, num_masked = self.draw_mask(tokens, mask)
        hidden = self.mask_token + self.backbone.positions(tokens.grid)
        x = torch.where(mask[..., None], hidden.to(tokens.embeddings.dtype), tokens.embeddings)
        if tokens.order is None:
            latent = in_raster_order = self.backbone.encode(x)
        else:
            latent = self.backbone.encode(x[:, tokens.order])
            in_raster_order = latent[:, tokens.order.argsort()]
        pred = self.head(in_raster_order)
        return Reconstruction(latent, pred, mask, tokens.grid, inputs, self.head, num_masked == 0)
