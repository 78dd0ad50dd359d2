"""Small stand-ins for what scenes need beside their own parts, so that these are tested alone."""

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import BaseDataElement
from torch import nn


class Pack:
    """Tensors and a data sample of a dict, as the last transform of a pipeline."""

    def __call__(self, results):
        sample = BaseDataElement(metainfo=dict(lidar_path=results['lidar_path'], sample_idx=results['sample_idx']))
        if 'pts_semantic_mask' in results:
            labels = torch.from_numpy(results['pts_semantic_mask'])
            sample.gt_pts_seg = BaseDataElement(pts_semantic_mask=labels)
        return dict(inputs=torch.from_numpy(results['points']), data_samples=sample)


class Stack(BaseDataPreprocessor):
    """Stacks clouds of one size."""

    def forward(self, data, training=False):
        return dict(inputs=torch.stack(list(data['inputs'])), data_samples=data['data_samples'])


class PointwiseSegmentor(BaseModel):
    """A linear classifier of each point by itself."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)
        # So that it predicts several classes.
        nn.init.normal_(self.classifier.weight, std=3.0)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.classifier(inputs)
        if mode == 'tensor':
            return logits
        truth = torch.stack([sample.gt_pts_seg.pts_semantic_mask for sample in data_samples])
        return dict(loss=nn.functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=255))
