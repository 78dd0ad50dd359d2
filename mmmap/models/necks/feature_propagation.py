"""The neck that carries the features of point groups back to all points."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.ops import three_interpolate
from mmmap.registry import MODELS

from ..layers import init_linears


@MODELS.register_module()
class FeaturePropagation(BaseModule):
    """Features of every point from those of the groups near it (as PointNet++, arXiv 1706.02413, section 3.4).

    The features of each block are projected, and interpolated from the three nearest group centres. Added to them are
    projections of the point, of the maximum and mean of the last block over the cloud and, for parts of objects, of the
    category of the object. A small perceptron follows. All norms are LayerNorms, so the clouds of a batch do not mix.

    Args:
        in_channels (int): Width C of the backbone. In a model this, ``point_channels`` and ``num_taps`` default to
            those of the backbone.
        out_channels (int): Width of what comes out. Defaults to 128.
        point_channels (int): Columns 3 + F of a point. Defaults to 3.
        num_taps (int): Number of blocks in ``out_indices`` of the backbone. Defaults to 3.
        num_categories (int): Categories of objects; 0 leaves the category out. Defaults to 0.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If a number is out of its range; the message names it.
    """

    takes: ClassVar[dict[str, str]] = {
        'in_channels': 'width', 'point_channels': 'in_channels', 'num_taps': 'num_taps'
    }  # fmt: skip

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 128,
        point_channels: int = 3,
        num_taps: int = 3,
        num_categories: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        numbers = dict(in_channels=in_channels, out_channels=out_channels, num_taps=num_taps)
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f'FeaturePropagation: {name}={value} must be positive')
        if point_channels < 3:
            raise ValueError(f'FeaturePropagation: point_channels={point_channels}: a point has at least x, y and z')
        if num_categories < 0:
            raise ValueError(f'FeaturePropagation: num_categories={num_categories} is negative')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.shapes = dict(width=out_channels)
        self.point_channels = point_channels
        self.num_categories = num_categories
        self.taps = nn.ModuleList(nn.Linear(in_channels, out_channels) for _ in range(num_taps))
        self.points = nn.Linear(point_channels, out_channels)
        self.cloud = nn.Linear(2 * in_channels, out_channels)
        if num_categories:
            self.category = nn.Linear(num_categories, out_channels, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(out_channels), nn.GELU(), nn.Linear(out_channels, out_channels), nn.LayerNorm(out_channels)
        )
        init_linears(self)

    def forward(self, inputs: Sequence, points: Tensor, categories: Tensor | None = None) -> Tensor:
        """Carry features to the points of a batch.

        Args:
            inputs (Sequence): For each tap ``(coords, features)``: centres of the groups, shape (B, G, 3), in the frame
                of the points, and their features, shape (B, G, C).
            points (Tensor): The points, shape (B, N, 3 + F).
            categories (Tensor, optional): Category of each object, shape (B,), int64. Defaults to None, an unknown one.

        Returns:
            Tensor: Features of the points, shape (B, N, ``out_channels``).

        Raises:
            ValueError: If the number of blocks or a width differs from the arguments.
        """
        if len(inputs) != len(self.taps):
            raise ValueError(
                f'FeaturePropagation got features of {len(inputs)} blocks, num_taps={len(self.taps)} expected'
            )
        if points.shape[-1] != self.point_channels:
            raise ValueError(
                f'points have {points.shape[-1]} columns, FeaturePropagation expects {self.point_channels}: set '
                'point_channels'
            )
        # Interpolation is linear, so blocks with the same centres are summed first.
        shared: dict[int, tuple[Tensor, Tensor]] = {}
        for project, (coords, features) in zip(self.taps, inputs, strict=True):
            if features.shape[-1] != self.in_channels:
                raise ValueError(
                    f'features have the width {features.shape[-1]}, FeaturePropagation expects {self.in_channels}: set '
                    'in_channels'
                )
            projected = project(features)
            if id(coords) in shared:
                projected = shared[id(coords)][1] + projected
            shared[id(coords)] = coords, projected
        xyz = points[..., :3].contiguous()
        x = self.points(points)
        for coords, features in shared.values():
            x = x + three_interpolate(xyz, coords.to(xyz.dtype), features)
        last = inputs[-1][1]
        cloud = self.cloud(torch.cat([last.amax(dim=1), last.mean(dim=1)], dim=-1))
        if self.num_categories and categories is not None:
            one_hot = nn.functional.one_hot(categories, self.num_categories)
            cloud = cloud + self.category(one_hot.to(cloud.dtype))
        return self.mlp(x + cloud[:, None])
