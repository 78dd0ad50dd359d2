"""Finds and replaces the data sets of a config."""

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config
from mmpretrain.datasets import BaseDataset

from mmmap.datasets.decoded_images import square_transforms
from mmmap.registry import DATASETS

from .config_parts import dotted, type_name, walk

# Files are loaded as BGR. Data sets of arrays, such as CIFAR, give RGB, which the next steps of their pipelines expect.
_TO_RGB = [dict(type='NumpyToPIL', to_rgb=True), dict(type='PILToNumpy')]
# Options of every data set, wherever its images come from.
_KEPT = ('indices', 'max_refetch', 'serialize_data')
#: The purposes of data loaders; ``bank`` and ``query`` are those of kNN.
TRAIN_ROLES = ('train', 'bank')
ROLES = (*TRAIN_ROLES, 'val', 'test', 'query')


def find_datasets(part: Any, role: str | None = None) -> Iterator[tuple[dict, str]]:
    """Yield every data set of a config with the role of its loader, one of ``ROLES``.

    Data sets in hooks, loops and wrappers are included, the wrappers themselves are not.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            inner = key.removesuffix('_dataloader') if key.endswith('_dataloader') else role
            is_wrapper = isinstance(value, dict) and {'dataset', 'datasets'} & value.keys()
            if inner is not None and inner in ROLES and key == 'dataset' and isinstance(value, dict) and not is_wrapper:
                yield value, inner
            else:
                yield from find_datasets(value, inner)
    elif isinstance(part, (list, tuple)):
        for value in part:
            # A member of ConcatDataset or a similar wrapper.
            if role is not None and role in ROLES and isinstance(value, dict) and 'pipeline' in value:
                yield value, role
            else:
                yield from find_datasets(value, role)


def replace_datasets(cfg: Config, settings: Callable[[str, dict], dict | None]) -> None:
    """Replace data sets of a config by data sets of image files, in place.

    The pipelines still get images of the same kind. If the images of the old data set are squares of one size, like
    those of CIFAR and ``DecodedImages``, the short side is resized to the size of the backbone and the centre is cut
    out. Options that every data set has, such as ``indices``, are kept.

    Args:
        cfg (Config): The config of a run.
        settings (Callable[[str, dict], dict | None]): Takes the role and the config of a data set. Returns the config
            of an :class:`ImageFolder` or :class:`ImageShards`, or None to keep the data set.
    """
    for old, role in list(find_datasets(cfg._cfg_dict)):
        new = settings(role, old)
        if new is None:
            continue
        load, *fit = square_transforms(_size(cfg), strict=role not in TRAIN_ROLES)
        # mmcv's LoadImageFromFile stops at a broken image, and reads fewer formats.
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
    """Whether the config of a data set gives images with one label each or none, like those of mmpretrain."""
    with DATASETS.switch_scope_and_registry(scope) as registry:
        kind = data_set.get('type')
        kind = kind if callable(kind) else registry.get(str(kind))
    return isinstance(kind, type) and issubclass(kind, BaseDataset)


def set_num_classes(cfg: Config, number: int) -> list[str]:
    """Set the number of classes of the model, its data preprocessor and the metrics of a config, in place.

    With fewer than five classes a top-5 accuracy is left out. Returns a line for each change of ``topk``.
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
