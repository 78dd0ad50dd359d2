"""The configs of the repository, and their models without memory behind the weights."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmmap.models import MAPHybrid
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@cache
def _read(path: Path) -> Config:
    return Config.fromfile(path)


def read(path: Path) -> Config:
    """A config of its own, and its default scope."""
    cfg = deepcopy(_read(path))
    init_default_scope(cfg.default_scope)
    return cfg


def is_classifier(cfg: Config) -> bool:
    return cfg.model.type == 'HybridClassifier'


def _kind(path: Path) -> str:
    try:
        cfg = _read(path)
    except ModuleNotFoundError:
        # Its bases are mmdet's, which is not installed; then its tests are skipped.
        return DENSE['mmdet']
    except Exception:
        # It fails in its own tests, not in those of all others.
        return 'broken'
    if cfg.default_scope in DENSE:
        return DENSE[cfg.default_scope]
    if cfg.get('strategy'):
        return 'strategy'
    if 'pointmap' in path.parts:
        return 'points'
    if cfg.model.type == 'JointMAP':
        return 'joint'
    return 'classifier' if is_classifier(cfg) else 'pretraining'


# The kinds whose packages may be missing, each with tests of its own.
DENSE = {'mmseg': 'segmentation', 'mmdet': 'detection'}
KINDS = {path: _kind(path) for path in FILES}
SEGMENTATION = [path for path in FILES if KINDS[path] == 'segmentation']
DETECTION = [path for path in FILES if KINDS[path] == 'detection']
# All others need mmpretrain alone.
OF_MMPRETRAIN = [path for path in FILES if KINDS[path] not in DENSE.values()]
# Clouds have no patches, pixels or sizes of images.
POINTS = [path for path in OF_MMPRETRAIN if KINDS[path] == 'points']
# Joint pretraining has two backbones.
JOINT = [path for path in OF_MMPRETRAIN if KINDS[path] == 'joint']
CONFIGS = [path for path in OF_MMPRETRAIN if KINDS[path] not in ('points', 'joint')]
# Those with a strategy are others once more, with the same model.
STRATEGY = [path for path in CONFIGS if KINDS[path] == 'strategy']
CLASSIFIERS = [path for path in CONFIGS if KINDS[path] == 'classifier']
PRETRAINING = [path for path in CONFIGS if KINDS[path] == 'pretraining']


@cache
def _build(text: str) -> nn.Module:
    with torch.device('meta'):
        # mmdet's models take their settings by attribute.
        return MODELS.build(ConfigDict(json.loads(text)))


def build_on_meta(cfg: Config) -> nn.Module:
    """The model on the meta device, so that the largest is as cheap as the smallest; one for equal configs."""
    init_default_scope(cfg.default_scope)
    model = _build(json.dumps(cfg.model.to_dict()))
    model.zero_grad()
    return model


def backbone_of(cfg: Config) -> ConfigDict:
    """The backbone of a config, also of what segments scenes by their crops; that of images in joint pretraining."""
    owner = next((cfg.model[name] for name in ('segmentor', 'image') if name in cfg.model), cfg.model)
    return owner.backbone


def shorten(cfg: Config) -> Config:
    """The same model with the first and the last two of its blocks: sizes fit each other at any depth."""
    cfg = deepcopy(cfg)
    backbone = cfg.model.backbone
    arch = MAPHybrid.resolve_arch(backbone.arch if isinstance(backbone.arch, str) else backbone.arch.to_dict())
    if isinstance(backbone.get('out_indices'), (list, tuple)):
        # Taps at the same shares of the depth.
        backbone.out_indices = [(index + 1) * 4 // len(arch['layout']) - 1 for index in backbone.out_indices]
    backbone.arch = arch | dict(layout=arch['layout'][:2] + arch['layout'][-2:])
    return cfg


def find(part: Any, type_part: str) -> Iterator[dict]:
    """The dicts within a part of a config whose type contains a text, nested ones too."""
    if isinstance(part, dict):
        if type_part in str(part.get('type', '')):
            yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for item in part:
            yield from find(item, type_part)


def name_parts(path: str | Path) -> dict[str, int]:
    """What the name of a config says: gpus and batch, epochs, px."""
    stem = Path(path).stem
    parts = {}
    if match := re.search(r'_(\d+)xb(\d+)', stem):
        parts.update(gpus=int(match[1]), batch=int(match[2]))
    if match := re.search(r'-(\d+)e_', stem):
        parts.update(epochs=int(match[1]))
    if match := re.search(r'-(\d+)px$', stem):
        parts.update(px=int(match[1]))
    elif stem.endswith('_in1k'):
        parts.update(px=224)
    return parts


def starting_point(cfg: Config) -> str | None:
    """The checkpoint that a config starts from."""
    init_cfg = backbone_of(cfg).get('init_cfg') or {}
    return cfg.get('load_from') or init_cfg.get('checkpoint')


def config_of(checkpoint: str) -> Path:
    """The config whose training writes a checkpoint work_dirs/NAME/epoch_N.pth by default."""
    name = Path(checkpoint).parent.name
    if name == 'demo':
        # tools/demo.py trains it there.
        name = 'map_hybrid-digits_1xb64-coslr-16e_digits-28px'
    return next(path for path in OF_MMPRETRAIN if path.stem == name)
