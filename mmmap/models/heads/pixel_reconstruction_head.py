"""The head that turns decoded tokens into pixels and compares them with the image."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mmmap.registry import MODELS

from ..layers import GridTokens
from ..reconstruction_results import ImageReconstruction
from .reconstruction_head import ReconstructionHead, read_scales

#: Added to a patch's variance before its root, as in MAE and the released MAP code.
NORM_EPS = 1e-6


@MODELS.register_module()
class PixelReconstructionHead(ReconstructionHead):
    """Predicts the pixels of each patch; the loss is their mean squared or absolute error on the hidden patches.

    Args:
        in_dim (int): Width D of the decoded tokens. In a model this, ``patch_size`` and ``in_channels`` default to
            those of the parts before. Defaults to 192.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Image channels. Defaults to 3.
        norm_pix (bool): Normalise each target patch by its mean and unbiased standard deviation over its pixels and
            channels (MAE, arXiv 2111.06377, section 4.1). Defaults to True.
        loss_type (str): 'l2', the squared error (MAP, MAE), or 'l1', the absolute one (SimMIM). Defaults to 'l2'.
        scales (Sequence[tuple[int, float]]): Resolutions of the target, (factor, weight) each: its patches are averaged
            over squares of factor x factor pixels, and a layer of its own predicts them; the loss is the mean of all by
            their weights. Factor 1, the full resolution, must be among them. Defaults to ((1, 1.0),).
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``loss_type`` is unknown, or the scales are not as above.
    """

    takes: ClassVar[dict[str, str]] = {'in_dim': 'width', 'patch_size': 'patch_size', 'in_channels': 'in_channels'}
    token_type = GridTokens
    result_type = ImageReconstruction

    def __init__(
        self,
        in_dim: int = 192,
        patch_size: int = 16,
        in_channels: int = 3,
        norm_pix: bool = True,
        loss_type: str = 'l2',
        scales: Sequence[tuple[int, float]] = ((1, 1.0),),
        init_cfg: dict | None = None,
    ) -> None:
        weights = read_scales(scales, 'patch_size', patch_size)
        super().__init__(in_dim, weights, [(patch_size // f) ** 2 * in_channels for f in weights], init_cfg)
        if loss_type not in ('l2', 'l1'):
            raise ValueError(f"loss_type={loss_type!r}: must be 'l2' or 'l1'")
        self.loss_type = loss_type
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.norm_pix = norm_pix

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
    def _mean_and_std(patches: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + NORM_EPS).sqrt()

    def target(self, images: Tensor, factor: int = 1) -> Tensor:
        """The target of the prediction at a scale.

        Args:
            images (Tensor): Preprocessed images, shape (B, c, H, W).
            factor (int): The scale. ``norm_pix`` comes before the average. Defaults to 1.

        Returns:
            Tensor: Patches in raster order, each as (row, column, channel), shape (B, L, P / factor ** 2).
        """
        patches = self.patchify(images)
        if self.norm_pix:
            mean, std = self._mean_and_std(patches)
            patches = (patches - mean) / std
        if factor == 1:
            return patches
        side = self.patch_size // factor
        return patches.unflatten(-1, (side, factor, side, factor, -1)).mean(dim=(3, 5)).flatten(2)

    def to_images(self, pred: Tensor, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predictions as images (B, c, H, W), ``norm_pix`` undone with the statistics of ``images``.

        Args:
            pred (Tensor): Predictions at full resolution, shape (B, L, P).
            images (Tensor): The preprocessed images that were predicted, shape (B, c, H, W).
            grid (tuple[int, int]): Rows and columns of patches.
        """
        if self.norm_pix:
            mean, std = self._mean_and_std(self.patchify(images))
            pred = pred * std + mean
        return self.unpatchify(pred, grid)

    def errors(self, pred: Tensor, targets: Tensor, factor: int) -> Tensor:
        """Mean error (B, L) of predicted patches (B, L, P / factor ** 2) of images (B, c, H, W)."""
        target = self.target(targets, factor)
        error = pred.to(target.dtype) - target
        return (error.square() if self.loss_type == 'l2' else error.abs()).mean(dim=-1)
