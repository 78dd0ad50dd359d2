"""What the pretraining methods of the toolbox share: tokens in, predicted tokens and a loss out."""

from dataclasses import dataclass, field

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import Tokens


@dataclass(frozen=True)
class Reconstruction:
    """What a pretraining method makes of a batch.

    Attributes:
        latent (Tensor): Encoded tokens in the order of the scans, shape (B, L_encoded, C).
        mask (Tensor): True where the method predicts what it was not shown, shape (B, L).
        grid (tuple[int, int], optional): Rows and columns of the tokens; None for points.
    """

    latent: Tensor
    _predicted: Tensor = field(repr=False)
    mask: Tensor
    grid: tuple[int, int] | None
    _targets: Tensor = field(repr=False)
    _head: nn.Module = field(repr=False)
    _nothing_hidden: bool = field(default=False, repr=False)
    _coords: Tensor | None = field(default=None, repr=False)

    @property
    def pred(self) -> Tensor:
        """Predictions at full resolution for all tokens, (B, L, P), in raster order (points: in sequence order)."""
        return self._head.full_resolution(self._predicted)

    def losses(self) -> dict[str, Tensor]:
        """:meth:`loss` and, where the head has several scales, the mean error at each of them, ``scale_FACTOR``."""
        mask = torch.ones_like(self.mask) if self._nothing_hidden else self.mask
        return self._head.losses(self._predicted, self._targets, mask)

    def loss(self) -> Tensor:
        """The pretraining loss, a scalar: over the masked tokens, or over all where the method hides none."""
        return self.losses()['loss']

    def images(self) -> Tensor:
        """The predictions as images in the scale of the inputs, shape (B, c, H, W).

        Raises:
            TypeError: If the inputs were clouds of points.
        """
        if self.grid is None:
            raise TypeError('images(): the inputs were clouds of points, which clouds() gives')
        return self._head.to_images(self.pred.detach().float(), self._targets, self.grid)

    def clouds(self) -> tuple[list[Tensor], list[Tensor]]:
        """What the method was shown and what it rebuilt, in the frame of the inputs.

        Returns:
            tuple[list[Tensor], list[Tensor]]: For each cloud the points of the visible groups, shape (V, 3), and the
            predicted points of the hidden ones, (M, 3); of all groups where the method hides none.

        Raises:
            TypeError: If the inputs were images.
        """
        if self.grid is not None:
            raise TypeError('clouds(): the inputs were images, which images() gives')
        predicted = self._head.to_points(self.pred.detach().float(), self._coords)
        shown = self._targets[..., :3] + self._coords[:, :, None]
        hidden = torch.ones_like(self.mask) if self._nothing_hidden else self.mask
        visible = [points[~mask].flatten(0, 1) for points, mask in zip(shown, self.mask, strict=True)]
        rebuilt = [points[mask].flatten(0, 1) for points, mask in zip(predicted, hidden, strict=True)]
        return visible, rebuilt


class TokenPretraining(BaseSelfSupervisor):
    """Base of the methods: a backbone with ``tokenize`` and ``encode``, maybe a decoder, and a head.

    Args:
        backbone (dict | nn.Module): Such as :class:`MAPHybrid`. A dict without ``out_type`` gets 'raw', since register
            tokens take no part in pretraining.
        neck (dict | nn.Module, optional): The decoder, for methods that have one.
        head (dict | nn.Module): Makes the predictions, the target and the loss, such as
            :class:`PixelReconstructionHead`.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor; mmpretrain's
            ``SelfSupDataPreprocessor`` by default.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the backbone has register tokens, or weights that need no gradient.
    """

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
        if not isinstance(data_preprocessor, nn.Module):
            # With its scope, so that the model builds under any default scope.
            data_preprocessor = {'type': 'mmpretrain.SelfSupDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(backbone, neck, head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if getattr(self.backbone, 'num_registers', 0):
            raise ValueError(
                f'backbone.num_registers={self.backbone.num_registers}: register tokens take no part in pretraining '
                "and would get no gradient; use out_type='raw'"
            )
        frozen = [name for name, p in self.backbone.named_parameters() if not p.requires_grad]
        if frozen:
            raise ValueError(
                f'backbone: {len(frozen)} weights would not be trained ({frozen[0]}, ...): leave out_indices and '
                'frozen_stages at -1 in pretraining'
            )

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Predict the tokens of a batch that the method hides, each in its own way."""
        raise NotImplementedError

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """The pretraining loss of a batch.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) for images.
            data_samples (list, optional): Not used.

        Returns:
            dict[str, Tensor]: What :meth:`Reconstruction.losses` gives.
        """
        return self.reconstruct(inputs).losses()


class MaskedPretraining(TokenPretraining):
    """Base of the methods that hide tokens by a masking strategy.

    Args:
        backbone (dict | nn.Module): See :class:`TokenPretraining`.
        neck (dict | nn.Module, optional): See :class:`TokenPretraining`.
        head (dict | nn.Module): See :class:`TokenPretraining`.
        masking (dict | MaskingStrategy, optional): The masking strategy. None is ``RandomMasking(ratio=0.5)``.
        data_preprocessor (dict | nn.Module, optional): See :class:`TokenPretraining`.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.
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
            ValueError: If the given mask has another shape or does not hide the same number of tokens in every sample.
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
