"""Random batches for the model of any config, to count its operations or to time it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmap.models.data_preprocessor import PointDataPreprocessor
from mmmap.models.segmentors import PointSegmentor, SceneSegmentor
from mmmap.models.selfsup import JointMAP
from mmmap.structures import PointDataSample
from mmmap.utils.errors import UserError

from .dense_examples import is_detector, keep_most_detections, output_mode, sample_maker, set_initial_weights


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
        mode (str): The mode of the model's ``forward`` that computes what a test does.
        objects (int, optional): Detections in an image, if the model is a detector that is not trained.
    """

    model: BaseModel
    inputs: Tensor | list[Tensor]
    samples: list | None
    size: tuple[int, ...]
    unit: str
    mode: str = 'tensor'
    objects: int | None = None

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return len(self.inputs[0] if isinstance(self.inputs, list) else self.inputs)

    def __str__(self) -> str:
        views = f'{len(self.inputs)} views of ' if isinstance(self.inputs, list) else ''
        size = ' x '.join(map(str, self.size))
        objects = '' if self.objects is None else f' with {self.objects} detections each'
        return f'{views}{self.batch_size} x {size} {"pixels" if self.unit == "images" else "points"}{objects}'


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

    A detector gets the weights that a training starts from. If it is not trained, its thresholds are lowered, see
    :func:`mmmap.apis.dense_examples.keep_most_detections`.

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
    if is_detector(model):
        set_initial_weights(model)
    make_sample = sample_maker(model)
    samples: list | None = None
    if make_sample is not None:
        samples = [make_sample(cfg, model, (height, width)).to(views[0].device) for _ in range(batch_size)]
    elif train:
        samples = _class_samples(model, batch_size, views[0].device)
    inputs = views if len(views) > 1 else views[0]
    objects = None
    if not train and samples is not None and is_detector(model):
        objects = keep_most_detections(model, inputs, samples)
    return ExampleBatch(model, inputs, samples, (height, width), 'images', output_mode(model), objects)


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
    # In a backbone of another package that may be the width of some layer.
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None) if sample_maker(model) else None
    channels = getattr(model.backbone, 'in_channels', 3) if mean is None else mean.numel()
    device = next(model.parameters()).device
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
