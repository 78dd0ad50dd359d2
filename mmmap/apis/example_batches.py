"""Random batches for the model of any config, to count its operations or to time it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import TRANSFORMS
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmap.models.data_preprocessor import PointDataPreprocessor
from mmmap.models.segmentors import PointSegmentor, SceneSegmentor
from mmmap.models.selfsup import JointMAP
from mmmap.structures import PointDataSample
from mmmap.utils.errors import UserError


@dataclass(frozen=True)
class ExampleBatch:
    """A random batch, and the model that takes it.

    Attributes:
        model (BaseModel): The model, or a part of one that takes its own batches.
        inputs (Tensor | list[Tensor]): Noise in place of preprocessed inputs, (B, c, H, W) or (B, N, 3 + F); a list of
            these, one per view, if the model takes several views.
        samples (list, optional): Data samples with random labels, None if the model needs none.
        size (tuple[int, ...]): Height and width of the images, or number of points in a cloud.
        unit (str): 'images' or 'clouds'.
    """

    model: BaseModel
    inputs: Tensor | list[Tensor]
    samples: list | None
    size: tuple[int, ...]
    unit: str

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return len(self.inputs[0] if isinstance(self.inputs, list) else self.inputs)

    def __str__(self) -> str:
        views = f'{len(self.inputs)} views of ' if isinstance(self.inputs, list) else ''
        size = ' x '.join(map(str, self.size))
        return f'{views}{self.batch_size} x {size} {"pixels" if self.unit == "images" else "points"}'


def parts_with_inputs(model: BaseModel) -> dict[str, BaseModel]:
    """The parts of a model that take their own batches: 'image' and 'points' of ``JointMAP``, else one, named ''."""
    if isinstance(model, JointMAP):
        return dict(image=model.image, points=model.points)
    # A scene segmentor cuts scenes into crops for the segmentor in it.
    return {'': model.segmentor if isinstance(model, SceneSegmentor) else model}


def takes_clouds(model: BaseModel) -> bool:
    """Whether a part of :func:`parts_with_inputs` takes point clouds. Otherwise it takes images."""
    return isinstance(getattr(model, 'data_preprocessor', None), PointDataPreprocessor)


def example_batches(
    cfg: Config,
    model: BaseModel,
    batch_size: int,
    shape: Sequence[int] | None = None,
    points: int | None = None,
    train: bool = False,
) -> dict[str, ExampleBatch]:
    """Make a random batch for each part of a model.

    Args:
        cfg (Config): The config of the run. Its pipelines tell the points of a cloud and the views of an image.
        model (BaseModel): Its model.
        batch_size (int): Samples in each batch.
        shape (Sequence[int], optional): Height and width of images in pixels. None takes those of the backbone.
        points (int, optional): Points of a cloud. None takes those of the config.
        train (bool): Whether to add the labels that the loss needs. Defaults to False.

    Returns:
        dict[str, ExampleBatch]: A batch for each part of :func:`parts_with_inputs`, on the device of the model.

    Raises:
        UserError: If an option does not fit the model, or the inputs of the model are not known.
    """
    parts = parts_with_inputs(model)
    of_clouds = {name: takes_clouds(part) for name, part in parts.items()}
    if shape and all(of_clouds.values()):
        raise UserError(f'--shape: {type(model).__name__} takes point clouds: give their size with --points')
    if points and not any(of_clouds.values()):
        raise UserError(f'--points: {type(model).__name__} takes images: give their size with --shape')
    return {
        name: _cloud_batch(cfg, part, batch_size, points, train)
        if of_clouds[name]
        else _image_batch(cfg, part, batch_size, shape, train)
        for name, part in parts.items()
    }


def _cloud_batch(cfg: Config, model: BaseModel, batch_size: int, points: int | None, train: bool) -> ExampleBatch:
    points = points or points_per_cloud(cfg)
    if points is None:
        raise UserError(f'{cfg.filename} has no number of points: give one with --points')
    device = next(model.parameters()).device
    inputs = torch.rand(batch_size, points, model.backbone.in_channels, device=device) - 0.5
    samples: list | None = None
    if train and isinstance(model, PointSegmentor):
        labels = torch.randint(model.head.num_classes, (batch_size, points), device=device)
        samples = [PointDataSample(metainfo=dict(category=0)).set_gt_pts_seg(of_cloud) for of_cloud in labels]
    elif train:
        samples = _class_samples(model, batch_size, device)
    return ExampleBatch(model, inputs, samples, (points,), 'clouds')


def _image_batch(
    cfg: Config, model: BaseModel, batch_size: int, shape: Sequence[int] | None, train: bool
) -> ExampleBatch:
    if not hasattr(model, 'backbone'):
        raise UserError(f'{type(model).__name__} has no backbone, so that its inputs are not known to this tool')
    views = example_images(cfg, model, batch_size, shape)
    height, width = views[0].shape[-2:]
    make_sample = _DENSE.get(type(getattr(model, 'data_preprocessor', None)).__name__)
    samples: list | None = None
    if make_sample is not None:
        samples = [make_sample(model, (height, width)).to(views[0].device) for _ in range(batch_size)]
    elif train:
        samples = _class_samples(model, batch_size, views[0].device)
    return ExampleBatch(model, views if len(views) > 1 else views[0], samples, (height, width), 'images')


def example_images(cfg: Config, model: BaseModel, batch_size: int, shape: Sequence[int] | None = None) -> list[Tensor]:
    """Noise in place of preprocessed images, a batch (B, c, H, W) for each view, on the device of the model.

    ``MultiView`` in the training pipeline gives the number of views. The default shape (H, W) is the backbone's.

    Raises:
        UserError: If neither ``shape`` nor the backbone tells the size.
    """
    shape = shape or getattr(model.backbone, 'img_size', None)
    if shape is None:
        raise UserError(f'{type(model.backbone).__name__} has no image size: give one with --shape')
    pipeline = cfg.get('train_dataloader', {}).get('dataset', {}).get('pipeline', [])
    numbers = [step.num_views for step in pipeline if step['type'].split('.')[-1] == 'MultiView']
    views = sum(sum(n) if isinstance(n, (list, tuple)) else n for n in numbers) or 1
    channels, device = getattr(model.backbone, 'in_channels', 3), next(model.parameters()).device
    return [torch.randn(batch_size, channels, *shape, device=device) for _ in range(views)]


def points_per_cloud(cfg: Config) -> int | None:
    """Number of points in the clouds of a config: the last ``num_points`` of its pipelines, None if there is none."""
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


def _class_samples(model: BaseModel, batch_size: int, device: torch.device) -> list[DataSample] | None:
    """Samples with random classes. None for self-supervised models, which need none."""
    if isinstance(model, BaseSelfSupervisor):
        return None
    classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    if classes is None:
        raise UserError(
            f'--train: {type(model).__name__} has no head with num_classes, so that it cannot be trained here'
        )
    labels = torch.randint(classes, (batch_size,), device=device)
    # Every classification loss takes scores, as mixup and cutmix make them too.
    scores = nn.functional.one_hot(labels, classes).float()
    return [DataSample().set_gt_label(i).set_gt_score(s) for i, s in zip(labels, scores, strict=True)]


def _segmentation_sample(model: BaseModel, size: tuple[int, int]) -> Any:
    """A sample of mmseg with a random class for each pixel."""
    labels = np.random.default_rng(0).integers(model.decode_head.num_classes, size=size)
    results = dict(img=np.zeros((*size, 3), np.uint8), gt_seg_map=labels, img_shape=size, ori_shape=size)
    pack = TRANSFORMS.build(dict(type='mmseg.PackSegInputs', meta_keys=('img_shape', 'ori_shape')))
    return pack(results | dict(seg_fields=['gt_seg_map']))['data_samples']


def _detection_sample(model: BaseModel, size: tuple[int, int]) -> Any:
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


# Found by the name of the data preprocessor, because mmseg and mmdet may not be installed.
_DENSE = {'SegDataPreProcessor': _segmentation_sample, 'DetDataPreprocessor': _detection_sample}
