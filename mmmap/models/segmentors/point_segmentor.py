"""Segmentation of clouds: a class for each point."""

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmmap.registry import MODELS
from mmmap.structures import PointDataSample

from ..build_parts import build_parts


@MODELS.register_module()
class PointSegmentor(BaseModel):
    """Gives each point of a cloud a class: parts of objects, or objects in the crops of :class:`SceneSegmentor`.

    Args:
        backbone (dict | nn.Module): Such as ``PointMAPHybrid`` with ``out_type='points'``: from clouds (B, N, 3 + F) to
            ``(coords, features)`` of the point groups at each tap.
        neck (dict | nn.Module): Such as :class:`FeaturePropagation`.
        head (dict | nn.Module): Such as :class:`PointSegHead`.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor. Defaults to None: a
            :class:`PointDataPreprocessor`.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='PointDataPreprocessor'), init_cfg)
        self.backbone, self.neck, self.head = build_parts(backbone, neck=neck, head=head)

    def forward(
        self, inputs: Tensor, data_samples: list[PointDataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict | list:
        """Losses, labels or logits of a batch.

        Args:
            inputs (Tensor): Clouds, shape (B, N, 3 + F).
            data_samples (list[PointDataSample], optional): Their samples. Without them a category is unknown.
                Defaults to None.
            mode (str): 'loss', 'predict' or 'tensor'. Defaults to 'tensor'.

        Returns:
            Tensor | dict | list: The losses; the samples with ``pred_pts_seg``; or logits (B, N, classes).

        Raises:
            ValueError: If there is no such mode, or samples of a model of categories have none.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        features = self.extract_feat(inputs, data_samples)
        if mode == 'tensor':
            return self.head(features)
        return getattr(self.head, mode)(features, data_samples)

    def extract_feat(self, inputs: Tensor, data_samples: list[PointDataSample] | None = None) -> Tensor:
        """Features (B, N, C) of the points of clouds (B, N, 3 + F)."""
        return self.neck(self.backbone(inputs), inputs, self._categories(inputs, data_samples))

    def _categories(self, inputs: Tensor, data_samples: list[PointDataSample] | None) -> Tensor | None:
        if data_samples is None or not getattr(self.neck, 'num_categories', 0):
            return None
        for sample in data_samples:
            if 'category' not in sample:
                name = sample.get('lidar_path', 'a cloud')
                raise ValueError(f'{name} has no category, but num_categories={self.neck.num_categories}')
        return torch.tensor([sample.category for sample in data_samples], device=inputs.device)
