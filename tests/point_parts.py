"""A small backbone of clouds, for what is built on one."""

from typing import NamedTuple

import torch
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from mmmap.ops import farthest_point_sample, gather_points


class Groups(NamedTuple):
    coords: Tensor
    features: Tensor


class GroupBackbone(BaseModule):
    """Groups at farthest points, whose features are linear in the point at their centre; one projection a tap."""

    def __init__(self, point_channels=3, width=8, num_groups=16, num_taps=2):
        super().__init__()
        self.num_groups = num_groups
        self.taps = nn.ModuleList(nn.Linear(point_channels, width) for _ in range(num_taps))

    def forward(self, inputs):
        centres = gather_points(inputs, farthest_point_sample(inputs[..., :3], self.num_groups))
        coords = centres[..., :3]
        return tuple(Groups(coords, tap(centres)) for tap in self.taps)


class PointwiseSegmentor(BaseModel):
    """A linear classifier of each point by itself, whose weights can be written by hand."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)
        # So that it predicts several classes.
        nn.init.normal_(self.classifier.weight, std=3.0)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor'
        return self.classifier(inputs)


def clouds(batch=2, count=64, channels=3):
    return torch.rand(batch, count, channels, generator=torch.Generator().manual_seed(0)) * 2 - 1
