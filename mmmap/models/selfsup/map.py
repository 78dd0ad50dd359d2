"""MAP: masked autoregressive pretraining."""

from torch import Tensor

from mmmap.registry import MODELS

from ..reconstruction_results import Reconstruction
from .token_pretraining import MaskedPretraining


@MODELS.register_module()
class MAP(MaskedPretraining):
    """Masked Autoregressive Pretraining (CVPR 2025, arXiv 2410.00871).

    Tokens are hidden, the backbone encodes the visible ones, a decoder rebuilds the sequence region by region and a
    head compares the hidden tokens with their targets. With other parts in its place it is another method: the decoder
    rule 'full' makes it MAE.

    Args:
        backbone (dict | nn.Module): A backbone with ``tokenize`` and ``encode``, such as :class:`MAPHybrid` or
            :class:`PointMAPHybrid`. A dict without ``out_type`` gets 'raw', since register tokens take no part in
            pretraining.
        neck (dict | nn.Module): The decoder, such as :class:`RegionCausalDecoder`.
        head (dict | nn.Module): The head, such as :class:`PixelReconstructionHead` or
            :class:`PointReconstructionHead`.
        masking (dict | MaskingStrategy, optional): The masking strategy. None is ``RandomMasking(ratio=0.5)``. A ratio
            of 0 hides nothing and rebuilds everything.
        data_preprocessor (dict | nn.Module, optional): See :class:`TokenPretraining`.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the backbone has register tokens.
    """

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Hide tokens, encode the rest, rebuild all. See :class:`TokenPretraining`."""
        tokens = self.backbone.tokenize(inputs)
        mask, num_masked = self.draw_mask(tokens, mask)
        visible = tokens.visible(mask, num_masked)
        latent = self.backbone.encode(tokens, visible)
        decoded = self.neck(latent, visible, tokens)
        return self._result(tokens, inputs, latent, decoded, mask, nothing_hidden=num_masked == 0)
