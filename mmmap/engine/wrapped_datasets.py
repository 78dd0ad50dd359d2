"""Finds the data sets inside wrappers such as ``ConcatDataset`` and ``RepeatDataset``, of any depth."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset


def inner_datasets(dataset: Any, where: str) -> list[tuple[str, Any]]:
    """What a wrapper holds, one level down.

    Args:
        dataset (Any): A data set, or the config of one.
        where (str): Its key in the config, such as ``'val_dataloader.dataset'``.

    Returns:
        list[tuple[str, Any]]: Key and data set of each; none if it is no wrapper.
    """
    is_config = isinstance(dataset, dict)
    # With a pipeline of its own it is no wrapper, whatever it draws its samples from.
    if 'pipeline' in dataset if is_config else isinstance(dataset, BaseDataset):
        return []
    one, many = (dataset.get(key) if is_config else getattr(dataset, key, None) for key in ('dataset', 'datasets'))
    inner = [] if one is None else [(f'{where}.dataset', one)]
    inner += [(f'{where}.datasets[{index}]', part) for index, part in enumerate(many or ())]
    # Anything may be called so; a wrapper of described data sets is described itself.
    described = not is_config and hasattr(dataset, 'metainfo')
    return [(key, part) for key, part in inner if not described or hasattr(part, 'metainfo')]


def leaf_datasets(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The data sets that are no wrappers, inside one or alone.

    Args:
        dataset (Any): See :func:`inner_datasets`.
        where (str): See :func:`inner_datasets`.

    Yields:
        tuple[str, Any]: Key and data set of each.
    """
    inner = inner_datasets(dataset, where)
    for key, part in inner:
        yield from leaf_datasets(part, key)
    if not inner:
        yield where, dataset
