"""Preprocessed inputs of a model from files or a config's data set, without a Runner."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor

from mmmap.structures.cloud_files import read_cloud
from mmmap.utils.errors import UserError


def load_images(model: BaseModel, paths: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Read image files and preprocess them for a model.

    Args:
        model (BaseModel): The model, with its data preprocessor.
        paths (Sequence[str]): Image files.
        size (tuple[int, int]): Height and width in pixels. Each image is resized to cover it, then centre-cropped.

    Returns:
        Tensor: The model's input, shape (B, c, height, width).

    Raises:
        ValueError: If a file is not an image. The message names it.
    """
    height, width = size
    pipeline = Compose(
        [
            dict(type='LoadImageChecked', on_error='raise'),
            dict(type='mmpretrain.ResizeEdge', scale=max(height, width), edge='short', backend='pillow'),
            dict(type='mmpretrain.CenterCrop', crop_size=(width, height)),
        ]
    )
    images = [pipeline(dict(img_path=path))['img'] for path in paths]
    if not _takes_bgr(model):
        images = [np.ascontiguousarray(img[..., ::-1]) for img in images]
    return _preprocess(model, images)


def _preprocess(model: BaseModel, images: Sequence[np.ndarray]) -> Tensor:
    """The model's input for images (H, W, 3) of one size."""
    pack = Compose([dict(type='mmpretrain.PackInputs')])
    batch = default_collate([pack(dict(img=img)) for img in images])
    with torch.no_grad():
        return model.data_preprocessor(batch)['inputs']


def _takes_bgr(model: BaseModel) -> bool:
    """Whether the data preprocessor swaps BGR to RGB: a change of the first channel then changes the last one."""
    black, blue = np.zeros((2, 8, 8, 3), np.uint8)
    blue[..., 0] = 255
    outputs = _preprocess(model, [black, blue])
    return not torch.equal(outputs[0, -1], outputs[1, -1])


def load_clouds(model: BaseModel, paths: Sequence[str], num_points: int) -> Tensor:
    """Read files of point clouds and preprocess them for a model.

    Args:
        model (BaseModel): The model, with its data preprocessor.
        paths (Sequence[str]): Files, see :func:`~mmmap.structures.cloud_files.read_cloud`.
        num_points (int): Points to sample from each cloud after it is scaled to the unit sphere.

    Returns:
        Tensor: The model's input, shape (B, num_points, 3 + F).

    Raises:
        ValueError: If a file is not a cloud, or has other columns than the model takes. The message names it.
    """
    sample = dict(type='PointsSample', num_points=num_points)
    pipeline = Compose([dict(type='PointsNormalize'), sample, dict(type='PackPointInputs')])
    samples = []
    for path in paths:
        points, channels = read_cloud(path), model.backbone.in_channels
        if points.shape[1] != channels:
            raise ValueError(
                f'{path} has {points.shape[1]} columns, the model takes {channels}: give only those, coordinates first'
            )
        samples.append(pipeline(dict(points=points, lidar_path=str(path))))
    return model.data_preprocessor(pseudo_collate(samples))['inputs']


def load_training_samples(cfg: Config, model: BaseModel, count: int) -> Tensor:
    """The model's input for the first ``count`` samples of its config's training set, shape (count, ...).

    Raises:
        UserError: If the config has no training set.
    """
    if cfg.get('train_dataloader') is None:
        raise UserError(f'{cfg.filename} has no train_dataloader')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    loader = dict(
        dataset=cfg.train_dataloader.dataset,
        batch_size=count,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=cfg.train_dataloader.get('collate_fn', dict(type='default_collate')),
    )
    batch = next(iter(Runner.build_dataloader(loader)))
    with torch.no_grad():
        return model.data_preprocessor(batch)['inputs']
