"""Models and images for tools that run without a Runner."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from torch import Tensor, nn

from mmmap.engine.checkpoint import check_checkpoint_file
from mmmap.engine.errors import UserError
from mmmap.registry import MODELS
from mmmap.structures.cloud_files import read_cloud
from mmmap.utils.checkpoint_fit import shorten_keys
from mmmap.utils.safe_load import load_checkpoint as load_safely

#: What the model of a converted checkpoint is made of. Others are not built: a file of others names what it likes.
STORED_TYPES = frozenset(
    {
        'BN1d',
        'MAP',
        'MAPHybrid',
        'PixelReconstructionHead',
        'PointDataPreprocessor',
        'PointMAPHybrid',
        'PointReconstructionHead',
        'RandomMasking',
        'RegionCausalDecoder',
        'RegisterNeck',
        'ReleasedPointDecoder',
        'mmpretrain.ClsDataPreprocessor',
        'mmpretrain.CrossEntropyLoss',
        'mmpretrain.ImageClassifier',
        'mmpretrain.LinearClsHead',
        'mmpretrain.SelfSupDataPreprocessor',
        'mmpretrain.StackedLinearClsHead',
    }
)


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config as a Runner would: with the config's preprocessor, under its default scope.

    Args:
        cfg (Config): The config of a run.

    Raises:
        UserError: If it has no model.
    """
    if 'model' not in cfg:
        raise UserError(f'{cfg.filename} has no model: give the config of a run, not a part of one')
    model_cfg = {'_scope_': cfg.get('default_scope', 'mmpretrain'), **cfg.model}
    # The model's own preprocessor wins, as in a Runner.
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model_cfg)


def stored_model(checkpoint: str) -> nn.Module:
    """Build the model whose config a converted checkpoint stores, weights not loaded.

    Args:
        checkpoint (str): A checkpoint.

    Raises:
        UserError: If the file is missing or damaged, or stores no config, or one of other parts than a converted
            checkpoint has.
    """
    check_checkpoint_file(checkpoint)
    meta = load_safely(checkpoint).get('meta') or {}
    if not isinstance(meta.get('model_cfg'), dict):
        raise UserError(f'{checkpoint} stores no model config: give one with --config')
    for kind in _types(meta['model_cfg']):
        if not isinstance(kind, str) or kind not in STORED_TYPES:
            raise UserError(f'{checkpoint} stores a config with type={kind!r}, not of a converted model: use --config')
    return MODELS.build({'_scope_': 'mmpretrain', **meta['model_cfg']})


def _types(cfg: Any) -> Iterator[Any]:
    """Yield every type, scope and file that a config names."""
    if isinstance(cfg, dict):
        # A base, a scope or an initialisation could lead to others.
        yield from (
            value for key, value in cfg.items() if key in ('type', '_scope_', 'init_cfg', 'pretrained') and value
        )
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        for part in cfg:
            yield from _types(part)


def load_model(model: nn.Module, checkpoint: str) -> nn.Module:
    """Load all weights of a model and set it to evaluation mode.

    Args:
        model (nn.Module): The model.
        checkpoint (str): A checkpoint of such a model, nothing missing, nothing else in it.

    Returns:
        nn.Module: The same model.

    Raises:
        UserError: If the file is missing or cut off.
        RuntimeError: If it does not fit.
    """
    check_checkpoint_file(checkpoint)
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as error:
        raise RuntimeError(f'{checkpoint}: {shorten_keys(str(error))}') from error
    return model.eval()


