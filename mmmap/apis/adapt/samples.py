"""Generated pictures with objects and labels, in the form that the data sets of each package give them."""

from importlib import import_module
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from torch import Tensor

from mmmap.engine.config_parts import type_name, walk

#: Boxes of the objects of a picture, as shares of its sides: left, top, right, bottom.
_BOXES = ((0.05, 0.1, 0.45, 0.6), (0.3, 0.3, 0.95, 0.9), (0.5, 0.05, 0.8, 0.35), (0.1, 0.7, 0.25, 0.9))


def make_batch(scope: str, size: tuple[int, int], number: int = 2, masks: bool = True) -> dict[str, list]:
    """Make a batch as a data loader gives it.

    Args:
        scope (str): 'mmpretrain', 'mmseg' or 'mmdet'.
        size (tuple[int, int]): Height and width of the pictures.
        number (int): Pictures. Defaults to 2, as batch norm of one cell needs two.
        masks (bool): Give the objects of detectors masks. Defaults to True.

    Returns:
        dict[str, list]: ``inputs``, (3, H, W) of uint8 each, and ``data_samples``, of the first class each.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(number)]
    samples = [_SAMPLES[scope](size) for _ in pictures]
    if scope == 'mmdet' and not masks:
        for sample in samples:
            del sample.gt_instances.masks
    return dict(inputs=pictures, data_samples=samples)


def loads_masks(cfg: Config) -> bool:
    """Whether the pipeline of a detector loads masks. Some heads use them where they are there."""
    steps = [part for _, part in walk(cfg.get('train_dataloader')) if isinstance(part, dict)]
    return any(step.get('with_mask', 'Panoptic' in type_name(step.get('type', ''))) for step in steps)


def _class_sample(size: tuple[int, int]) -> DataSample:
    return DataSample(metainfo=dict(img_shape=size, ori_shape=size)).set_gt_label(0)


def _meta(size: tuple[int, int]) -> dict[str, Any]:
    return dict(
        img_id=0, img_path='', img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), flip=False
    )


def _segmentation_sample(size: tuple[int, int]) -> Any:
    labels = torch.zeros(1, *size, dtype=torch.int64)
    labels[:, size[0] // 2 :] = 1
    sample = import_module('mmseg.structures').SegDataSample(metainfo=_meta(size))
    sample.gt_sem_seg = PixelData(data=labels)
    # Of heads that learn boundaries too.
    sample.gt_edge_map = PixelData(data=labels.float())
    return sample


def _detection_sample(size: tuple[int, int]) -> Any:
    height, width = size
    boxes = torch.tensor(_BOXES) * torch.tensor([width, height, width, height])
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    mask_structures = import_module('mmdet.structures.mask')
    things = InstanceData(
        bboxes=boxes,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        masks=mask_structures.BitmapMasks(masks.numpy(), height, width),
    )
    sample = import_module('mmdet.structures').DetDataSample(metainfo=_meta(size) | dict(border=[0, height, 0, width]))
    sample.gt_instances = things
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.int64))
    return sample


_SAMPLES = dict(mmpretrain=_class_sample, mmseg=_segmentation_sample, mmdet=_detection_sample)


def total_loss(losses: dict[str, Any]) -> Tensor:
    """The sum of all losses that a model returns."""
    values = [value for name, value in losses.items() if 'loss' in name]
    return sum(
        (item.mean() for value in values for item in (value if isinstance(value, list) else [value])), torch.zeros(())
    )
