"""AR: autoregressive pretraining with a causal encoder."""

import torch
from torch import Tensor

from mmmap.registry import MODELS
from mmmap.utils.wrapped_names import without_wrappers

from ..reconstruction_results import Reconstruction
from .token_pretraining import TokenPretraining


def copy_forward_direction(module: 'AR', state_dict: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    """Replace the untrained weights of the backward scans in a state dict by those of the forward scans."""
    for path, part in module.named_modules():
        for name in getattr(part, 'directed', ()):
            key = prefix + without_wrappers(f'{path}.{name}')
            state_dict[key] = torch.stack([state_dict[key][0]] * 2)


@MODELS.register_module()
class AR(TokenPretraining):
    """Autoregressive pretraining: predict the next region from all regions before it (ARM, arXiv 2406.07537).

    Nothing is hidden. The encoder is causal (:meth:`HybridEncoder.forward`): M blocks scan forward only and T blocks
    attend to no later region. The backbone's serialization sets the regions: ``dict(type='block', size=4)`` gives ARM's
    clusters of patches, 'row' rows of patches, 'token' single patches. The first region has none before it and does not
    count in the loss.

    The backward scans are not trained. A checkpoint stores the forward scans' weights for both directions, so that a
    bidirectional encoder starts from trained weights.

    Args:
        backbone (dict | nn.Module): Such as :class:`MAPHybrid`, whose regions must follow its serialization, or
            :class:`PointMAPHybrid` with ``local_neighbours=0``.
        neck (dict | nn.Module): A decoder that does not show a region to its own prediction, such as
            :class:`NextRegionDecoder`.
        head, data_preprocessor, init_cfg: See :class:`TokenPretraining`.

    Raises:
        ValueError: If a part does not fit the method, or, at a step, all tokens are one region.
    """

    causal = True

    def __init__(self, backbone, neck, head, data_preprocessor=None, init_cfg=None) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        self.backbone.check_causal()
        if not getattr(self.neck, 'predicts_ahead', False):
            raise ValueError(
                f'neck: a {type(self.neck).__name__} shows a region to its own prediction, so that AR would copy it; '
                'use NextRegionDecoder'
            )
        self.register_state_dict_post_hook(copy_forward_direction)

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Predict every region but the first from those before it, without a mask. See :class:`TokenPretraining`."""
        tokens = self.backbone.tokenize(inputs)
        if tokens.region_size == tokens.embeddings.shape[1]:
            raise ValueError(
                f'AR predicts the next region, but all {tokens.region_size} tokens of inputs of shape '
                f'{tuple(inputs.shape)} are one region: give it larger inputs, or the backbone smaller regions'
            )
        latent = self.backbone.encode(tokens, causal=True)
        decoded = self.neck(latent, None, tokens)
        predicted = (tokens.region_ids > 0).expand(len(latent), -1)
        return self.result(tokens, inputs, latent, decoded, predicted)
