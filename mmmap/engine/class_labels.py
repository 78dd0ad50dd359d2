"""Maps the labels of a data set to the class order of another one, by the names of the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from ..utils.class_names import class_positions, listed, names_missing, names_of
from ..utils.errors import UserError
from .wrapped_datasets import inner_datasets, leaf_datasets


def _named_parts(dataset: Any, where: str) -> list[tuple[str, Any, tuple[str, ...] | None]]:
    """Key, data set and class names of each data set inside wrappers, each data set once."""
    parts: dict[int, tuple[str, Any, tuple[str, ...] | None]] = {}
    # The metainfo of mmdet's ConcatDataset is a list if it has several tasks.
    if isinstance(getattr(dataset, 'metainfo', None), list):
        return []
    for key, leaf in leaf_datasets(dataset, where):
        # Some data sets know the names only once they are loaded.
        if hasattr(leaf, 'full_init'):
            leaf.full_init()
        names = names_of((getattr(leaf, 'metainfo', None) or {}).get('classes'), key)
        parts.setdefault(id(leaf), (key, leaf, names))
    return list(parts.values())


def dataset_classes(dataset: Any, where: str) -> tuple[str, ...] | None:
    """The names of the classes of a data set; None if it has none.

    Of several data sets in a wrapper the longest list is returned. ``where`` is the key in the config, for messages.

    Raises:
        UserError: If only some of several data sets have names.
    """
    parts = _named_parts(dataset, where)
    named = {key: names for key, _, names in parts if names}
    nameless = [key for key, _, names in parts if not names]
    if named and nameless:
        raise UserError(
            f'{nameless[0]} names no classes and {next(iter(named))} does, so the meaning of its labels is not known; '
            'give it metainfo=dict(classes=[...])'
        )
    return max(named.values(), key=len, default=None)


def align_labels(dataset: Any, where: str, classes: Sequence[str], of: str, fixed: str | None = None) -> list[str]:
    """Map the labels of a data set to positions in a list of classes, by name, in place.

    If the data set lacks classes or has another order, its labels are mapped and it gets the whole list. Data sets
    without names stay as they are.

    Args:
        dataset (Any): A data set or a wrapper, of which no worker has a copy yet.
        where (str): Its key in the config, for messages.
        classes (Sequence[str]): The list of classes.
        of (str): The owner of that list, for messages.
        fixed (str, optional): The reason why the labels cannot be changed. Lists that differ are an error then.

    Returns:
        list[str]: A line for each data set that was mapped.

    Raises:
        UserError: If the data set has classes that are not in the list, or labels that cannot be mapped.
    """
    messages = []
    for key, leaf, own in _named_parts(dataset, where):
        if own is None or (positions := class_positions(own, classes, key, of)) is None:
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
    """Map the labels of a kNN query set to the classes of the bank (the images that vote), in place.

    Keys are those in the config, for messages. Returns a line for each data set that was mapped.

    Raises:
        UserError: If a data set has no label or several per sample, if the classes do not fit, or if all images of the
            bank are of one class.
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
    """Set the class names of a data set and of all data sets inside it; wrappers keep a copy."""
    for _, part in inner_datasets(dataset, ''):
        _set_classes(part, classes)
    meta = getattr(dataset, '_metainfo', None)
    if isinstance(meta, dict) and 'classes' in meta:
        meta['classes'] = classes


def _map_labels(dataset: Any, positions: list[int]) -> bool:
    """Map the labels in the sample list of a data set; returns whether that was possible.

    It is possible if each sample has a class, or a list of classes, as ``gt_label``, and no other label.
    """
    if not isinstance(dataset, BaseDataset) or not len(dataset):
        return False
    sample = dataset.get_data_info(0)
    # It has labels of pixels, points, parts or boxes, or scores.
    if any(key.startswith(('gt_', 'pts_')) and key != 'gt_label' for key in sample):
        return False
    # The method of the subclass may read points.
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
    # False if the data set gets its labels from elsewhere.
    return dataset.get_data_info(0)['gt_label'] == expected


def _mapped(label: Any, positions: list[int]) -> int | list[int]:
    labels = np.asarray(label)
    if labels.size == 0:
        return []
    if labels.dtype.kind not in 'iu' or labels.ndim > 1 or labels.min() < 0:
        raise ValueError
    return np.asarray(positions)[labels].tolist()
