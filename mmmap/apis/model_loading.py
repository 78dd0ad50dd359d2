"""Models from configs and checkpoints, without a Runner."""

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import load_checkpoint

from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.registry import MODELS
from mmmap.utils.checkpoint_fit import shorten_keys
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load_checkpoint as load_safely

#: Types that the config in a converted checkpoint may name. A file from others could name any type.
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


def build_model(cfg: Config) -> BaseModel:
    """Build the model of a run's config as a Runner does: with its data preprocessor, under its default scope.

    Raises:
        UserError: If the config has no model.
    """
    if 'model' not in cfg:
        raise UserError(f'{cfg.filename} has no model: give the config of a run, not a part of one')
    # Some models change their config.
    model_cfg = {'_scope_': cfg.get('default_scope', 'mmpretrain'), **copy.deepcopy(cfg.model)}
    # A preprocessor in the model has priority, as in a Runner.
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model_cfg)


def build_stored_model(checkpoint: str) -> BaseModel:
    """Build the model whose config is stored in a converted checkpoint. Its weights are not loaded.

    Raises:
        UserError: If the file is missing or damaged, or stores no config, or a type that is not in ``STORED_TYPES``.
    """
    check_checkpoint_file(checkpoint)
    meta = load_safely(checkpoint).get('meta') or {}
    if not isinstance(meta.get('model_cfg'), dict):
        raise UserError(f'{checkpoint} stores no model config: give one with --config')
    for kind in _types(meta['model_cfg']):
        if not isinstance(kind, str) or kind not in STORED_TYPES:
            raise UserError(
                f'{checkpoint} stores a config with type={kind!r}, which no converted model has: give one with --config'
            )
    return MODELS.build({'_scope_': 'mmpretrain', **meta['model_cfg']})


def _types(cfg: Any) -> Iterator[Any]:
    """Yield every type in a config, and every scope, initialisation and file: these could lead to other types."""
    if isinstance(cfg, dict):
        yield from (cfg[key] for key in ('type', '_scope_', 'init_cfg', 'pretrained') if cfg.get(key))
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        for part in cfg:
            yield from _types(part)


def load_weights(model: BaseModel, checkpoint: str) -> BaseModel:
    """Load all weights of a model from a checkpoint, and set the model to evaluation mode.

    Raises:
        UserError: If the file is missing or damaged.
        RuntimeError: If the checkpoint misses a weight of the model, or has one that the model does not have.
    """
    check_checkpoint_file(checkpoint)
    try:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as error:
        raise RuntimeError(f'{checkpoint}: {shorten_keys(str(error))}') from error
    return model.eval()
