"""Makes the labels of one data set mean what those of another do: by the names of their classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from ..utils.class_names import class_positions, listed, names_missing, names_of
from ..utils.errors import UserError
from .wrapped_datasets import inner_datasets, leaf_datasets


def _named_parts(dataset: Any, where: str) -> list[tuple[str, Any, tuple[str, ...] | None]]:
    """Key, data set and class names of each data set inside wrappers; some know the names only when they are loaded."""
    # A data set may be in it twice.
    parts = {}
    # mmdet's ConcatDataset may have several tasks.
    if isinstance(getattr(dataset, 'metainfo', None), list):
        return []
    for key, leaf in leaf_datasets(dataset, where):
        if hasattr(leaf, 'full_init'):
            leaf.full_init()
        names = names_of((getattr(leaf, 'metainfo', None) or {}).get('classes'), key)
        parts.setdefault(id(leaf), (key, leaf, names))
    return list(parts.values())


def dataset_classes(dataset: Any, where: str) -> tuple[str, ...] | None:
    """The names of the classes of a data set.

    Args:
        dataset (Any): The data set, wrappers included. Of several in one the longest list counts.
        where (str): Its key in the config, for messages.

    Returns:
        tuple[str, ...] | None: The names; None if it has none.

    Raises:
        UserError: If only some of several have names.
    """
    parts = _named_parts(dataset, where)
    named = [part for part in parts if part[2]]
    if named and len(named) < len(parts):
        nameless = next(part[0] for part in parts if not part[2])
        raise UserError(
            f'{nameless} names no classes and {named[0][0]} does: what its labels mean is not known; give it '
            'metainfo=dict(classes=[...])'
        )
    return max((part[2] for part in named), key=len, default=None)


def align_labels(dataset: Any, where: str, classes: Sequence[str], of: str, fixed: str | None = None) -> list[str]:
    """Make the labels of a data set positions in a list of classes, by name, in place.

    Where the lists are equal nothing changes. Where the data set lacks classes or lists them in another order, its
    labels are mapped and it has the whole list afterwards. Data sets without names stay as they are.

    Args:
        dataset (Any): The data set, wrappers included; no worker has it yet.
        where (str): Its key in the config, for messages.
        classes (Sequence[str]): The classes.
        of (str): What has them, for messages.
        fixed (str, optional): Why labels cannot be changed, so that lists that differ are an error.

    Returns:
        list[str]: What was mapped, one line each.

    Raises:
        UserError: If it has classes that are not in the list, or labels that cannot be mapped.
    """
    messages = []
    for key, leaf, own in _named_parts(dataset, where):
        positions = None if own is None else class_positions(own, classes, key, of)
        if positions is None:
            continue
        missing = names_missing(own, classes)
        differs = f'lacks {listed(missing)} of the classes' if missing else 'has another order of the classes'
        if fixed or not _map_labels(leaf, positions):
            why = fixed or f'the labels of a {type(leaf).__name__} cannot be mapped by name'
            raise UserError(f'{key} {differs} of {of}, and {why}: give both the same classes in the same order')
        messages.append(f'{key} {differs} of {of}: its labels are mapped by name.')
        _set_classes(dataset, tuple(classes))
    return messages


def align_query(bank: Any, bank_key: str, query: Any, query_key: str) -> list[str]:
    """Make the labels of the images to classify mean what those of the images that vote do, in place.

    Args:
        bank (Any): The data set of the images that vote.
        bank_key (str): Its key in the config, for messages.
        query (Any): The data set of the images to classify.
        query_key (str): Its key in the config, for messages.

    Returns:
        list[str]: What was mapped, one line each.

    Raises:
        UserError: If a data set has no labels or several a sample, or classes that do not fit, or all images that
            vote are of one class.
    """
    for dataset, where in ((bank, bank_key), (query, query_key)):
        for key, leaf in leaf_datasets(dataset, where):
            if not isinstance(leaf, BaseDataset) or not len(leaf):
                continue
            label = leaf.get_data_info(0).get('gt_label')
            if label is None or np.ndim(label):
                fault = 'no gt_label' if label is None else f'several labels a sample (gt_label={label})'
                raise UserError(f'{key} has {fault}: neighbours vote for one class, give a data set with one a sample')
    leaves = [leaf for _, leaf in leaf_datasets(bank, bank_key) if isinstance(leaf, BaseDataset)]
    labels = (BaseDataset.get_data_info(leaf, index).get('gt_label') for leaf in leaves for index in range(len(leaf)))
    first = next(labels, None)
    if first is not None and all(label == first for label in labels):
        raise UserError(f'{bank_key} has images of one class alone ({first}), which every image would be given')
    classes = dataset_classes(bank, bank_key)
    if classes is None:
        return []
    return align_labels(bank, bank_key, classes, bank_key) + align_labels(query, query_key, classes, bank_key)


def _set_classes(dataset: Any, classes: tuple[str, ...]) -> None:
    """Tell a data set and those within of the new list; wrappers keep a copy."""
    for _, part in inner_datasets(dataset, ''):
        _set_classes(part, classes)
    meta = getattr(dataset, '_metainfo', None)
    if isinstance(meta, dict) and 'classes' in meta:
        meta['classes'] = classes


def _map_labels(dataset: Any, positions: list[int]) -> bool:
    """Change the labels of a data set in what it lists of its samples; returns whether that could be done.

    It can where each sample has its class, or a list of classes, as ``gt_label``, and no other label.
    """
    if not isinstance(dataset, BaseDataset) or not len(dataset):
        return False
    sample = dataset.get_data_info(0)
    # Labels of pixels, points, parts or boxes, or scores.
    if any(key.startswith(('gt_', 'pts_')) and key != 'gt_label' for key in sample):
        return False
    # Not its own: that may read points.
    infos = [BaseDataset.get_data_info(dataset, index) for index in range(len(dataset))]
    try:
        for info in infos:
            info['gt_label'] = _mapped(info['gt_label'], positions)
        expected = _mapped(sample['gt_label'], positions)
    except (KeyError, TypeError, ValueError, IndexError):
        return False
    dataset.data_list = infos
    if dataset.serialize_data:
        dataset.data_bytes, dataset.data_address = dataset._serialize_data()
    # One that gets its labels from elsewhere.
    return dataset.get_data_info(0)['gt_label'] == expected


def _mapped(label: Any, positions: list[int]) -> int | list[int]:
    labels = np.asarray(label)
    if labels.size == 0:
        return []
    if labels.dtype.kind not in 'iu' or labels.ndim > 1 or labels.min() < 0:
        raise ValueError
    return np.asarray(positions)[labels].tolist()
