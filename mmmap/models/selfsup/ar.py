"""AR: autoregressive pretraining with a causal encoder."""

import torch
from torch import Tensor

from mmmap.registry import MODELS

from .token_pretraining import Reconstruction, TokenPretraining

#: Parameters of a mixer that hold one set for each direction of its scans.
DIRECTION_PARAMETERS = ('conv_weight', 'conv_bias', 'x_proj_weight', 'dt_proj_weight', 'dt_proj_bias', 'A_log', 'D')


def copy_forward_direction(module: 'AR', state_dict: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    """Replace the backward scans' weights in a state dict, which AR does not train, by the forward scans'."""
    for name, value in state_dict.items():
        if '.mixer.' in name and name.rpartition('.')[2] in DIRECTION_PARAMETERS:
            state_dict[name] = torch.stack([value[0], value[0]])


@MODELS.register_module()
class AR(TokenPretraining):
    """Autoregressive pretraining: predict the next region from all regions before it (ARM, arXiv 2406.07537).

    Nothing is hidden. The encoder is causal (:meth:`HybridEncoder.forward`): M blocks scan forward only and T blocks
    see no later region. The regions are the backbone's: ``dict(type='block', size=4)`` gives ARM's clusters of patches,
    'row' rows of them, 'token' single patches. The first region has nothing before it and does not count in the loss.

    The backward scans take no part. A checkpoint stores the forward scans' weights for both directions, so that a
    bidirectional encoder starts from trained ones.

    Args:
        backbone (dict | nn.Module): Such as :class:`MAPHybrid`; its regions must follow its serialization.
        neck (dict | nn.Module): Such as :class:`NextRegionDecoder`.
        head (dict | nn.Module): Such as :class:`PixelReconstructionHead`.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor; mmpretrain's
            ``SelfSupDataPreprocessor`` by default.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the backbone has register tokens, or regions of another kind than its serialization.
    """

    def __init__(self, backbone, neck, head, data_preprocessor=None, init_cfg=None) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if self.backbone.regions is not self.backbone.serialization:
            raise ValueError(
                'backbone.regions: AR predicts the regions of the serialization, along which the encoder is causal; '
                'leave regions=None'
            )
        self.register_state_dict_post_hook(copy_forward_direction)

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Predict every region but the first from those before it.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) for images.
            mask (Tensor, optional): Not used: nothing is hidden.

        Returns:
            Reconstruction: Latents of all tokens, predictions, the tokens that count in the loss, and the loss.

        Raises:
            ValueError: If the image is one single region.
        """
        tokens = self.backbone.tokenize(inputs)
        x, regions, order = tokens.embeddings, tokens.region_ids, tokens.order
        if order is not None:
            x = x[:, order]
            regions = regions[order]
        latent = self.backbone.encode(x, causal_regions=regions)
        decoded = self.neck(latent, regions, order, tokens.grid)
        predicted = (tokens.region_ids > 0).expand(len(x), -1)
        return Reconstruction(latent, self.head(decoded), predicted, tokens.grid, inputs, self.head)
