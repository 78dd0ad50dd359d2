"""Finds and replaces the data sets of a config."""

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config
from mmpretrain.datasets import BaseDataset

from mmmap.datasets.decoded_images import square_transforms
from mmmap.registry import DATASETS

from .config_check import dotted, walk
from .config_rules import type_name

# Files are loaded as BGR; data sets that give arrays, as CIFAR's, give RGB, and what follows in them expects it.
_TO_RGB = [dict(type='NumpyToPIL', to_rgb=True), dict(type='PILToNumpy')]
# What any data set may be told, wherever its images come from.
_KEPT = ('indices', 'max_refetch', 'serialize_data')
#: Loaders by what they are for.
TRAIN_ROLES = ('train', 'bank')
ROLES = (*TRAIN_ROLES, 'val', 'test', 'query')


def data_sets(part: Any, role: str | None = None) -> Iterator[tuple[dict, str]]:
    """Yield every data set of a config, with what its loader is for.

    Those within hooks, loops and wrappers of data sets are included, the wrappers themselves are not.

    Args:
        part (Any): The config or a part of it.
        role (str, optional): One of ``ROLES``, of the loader around this part.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            inner = key.removesuffix('_dataloader') if key.endswith('_dataloader') else role
            is_wrapper = isinstance(value, dict) and {'dataset', 'datasets'} & value.keys()
            if inner in ROLES and key == 'dataset' and isinstance(value, dict) and not is_wrapper:
                yield value, inner
            else:
                yield from data_sets(value, inner)
    elif isinstance(part, (list, tuple)):
        for value in part:
            # Of ConcatDataset and the like.
            is_data_set = role in ROLES and isinstance(value, dict) and 'pipeline' in value
            yield from [(value, role)] if is_data_set else data_sets(value, role)


def replace_data_sets(cfg: Config, settings: Callable[[str, dict], dict | None]) -> None:
    """Put data sets of image files in place of those of a config.

    The pipelines get images like those before. Where these are squares of one size, as CIFAR's and those of
    ``DecodedImages`` are, the short side is resized to the backbone's size and the centre cut out. ``indices`` and
    other options of any data set stay.

    Args:
        cfg (Config): The config of a run, changed in place.
        settings (Callable[[str, dict], dict | None]): Gets the role of a data set and its config; returns that of
            an :class:`ImageFolder` or :class:`ImageShards`, or None to leave it.
    """
    for old, role in list(data_sets(cfg._cfg_dict)):
        new = settings(role, old)
        if new is None:
            continue
        load, *fit = square_transforms(_size(cfg), strict=role not in TRAIN_ROLES)
        # That of mmcv stops at a broken image, and reads fewer formats.
        pipeline = [
            load if type_name(step['type']) == 'LoadImageFromFile' else step for step in old.get('pipeline', [])
        ]
        are_decoded = type_name(old['type']) == 'DecodedImages'
        if are_decoded and new['type'] == 'ImageFolder':
            new |= dict(type='DecodedImages', size=_size(cfg))
        else:
            kinds = [value['type'] for _, value in walk(pipeline) if isinstance(value, dict) and 'type' in value]
            if not any('Load' in type_name(kind) for kind in kinds):
                pipeline = [load, *fit, *([] if are_decoded else _TO_RGB), *pipeline]
            elif not any('Resize' in type_name(kind) or 'Crop' in type_name(kind) for kind in kinds):
                pipeline[1:1] = fit
        kept = {key: old[key] for key in _KEPT if key in old}
        old.clear()
        old.update(new, pipeline=pipeline, **kept)


def _size(cfg: Config) -> int:
    size = cfg.model.backbone.get('img_size', 224)
    return size if isinstance(size, int) else max(size)


def reads_images(data_set: dict, scope: str | None) -> bool:
    """Whether a data set of a config has images with one label each or none, as mmpretrain's have.

    Args:
        data_set (dict): Its config.
        scope (str, optional): The default scope of the config.
    """
    with DATASETS.switch_scope_and_registry(scope) as registry:
        kind = data_set.get('type')
        kind = kind if callable(kind) else registry.get(str(kind))
    return isinstance(kind, type) and issubclass(kind, BaseDataset)


def set_num_classes(cfg: Config, number: int) -> list[str]:
    """Set the number of classes wherever a model, its data preprocessor or a metric has one, in place.

    Args:
        cfg (Config): The config of a run.
        number (int): How many classes there are. A top-5 accuracy of fewer than five is left out.

    Returns:
        list[str]: What was left out, one line each.
    """
    messages = []
    for key in ('model', 'data_preprocessor', 'val_evaluator', 'test_evaluator'):
        for path, part in walk(cfg._cfg_dict.get(key), (key,)):
            if not isinstance(part, dict):
                continue
            if 'num_classes' in part:
                part['num_classes'] = number
            topk = part.get('topk', ())
            topk = topk if isinstance(topk, (list, tuple)) else (topk,)
            kept = tuple(k for k in topk if k <= number) or (1,)
            if topk and kept != tuple(topk):
                messages.append(f'{dotted(path)}.topk {tuple(topk)} -> {kept}, as there are {number} classes')
                part['topk'] = kept
    return messages


def is_classifier(cfg: Config) -> bool:
    """Whether the model of a config has classes."""
    return any(isinstance(value, dict) and 'num_classes' in value for _, value in walk(cfg._cfg_dict.get('model')))
