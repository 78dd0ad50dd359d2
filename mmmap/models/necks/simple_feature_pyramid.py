"""The neck that makes a feature pyramid from the maps of a plain backbone."""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from mmmap.registry import MODELS

SCALES = (4, 2, 1, 0.5)
ALL_SCALES = (*SCALES, 0.25, 0.125)


def _rescale(channels: int, scale: float) -> tuple[nn.Module, int]:
    """The layers that resize a map by a factor, and the channels of their output."""
    if scale == 4:
        layers = (
            nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
            LayerNorm2d(channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, kernel_size=2, stride=2),
        )
        return nn.Sequential(*layers), channels // 4
    if scale == 2:
        return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2), channels // 2
    if scale == 1:
        return nn.Identity(), channels
    # Rounded up, so that no patch at the far edges is lost and the smallest map has a cell.
    return nn.MaxPool2d(kernel_size=round(1 / scale), ceil_mode=True), channels


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of several sizes from the one size that a plain backbone has (ViTDet, arXiv 2203.16527).

    For each scale the map is enlarged by transposed convolutions (by 4: two, with LayerNorm and GELU between), kept, or
    made smaller by max-pooling. A 1x1 and a 3x3 convolution follow, each with a LayerNorm over the channels. The neck
    serves mmseg's and mmdet's heads. No layer depends on the batch, so any number of GPUs and any batch size work.

    Args:
        in_channels (int): Channels C of the backbone's maps.
        out_channels (int): Channels of the maps that come out. Defaults to 256.
        scales (Sequence[float]): Sizes over that of the backbone's maps, each one of 4, 2, 1, 0.5, 0.25 and 0.125. The
            stride of a level is the patch size over its scale: with 16-pixel patches (4, 2, 1, 0.5) has the strides 4
            to 32, (4, 2, 1, 0.5, 0.25) 4 to 64, and (2, 1, 0.5, 0.25, 0.125) 8 to 128, as RetinaNet and FCOS want
            them. Defaults to (4, 2, 1, 0.5).
        with_max_pool (bool): Add a level that takes every second cell of the last one, as detectors' region proposals
            use. Defaults to False.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None, torch's own.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    takes: ClassVar[dict[str, str]] = {'in_channels': 'width'}

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = SCALES,
        with_max_pool: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not isinstance(in_channels, int):
            raise ValueError(
                f'in_channels={in_channels!r}: must be one number, as all maps of a plain backbone have that width'
            )
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f'in_channels={in_channels}, out_channels={out_channels}: both must be positive')
        if not scales or not set(scales) <= set(ALL_SCALES):
            raise ValueError(f'scales={scales!r}: must be some of {ALL_SCALES}')
        needed = max(1, int(max(scales)))
        if in_channels % needed:
            raise ValueError(f'in_channels={in_channels}: must be a multiple of {needed} for scales={tuple(scales)}')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.scales = tuple(scales)
        self.with_max_pool = with_max_pool
        self.levels = nn.ModuleList()
        for scale in scales:
            rescale, channels = _rescale(in_channels, scale)
            level = nn.Sequential(
                rescale,
                nn.Conv2d(channels, out_channels, kernel_size=1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            self.levels.append(level)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Make the pyramid of a batch.

        Args:
            inputs (tuple[Tensor, ...]): One map of shape (B, C, H, W), from which all levels are made, or as many as
                scales, each for its level.

        Returns:
            tuple[Tensor, ...]: A map of shape (B, ``out_channels``, H * s, W * s) for each scale s, rounded up; with
            ``with_max_pool`` one more, of half the size of the last.

        Raises:
            TypeError: If the inputs are not a tuple or a list.
            ValueError: If they are another number of maps, or of another shape.
        """
        if not isinstance(inputs, tuple | list):
            raise TypeError(
                f'SimpleFeaturePyramid takes a tuple of maps, one for each block, not a {type(inputs).__name__}'
            )
        if len(inputs) not in (1, len(self.scales)):
            raise ValueError(
                f'SimpleFeaturePyramid got {len(inputs)} maps for scales={self.scales}: give the backbone one of '
                f'out_indices, or {len(self.scales)}, one for each scale'
            )
        for x in inputs:
            if x.ndim != 4 or x.shape[1] != self.in_channels:
                raise ValueError(
                    f'a map of shape {tuple(x.shape)}: SimpleFeaturePyramid expects (B, {self.in_channels}, H, W), as '
                    "a MAPHybrid of this width gives it with out_type='featmap'"
                )
        maps = list(inputs) * len(self.levels) if len(inputs) == 1 else inputs
        outs = [level(x) for level, x in zip(self.levels, maps, strict=True)]
        if self.with_max_pool:
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)
