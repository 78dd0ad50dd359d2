"""The head that turns decoded tokens into pixels and compares them with the image."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import init_linears

#: Added to a patch's variance before its root, as in MAE and the released MAP code.
NORM_EPS = 1e-6


@MODELS.register_module()
class PixelReconstructionHead(BaseModule):
    """Predicts the pixels of each patch; the loss is their mean squared or absolute error on the hidden patches.

    Args:
        in_dim (int): Width D of the decoded tokens. Defaults to 192.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Image channels. Defaults to 3.
        norm_pix (bool): Normalise each target patch by its mean and unbiased standard deviation over its pixels and
            channels (MAE, arXiv 2111.06377, section 4.1). Defaults to True.
        loss_type (str): 'l2', the squared error (MAP, MAE), or 'l1', the absolute one (SimMIM). Defaults to 'l2'.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``loss_type`` is unknown.
    """

    def __init__(
        self,
        in_dim: int = 192,
        patch_size: int = 16,
        in_channels: int = 3,
        norm_pix: bool = True,
        loss_type: str = 'l2',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if loss_type not in ('l2', 'l1'):
            raise ValueError(f"loss_type={loss_type!r}: must be 'l2' or 'l1'")
        self.loss_type = loss_type
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.norm_pix = norm_pix
        self.proj = nn.Linear(in_dim, patch_size**2 * in_channels)
        init_linears(self)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images (B, c, H, W) into patches (B, L, P) in raster order, each as (row, column, channel)."""
        batch, channels, height, width = images.shape
        p = self.patch_size
        patches = images.reshape(batch, channels, height // p, p, width // p, p)
        return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p * p * channels)

    def unpatchify(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Lay patches (B, L, P) out as images (B, c, H, W); the inverse of :meth:`patchify`."""
        (rows, columns), p = grid, self.patch_size
        images = patches.reshape(len(patches), rows, columns, p, p, self.in_channels)
        return images.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), self.in_channels, rows * p, columns * p)

    @staticmethod
    def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + NORM_EPS).sqrt()

    def target(self, images: Tensor) -> Tensor:
        """What the prediction is compared with, shape (B, L, P), from images (B, c, H, W)."""
        patches = self.patchify(images)
        if not self.norm_pix:
            return patches
        mean, std = self._statistics(patches)
        return (patches - mean) / std

    def to_images(self, pred: Tensor, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predictions (B, L, P) as images (B, c, H, W), ``norm_pix`` undone with the statistics of ``images``."""
        if self.norm_pix:
            mean, std = self._statistics(self.patchify(images))
            pred = pred * std + mean
        return self.unpatchify(pred, grid)

    def forward(self, decoded: Tensor) -> Tensor:
        """Predicted patches (B, L, P) of decoded tokens (B, L, D)."""
        return self.proj(decoded)

    def loss(self, pred: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Mean error over the hidden patches of the batch.

        Args:
            pred (Tensor): Predicted patches, shape (B, L, P).
            images (Tensor): Preprocessed images, shape (B, c, H, W).
            mask (Tensor): True where hidden, shape (B, L).

        Returns:
            Tensor: A scalar, in at least float32.
        """
        target = self.target(images)
        error = pred.to(target.dtype) - target
        error = (error.square() if self.loss_type == 'l2' else error.abs()).mean(dim=-1)
        return (error * mask).sum() / mask.sum()
