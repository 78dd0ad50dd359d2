"""Base classes of the pretraining methods."""

from typing import ClassVar

from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..build_parts import build_parts
from ..layers import Tokens
from ..protocols import Backbone, Decoder, Head, check_part
from ..reconstruction_results import Reconstruction


class TokenPretraining(BaseSelfSupervisor):
    """Base of the pretraining methods: a backbone, a decoder in most methods, and a head.

    :mod:`mmmap.models.protocols` tells what each of them must offer.

    Args:
        backbone (dict | nn.Module): Such as :class:`MAPHybrid` or :class:`PointMAPHybrid`. A dict without ``out_type``
            gets 'raw', since register tokens take no part in pretraining.
        neck (dict | nn.Module, optional): The decoder, such as :class:`RegionCausalDecoder`.
        head (dict | nn.Module): Makes the predictions, the target and the loss, such as
            :class:`PixelReconstructionHead` or :class:`PointReconstructionHead`.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor. The default, also for a dict without
            ``type``, is mmpretrain's ``SelfSupDataPreprocessor`` for images and :class:`PointDataPreprocessor` for
            clouds.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        TypeError: If the backbone or the head lacks an attribute that pretraining uses.
        ValueError: If the backbone has register tokens or weights that need no gradient, or a part does not fit it.
    """

    #: Whether the encoder is trained in one direction alone.
    causal: ClassVar[bool] = False
    backbone: Backbone
    neck: Decoder
    head: Head

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None,
        head: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(backbone, nn.Module):
            backbone = {'out_type': 'raw', **backbone}
        built = dict(zip(('backbone', 'neck', 'head'), build_parts(backbone, neck=neck, head=head), strict=True))
        check_part('backbone', built['backbone'], Backbone)
        check_part('head', built['head'], Head)
        token_type = built['backbone'].token_type
        for name, part in built.items():
            wanted = getattr(part, 'token_type', Tokens)
            if not issubclass(token_type, wanted):
                raise ValueError(
                    f'{name}: a {type(part).__name__} is for {wanted.__name__}, but the backbone, a '
                    f'{type(built["backbone"]).__name__}, makes {token_type.__name__}'
                )
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = {'type': token_type.data_preprocessor, **(data_preprocessor or {})}
        super().__init__(**built, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if registers := getattr(self.backbone, 'num_registers', 0):
            raise ValueError(
                f'backbone.num_registers={registers}: register tokens take no part in pretraining and would get no '
                "gradient; use out_type='raw'"
            )
        frozen = [name for name, p in built['backbone'].named_parameters() if not p.requires_grad]
        if frozen:
            raise ValueError(
                f'backbone: {len(frozen)} weights would not be trained ({frozen[0]}, ...): leave out_indices and '
                'frozen_stages at -1 in pretraining'
            )

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Predict the tokens of a batch that the method hides.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) for images and (B, N, 3 + F) for clouds.
            mask (Tensor, optional): Tokens to hide, shape (B, L), bool or 0 / 1, the same number in every sample. None
                draws it by the masking strategy.

        Raises:
            ValueError: If the mask has another shape or does not hide the same number of tokens in every sample.
        """
        raise NotImplementedError

    def result(
        self,
        tokens: Tokens,
        inputs: Tensor,
        latent: Tensor,
        decoded: Tensor,
        mask: Tensor,
        nothing_hidden: bool = False,
    ) -> Reconstruction:
        """The head's predictions for decoded tokens (B, L, D), with what their loss needs."""
        return self.head.result_type(
            latent=latent,
            mask=mask,
            predicted=self.head(decoded),
            targets=tokens.targets(inputs),
            head=self.head,
            nothing_hidden=nothing_hidden,
            **tokens.frame(),
        )

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """The pretraining loss of a batch, see :meth:`Reconstruction.losses`.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, see :meth:`reconstruct`.
            data_samples (list, optional): Not used.
        """
        return self.reconstruct(inputs).losses()


class MaskedPretraining(TokenPretraining):
    """Base of the methods that hide tokens by a masking strategy.

    Args:
        backbone, neck, head, data_preprocessor, init_cfg: See :class:`TokenPretraining`.
        masking (dict | MaskingStrategy, optional): The masking strategy. None is ``RandomMasking(ratio=0.5)``. A ratio
            of 0 hides nothing, and all tokens are predicted.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None,
        head: dict | nn.Module,
        masking: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if masking is None:
            masking = dict(type='RandomMasking', ratio=0.5)
        self.masking = MODELS.build(masking) if isinstance(masking, dict) else masking

    def draw_mask(self, tokens: Tokens, mask: Tensor | None) -> tuple[Tensor, int]:
        """The mask (B, L), drawn if not given, and how many tokens of each sample it hides.

        Raises:
            ValueError: See :meth:`reconstruct`.
        """
        batch, length = tokens.embeddings.shape[:2]
        if mask is None:
            return self.masking(tokens)
        if tuple(mask.shape) != (batch, length):
            raise ValueError(f'mask of shape {tuple(mask.shape)}: expected (B, L) = {(batch, length)}')
        mask = mask.to(tokens.embeddings.device).bool()
        counts = mask.sum(dim=1).unique().tolist()
        if len(counts) > 1 or counts[0] in (0, length):
            raise ValueError(
                f'mask hides {counts} tokens: every sample must hide the same number, from 1 to {length - 1}'
            )
        return mask, counts[0]
