"""Generated batches for the model of any config, to count or to time it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmap.engine.errors import UserError
from mmmap.models.data_preprocessor import PointDataPreprocessor
from mmmap.models.segmentors import PointSegmentor, SceneSegmentor
from mmmap.models.selfsup import JointMAP
from mmmap.structures import PointDataSample

from .models import example_inputs


@dataclass(frozen=True)
class Example:
    """A batch for a model, or for a part of one that takes batches of its own.

    Attributes:
        model (nn.Module): The model or the part.
        inputs (Tensor | list[Tensor]): Noise in place of preprocessed inputs, (B, c, H, W) or (B, N, 3 + F); a list of
            them for a model that takes several views.
        samples (list, optional): Data samples with generated labels, for what does not do without.
        size (tuple[int, ...]): Height and width of the images, or points of a cloud.
        unit (str): What the samples are, 'images' or 'clouds'.
    """

    model: nn.Module
    inputs: Tensor | list[Tensor]
    samples: list | None
    size: tuple[int, ...]
    unit: str

    @property
    def batch_size(self) -> int:
        """Samples of the batch."""
        return len(self.inputs[0] if isinstance(self.inputs, list) else self.inputs)

    def __str__(self) -> str:
        views = f'{len(self.inputs)} views of ' if isinstance(self.inputs, list) else ''
        size = ' x '.join(map(str, self.size))
        return f'{views}{self.batch_size} x {size} {"pixels" if self.unit == "images" else "points"}'


def example_parts(model: nn.Module) -> dict[str, nn.Module]:
    """What takes the batches of a model: 'image' and 'points' of joint pretraining, otherwise one model, ''.

    Args:
        model (nn.Module): The model of a config.
    """
    if isinstance(model, JointMAP):
        return dict(image=model.image, points=model.points)
    # It gets crops.
    return {'': model.segmentor if isinstance(model, SceneSegmentor) else model}


def takes_clouds(model: nn.Module) -> bool:
    """Whether a model, or a part that :func:`example_parts` gives, takes clouds of points, not images."""
    return isinstance(getattr(model, 'data_preprocessor', None), PointDataPreprocessor)


def example_batches(
    cfg: Config,
    model: nn.Module,
    batch_size: int,
    shape: Sequence[int] | None = None,
    points: int | None = None,
    train: bool = False,
) -> dict[str, Example]:
    """Make a batch for each part of a model, as its data preprocessor and its backbone take them.

    Args:
        cfg (Config): The config of the run: its pipelines tell the points of a cloud and the views of an image.
        model (nn.Module): Its model.
        batch_size (int): Samples.
        shape (Sequence[int], optional): Height and width of images in pixels. None takes those of the backbone.
        points (int, optional): Points of a cloud. None takes those of the config.
        train (bool): Whether the loss is wanted, which takes labels. Defaults to False.

    Returns:
        dict[str, Example]: Of each part, see :func:`example_parts`; on the device of the model.

    Raises:
        UserError: If the model takes no images, no clouds, or something unknown; one line with what to do.
    """
    parts = example_parts(model)
    kinds = {name: takes_clouds(part) for name, part in parts.items()}
    if shape and all(kinds.values()):
        raise UserError(f'--shape: {type(model).__name__} takes clouds of points, whose number --points says')
    if points and not any(kinds.values()):
        raise UserError(f'--points: {type(model).__name__} takes images, whose height and width --shape says')
    return {
        name: _clouds(cfg, part, batch_size, points, train)
        if kinds[name]
        else _images(cfg, part, batch_size, shape, train)
        for name, part in parts.items()
    }


def _clouds(cfg: Config, model: nn.Module, batch_size: int, points: int | None, train: bool) -> Example:
    points = points or config_points(cfg)
    if points is None:
        raise UserError(f'{cfg.filename} tells no number of points: give one with --points')
    device = next(model.parameters()).device
    inputs = torch.rand(batch_size, points, model.backbone.in_channels, device=device) - 0.5
    samples = None
    if train and isinstance(model, PointSegmentor):
        labels = torch.randint(model.head.num_classes, (batch_size, points), device=device)
        samples = [PointDataSample(metainfo=dict(category=0)).set_gt_pts_seg(of_cloud) for of_cloud in labels]
    elif train:
        samples = _class_samples(model, batch_size, device)
    return Example(model, inputs, samples, (points,), 'clouds')


def _images(cfg: Config, model: nn.Module, batch_size: int, shape: Sequence[int] | None, train: bool) -> Example:
    if not hasattr(model, 'backbone'):
        raise UserError(f'{type(model).__name__} has no backbone that tells what it takes: this tool cannot run it')
    views = example_inputs(cfg, model, batch_size, shape)
    size, device = tuple(views[0].shape[-2:]), views[0].device
    make = _DENSE.get(type(getattr(model, 'data_preprocessor', None)).__name__)
    if make is not None:
        samples = [make(model, size).to(device) for _ in range(batch_size)]
    else:
        samples = _class_samples(model, batch_size, device) if train else None
    return Example(model, views if len(views) > 1 else views[0], samples, size, 'images')


def config_points(cfg: Config) -> int | None:
    """Points of the clouds that a config's model gets: what its pipelines draw last, None if they say nothing.

    Args:
        cfg (Config): The config of a run.
    """
    for part in (cfg.get('train_dataloader'), cfg.get('test_dataloader'), cfg.get('model')):
        if found := list(_values(part, 'num_points')):
            return found[-1]
    return None


def _values(node: Any, key: str) -> Iterator[Any]:
    """Yield the values of a key anywhere in a config."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _values(part, key)


