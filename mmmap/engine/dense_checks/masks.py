"""Looks at a few masks of a segmentation data set: labels that are no class, colours, wrong sizes."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from PIL import Image

from ...utils.class_names import listed
from ...utils.errors import UserError
from .classes import class_names, heads
from .dense_runs import datasets, dense_model, is_segmentor, is_training_key, loops
from .pipelines import annotation_loader, evenly, pipeline_of

# Masks of a data set that are looked at.
_LOOKED_AT = 16
# Packages whose transforms do not change labels.
_PACKAGES = {'mmcv', 'mmseg', 'mmdet', 'mmpretrain', 'mmmap'}
_BACKGROUND = ('background', '_background_', '__background__', 'bg', 'unlabeled', 'unlabelled', 'void', 'other')


def check_masks(runner: Runner) -> None:
    """Check the labels in a few masks of each data set.

    Raises:
        UserError: With the file, the label and the setting to change.
    """
    model: Any = dense_model(runner)
    if model is None or not is_segmentor(model):
        return
    for key, dataset in datasets(runner):
        names = class_names(dataset, key)
        found = annotation_loader(dataset, key)
        if names and found and isinstance(dataset, BaseDataset) and _known(dataset, key, found[1]):
            ignored = _ignored_labels(runner, model, key)
            _check_labels(runner, dataset, key, names, found, ignored)


def _known(dataset: BaseDataset, key: str, loader: Any) -> bool:
    """Whether mmseg's own transforms make the labels, so that they can be told from the file."""
    packages = {type(transform).__module__.split('.')[0] for _, transform in pipeline_of(dataset, key)}
    return packages <= _PACKAGES and type(loader)._load_seg_map.__module__ == 'mmseg.datasets.transforms.loading'


def _ignored_labels(runner: Runner, model: Any, key: str) -> dict[str, int]:
    """The label that the losses of a training, or the metrics of an evaluation, ignore, by the key of its setting."""
    if is_training_key(key):
        found = heads(model)
        return {f'{where}.ignore_index': head.ignore_index for where, head in found if hasattr(head, 'ignore_index')}
    phase = key.split('_')[0]
    metrics = getattr(getattr(dict(loops(runner))[phase], 'evaluator', None), 'metrics', ())
    return {
        f'{phase}_evaluator{f"[{index}]" if len(metrics) > 1 else ""}.ignore_index': metric.ignore_index
        for index, metric in enumerate(metrics)
        if hasattr(metric, 'ignore_index')
    }


def _check_labels(
    runner: Runner,
    dataset: BaseDataset,
    key: str,
    names: tuple[str, ...],
    found: tuple[str, Any],
    ignored: dict[str, int],
) -> None:
    where, loader = found
    zero, before, after = bool(getattr(dataset, 'reduce_zero_label', False)), Counter[int](), Counter[int]()
    if getattr(loader, 'reduce_zero_label', None) not in (None, zero):
        raise UserError(
            f'{key}.reduce_zero_label={zero}, but {where}.reduce_zero_label={loader.reduce_zero_label}: set the former '
            'and remove the latter'
        )
    for path, mask in _masks(dataset, key, loader):
        labels = set(np.unique(mask).tolist())
        final = {_final_label(label, zero, getattr(dataset, 'label_map', None)) for label in labels}
        before.update(labels)
        after.update(final)
        for setting, index in ignored.items():
            beyond = sorted(label for label in final if label >= len(names) and label != index)
            if beyond:
                raise UserError(_beyond(path, beyond, key, names, setting, index, zero))
    known = set(after) & set(range(len(names)))
    if sum(after.values()) and not known:
        raise UserError(f'{key}: all pixels of the masks that were looked at have ignored labels ({sorted(before)})')
    if len(known) == 1 < len(names) and len(before) > 1:
        runner.logger.warning(
            f'{key}: after the ignored labels, the masks that were looked at have the class {names[min(known)]!r} '
            f'alone; their files have the labels {sorted(before)}'
            f'{", of which reduce_zero_label=True ignores 0" if zero else ""}.'
        )
    if zero and names[0].lower() in _BACKGROUND and max(set(before) - {255}, default=0) < len(names):
        runner.logger.warning(
            f'{key}.reduce_zero_label=True ignores label 0 and makes label 1 the class {names[0]!r}: is that meant?'
        )


def _masks(dataset: BaseDataset, key: str, loader: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The path and the labels of a few masks, as they are in the files."""
    for index in evenly(len(dataset), _LOOKED_AT):
        sample = dataset.get_data_info(index)
        path, picture = sample.get('seg_map_path'), sample.get('img_path')
        if not isinstance(path, str) or not os.path.isfile(path):
            continue
        with open(path, 'rb') as file:
            content = file.read()
        try:
            mask = mmcv.imfrombytes(content, flag='unchanged', backend=loader.imdecode_backend)
        except Exception as error:
            raise UserError(f'{key}: the mask {path} cannot be read ({type(error).__name__}: {error})') from error
        if mask is None or mask.squeeze().ndim != 2:
            shape = 'no picture' if mask is None else f'of shape {mask.shape}'
            raise UserError(
                f'{key}: the mask {path} is {shape}, expected one number per pixel, the label of its class: convert '
                'colours to labels'
            )
        mask = mask.squeeze()
        size = _size_of(picture)
        if size not in (None, mask.shape):
            raise UserError(f'{key}: the mask {path} has {mask.shape} pixels (height, width), its picture {size}')
        yield path, mask


def _size_of(path: Any) -> tuple[int, int] | None:
    """Height and width of a picture as it is read; None if that is not known."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) > 4
            width, height = picture.size
    except Exception:
        return None
    return (width, height) if turned else (height, width)


def _final_label(label: int, zero: bool, label_map: dict | None) -> int:
    """The label after the transform of mmseg, which ignores 255."""
    label = int(label)
    if zero:
        label = 255 if label in (0, 255) else label - 1
    return (label_map or {}).get(label, label)


def _beyond(
    path: str,
    beyond: list[int],
    key: str,
    names: tuple[str, ...],
    setting: str,
    index: int,
    zero: bool,
) -> str:
    """The message about labels that are no class."""
    text = (
        f'{key}: the mask {path} has the label {beyond[0]}, but {key}.metainfo.classes has {len(names)} '
        f'({listed(names)}), which are 0 to {len(names) - 1}, and {setting}={index}'
    )
    if beyond == [len(names)] and not zero:
        return f'{text}: set {key}.reduce_zero_label=True if the first class is label 1, else name the class of it'
    if len(beyond) == 1:
        return f'{text}: name its class in metainfo.classes, or set {setting}={beyond[0]} if it is to be ignored'
    return f'{text}: it has {len(beyond)} such labels; convert them to 0, 1, 2, ... in the order of metainfo.classes'