def example_inputs(cfg: Config, model: nn.Module, batch_size: int, shape: Sequence[int] | None = None) -> list[Tensor]:
    """Noise in place of preprocessed images, to count or time a model.

    Args:
        cfg (Config): The config of the run: a ``MultiView`` in its training pipeline tells how many views it takes.
        model (nn.Module): Its model.
        batch_size (int): Images.
        shape (Sequence[int], optional): Height and width in pixels. None takes those of the backbone.

    Returns:
        list[Tensor]: A batch for each view, shape (B, c, H, W), on the device of the model.

    Raises:
        UserError: If there is no shape and the backbone tells none.
    """
    shape = shape or getattr(model.backbone, 'img_size', None)
    if shape is None:
        raise UserError(f'{type(model.backbone).__name__} tells no image size: give one with --shape')
    pipeline = cfg.get('train_dataloader', {}).get('dataset', {}).get('pipeline', [])
    numbers = [step.num_views for step in pipeline if step['type'].split('.')[-1] == 'MultiView']
    views = sum(sum(n) if isinstance(n, (list, tuple)) else n for n in numbers) or 1
    channels, device = getattr(model.backbone, 'in_channels', 3), next(model.parameters()).device
    return [torch.randn(batch_size, channels, *shape, device=device) for _ in range(views)]


def load_images(model: nn.Module, paths: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Read image files and preprocess them for a model.

    Args:
        model (nn.Module): A model with a data preprocessor.
        paths (Sequence[str]): Image files.
        size (tuple[int, int]): Height and width in pixels: each image is resized to cover it and cropped at its centre.

    Returns:
        Tensor: What the model sees, shape (B, c, height, width).

    Raises:
        ValueError: If a file is no image; the message names it.
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


def _preprocess(model: nn.Module, images: Sequence[np.ndarray]) -> Tensor:
    """What a model sees of images (H, W, 3) of one size."""
    pack = Compose([dict(type='mmpretrain.PackInputs')])
    batch = default_collate([pack(dict(img=img)) for img in images])
    with torch.no_grad():
        return model.data_preprocessor(batch)['inputs']


def _takes_bgr(model: nn.Module) -> bool:
    """Whether a model turns BGR into the RGB that it sees: then blue, the first channel, becomes the last one."""
    black, blue = np.zeros((2, 8, 8, 3), np.uint8)
    blue[..., 0] = 255
    black, blue = _preprocess(model, [black, blue])
    return not torch.equal(black[-1], blue[-1])


def load_clouds(model: nn.Module, paths: Sequence[str], num_points: int) -> Tensor:
    """Read files of clouds and preprocess them for a model of shapes.

    Args:
        model (nn.Module): A model with a backbone of clouds and a data preprocessor.
        paths (Sequence[str]): Files, see :func:`~mmmap.structures.cloud_files.read_cloud`.
        num_points (int): Points to draw of each, after it was moved and scaled into the unit sphere.

    Returns:
        Tensor: What the model sees, shape (B, num_points, 3 + F).

    Raises:
        ValueError: If a file is no cloud or has other columns than the model takes; the message names it.
    """
    pipeline = Compose(
        [
            dict(type='PointsNormalize'),
            dict(type='PointsSample', num_points=num_points),
            dict(type='PackPointInputs'),
        ]
    )
    samples = []
    for path in paths:
        points = read_cloud(path)
        if points.shape[1] != model.backbone.in_channels:
            taken = model.backbone.in_channels
            raise ValueError(
                f'{path} has {points.shape[1]} columns, the model takes {taken}: give it those alone, coordinates first'
            )
        samples.append(pipeline(dict(points=points, lidar_path=str(path))))
    return model.data_preprocessor(pseudo_collate(samples))['inputs']


def load_first(cfg: Config, model: nn.Module, count: int) -> Tensor:
    """The first samples of a config's training set, as its pipeline gives them.

    Args:
        cfg (Config): The config of a run.
        model (nn.Module): Its model.
        count (int): How many samples.

    Returns:
        Tensor: What the model sees, shape (B, ...).

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
        # Where a config names none, the tools stack images.
        collate_fn=cfg.train_dataloader.get('collate_fn', dict(type='default_collate')),
    )
    batch = next(iter(Runner.build_dataloader(loader)))
    with torch.no_grad():
        return model.data_preprocessor(batch)['inputs']
