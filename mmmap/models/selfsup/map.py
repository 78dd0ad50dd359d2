"""MAP: masked autoregressive pretraining."""

from torch import Tensor

from mmmap.registry import MODELS

from ..reconstruction_results import Reconstruction
from .token_pretraining import MaskedPretraining


@MODELS.register_module()
class MAP(MaskedPretraining):
    """Masked Autoregressive Pretraining (CVPR 2025, arXiv 2410.00871).

    Tokens are hidden, the backbone encodes the visible ones, a decoder rebuilds the sequence region by region and a
    head compares the hidden tokens with their targets. Other parts make other methods of it: with the decoder rule
    'full' it is MAE.

    Args:
        backbone, neck, head, masking, data_preprocessor, init_cfg: See :class:`MaskedPretraining`.
    """

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Hide tokens, encode the rest, rebuild all. See :class:`TokenPretraining`."""
        tokens = self.backbone.tokenize(inputs)
        mask, num_masked = self.draw_mask(tokens, mask)
        visible = tokens.visible_indices(mask, num_masked)
        latent = self.backbone.encode(tokens, visible)
        decoded = self.neck(latent, visible, tokens)
        return self.result(tokens, inputs, latent, decoded, mask, nothing_hidden=num_masked == 0)
