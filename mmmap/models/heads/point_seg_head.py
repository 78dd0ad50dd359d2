"""The head that gives each point a class."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.registry import MODELS
from mmmap.structures import PointDataSample

from ..layers import init_linears


@MODELS.register_module()
class PointSegHead(BaseModule):
    """Classifies points; the loss is the cross entropy, averaged over the labelled points of the batch.

    Args:
        in_channels (int): Width of a point's features. In a model it defaults to that of the neck.
        num_classes (int): Number of classes.
        dropout (float): Share of the features that are dropped in training. Defaults to 0.5.
        category_parts (Sequence[Sequence[int]], optional): For parts of objects, the parts that each category has:
            predictions are among these alone. Defaults to None, all of them.
        ignore_index (int): Points with this label do not count. Defaults to 255.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``category_parts`` names a part that is no class, or a category has none.
    """

    takes: ClassVar[dict[str, str]] = {'in_channels': 'width'}

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float = 0.5,
        category_parts: Sequence[Sequence[int]] | None = None,
        ignore_index: int = 255,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(in_channels, num_classes)
        allowed = None
        if category_parts is not None:
            allowed = torch.zeros(len(category_parts), num_classes, dtype=torch.bool)
            for category, parts in enumerate(category_parts):
                if not parts or not set(parts) <= set(range(num_classes)):
                    raise ValueError(
                        f'PointSegHead: category_parts[{category}]={tuple(parts)} must be some of the classes 0 to '
                        f'{num_classes - 1}'
                    )
                allowed[category, list(parts)] = True
        # It is set by the config, so it is no part of a checkpoint.
        self.register_buffer('allowed', allowed, persistent=False)
        init_linears(self)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, N, ``num_classes``) of features (B, N, ``in_channels``)."""
        return self.classifier(self.dropout(features))

    def loss(self, features: Tensor, data_samples: list[PointDataSample]) -> dict[str, Tensor]:
        """Mean cross entropy ``loss`` of features (B, N, C), 0 for a batch without a labelled point.

        Args:
            features (Tensor): Features of the points, shape (B, N, C).
            data_samples (list[PointDataSample]): With ``gt_pts_seg.pts_semantic_mask``.

        Raises:
            ValueError: If a cloud has no labels.
        """
        for sample in data_samples:
            if 'gt_pts_seg' not in sample:
                raise ValueError(f'{sample.get("lidar_path", "a cloud")} has no labels to learn from')
        labels = torch.stack([sample.gt_pts_seg.pts_semantic_mask for sample in data_samples])
        total = nn.functional.cross_entropy(
            self(features).flatten(0, 1).float(), labels.flatten(), ignore_index=self.ignore_index, reduction='sum'
        )
        return dict(loss=total / (labels != self.ignore_index).sum().clamp(min=1))

    def predict(self, features: Tensor, data_samples: list[PointDataSample] | None = None) -> list[PointDataSample]:
        """Classify the points of a batch.

        Args:
            features (Tensor): Features of the points, shape (B, N, C).
            data_samples (list[PointDataSample], optional): Their samples, with ``category`` if there are
                ``category_parts``; new ones by default, which may be of any category.

        Returns:
            list[PointDataSample]: The samples with ``pred_pts_seg``.
        """
        logits = self(features).float()
        if data_samples is None:
            data_samples = [PointDataSample() for _ in features]
        elif self.allowed is not None:
            categories = [sample.category for sample in data_samples]
            logits = logits.masked_fill(~self.allowed[categories][:, None], float('-inf'))
        for sample, scores in zip(data_samples, logits.softmax(dim=-1), strict=True):
            sample.set_pred_pts_seg(scores)
        return data_samples