def _class_samples(model: nn.Module, batch_size: int, device: torch.device) -> list[DataSample] | None:
    """Samples with a class each, for models that are trained on classes."""
    if isinstance(model, BaseSelfSupervisor):
        return None
    classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    if classes is None:
        raise UserError(
            f'--train: {type(model).__name__} has no head that tells num_classes to draw labels from: time it without'
        )
    labels = torch.randint(classes, (batch_size,), device=device)
    # Scores, as mixup and cutmix make them, suit every classification loss.
    scores = nn.functional.one_hot(labels, classes).float()
    return [DataSample().set_gt_label(i).set_gt_score(s) for i, s in zip(labels, scores, strict=True)]


def _segmentation_sample(model: nn.Module, size: tuple[int, int]) -> Any:
    """A sample of mmseg with a class for each pixel."""
    labels = np.random.default_rng(0).integers(model.decode_head.num_classes, size=size)
    results = dict(img=np.zeros((*size, 3), np.uint8), gt_seg_map=labels, img_shape=size, ori_shape=size)
    pack = TRANSFORMS.build(dict(type='mmseg.PackSegInputs', meta_keys=('img_shape', 'ori_shape')))
    return pack(results | dict(seg_fields=['gt_seg_map']))['data_samples']


def _detection_sample(model: nn.Module, size: tuple[int, int]) -> Any:
    """A sample of mmdet with one object, its box and its mask."""
    height, width = size
    left, top, right, bottom = width / 4, height / 4, 3 * width / 4, 3 * height / 4
    outline = [left, top, right, top, right, bottom, left, bottom]
    thing = dict(bbox=[left, top, right, bottom], bbox_label=0, ignore_flag=0, mask=[outline])
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    results = dict(img=np.zeros((*size, 3), np.uint8), height=height, width=width, instances=[thing], **meta)
    load = TRANSFORMS.build(dict(type='mmdet.LoadAnnotations', with_mask=True, box_type=None))
    pack = TRANSFORMS.build(dict(type='mmdet.PackDetInputs', meta_keys=tuple(meta)))
    sample = pack(load(results))['data_samples']
    sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size))
    return sample


# By the data preprocessor, as their packages may be missing.
_DENSE = {'SegDataPreProcessor': _segmentation_sample, 'DetDataPreprocessor': _detection_sample}
