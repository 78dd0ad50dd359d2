"""MAP: masked autoregressive pretraining."""

from dataclasses import dataclass, field

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import Tokens


@dataclass(frozen=True)
class Reconstruction:
    """What MAP makes of a batch.

    Attributes:
        latent (Tensor): Encoded visible tokens, shape (B, L_visible, C).
        pred (Tensor): Predictions for all tokens in sequence order (raster for images), shape (B, L, P).
        mask (Tensor): True where hidden, shape (B, L).
        grid (tuple[int, int]): Rows and columns of the tokens.
    """

    latent: Tensor
    pred: Tensor
    mask: Tensor
    grid: tuple[int, int]
    _inputs: Tensor = field(repr=False)
    _head: nn.Module = field(repr=False)

    def loss(self) -> Tensor:
        """The pretraining loss, a scalar."""
        return self._head.loss(self.pred, self._inputs, self.mask)

    def images(self) -> Tensor:
        """The predictions as images in the scale of the inputs, shape (B, c, H, W)."""
        return self._head.to_images(self.pred.detach().float(), self._inputs, self.grid)


@MODELS.register_module()
class MAP(BaseSelfSupervisor):
    """Masked Autoregressive Pretraining (CVPR 2025, arXiv 2410.00871).

    Tokens are hidden, the backbone encodes the visible ones, a decoder rebuilds the sequence region by region and a
    head compares the hidden tokens with their targets. With other parts in its place it is another method: the decoder
    rule 'full' makes it MAE.

    Args:
        backbone (dict | nn.Module): A backbone with ``tokenize`` and ``encode``, such as :class:`MAPHybrid`. A dict
            without ``out_type`` gets 'raw', since register tokens take no part in pretraining.
        neck (dict | nn.Module): The decoder, such as :class:`RegionCausalDecoder`.
        head (dict | nn.Module): The head, such as :class:`PixelReconstructionHead`.
        masking (dict | MaskingStrategy, optional): The masking strategy. None is ``RandomMasking(ratio=0.5)``.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor; mmpretrain's
            ``SelfSupDataPreprocessor`` by default.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the backbone has register tokens.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        masking: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(backbone, nn.Module):
            backbone = {'out_type': 'raw', **backbone}
        if not isinstance(data_preprocessor, nn.Module):
            # With its scope, so that MAP builds under any default scope.
            data_preprocessor = {'type': 'mmpretrain.SelfSupDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(backbone, neck, head, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if getattr(self.backbone, 'num_registers', 0):
            raise ValueError(
                f'backbone.num_registers={self.backbone.num_registers}: register tokens take no part in pretraining '
                "and would get no gradient; use out_type='raw'"
            )
        if masking is None:
            masking = dict(type='RandomMasking', ratio=0.5)
        self.masking = MODELS.build(masking) if isinstance(masking, dict) else masking

    def _mask_and_order(self, tokens: Tokens, mask: Tensor | None) -> tuple[Tensor, int]:
        """The mask (B, L), drawn if not given, and how many tokens of each sample it hides."""
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

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Hide tokens, encode the rest, rebuild all.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) for images.
            mask (Tensor, optional): Tokens to hide, shape (B, L), bool or 0 / 1, the same number in every sample. Drawn
                by the masking strategy if None.

        Returns:
            Reconstruction: Latents, predictions, mask and loss.

        Raises:
            ValueError: If the mask has another shape or does not hide the same number of tokens in every sample.
        """
        tokens = self.backbone.tokenize(inputs)
        mask, num_masked = self._mask_and_order(tokens, mask)
        # A stable sort keeps the visible tokens in sequence order, and needs no look at the values on the host.
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        visible = order[:, : mask.shape[1] - num_masked, None].expand(-1, -1, tokens.embeddings.shape[-1])
        latent = self.backbone.encode(tokens.embeddings.gather(1, visible))
        decoded = self.neck(latent, order.argsort(dim=1), tokens.region_ids, tokens.grid, tokens.region_size)
        return Reconstruction(latent, self.head(decoded), mask, tokens.grid, inputs, self.head)

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """The pretraining loss of a batch.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) for images.
            data_samples (list, optional): Not used.

        Returns:
            dict[str, Tensor]: The scalar ``loss``.
        """
        return dict(loss=self.reconstruct(inputs).loss())
