"""Finds the data sets inside wrappers such as ``ConcatDataset`` and ``RepeatDataset``, at any depth."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset


def inner_datasets(dataset: Any, where: str) -> list[tuple[str, Any]]:
    """The keys and data sets directly inside a wrapper; none if it is no wrapper.

    The data set may be a config. ``where`` is its key in the config, such as ``'val_dataloader.dataset'``.
    """
    is_config = isinstance(dataset, dict)
    # A data set with its own pipeline is no wrapper, even if it gets samples from another one.
    if 'pipeline' in dataset if is_config else isinstance(dataset, BaseDataset):
        return []
    one, many = (dataset.get(key) if is_config else getattr(dataset, key, None) for key in ('dataset', 'datasets'))
    inner = [] if one is None else [(f'{where}.dataset', one)]
    inner += [(f'{where}.datasets[{index}]', part) for index, part in enumerate(many or ())]
    # Other attributes may have these names. If a wrapper has metainfo, so do the data sets inside it.
    described = not is_config and hasattr(dataset, 'metainfo')
    return [(key, part) for key, part in inner if not described or hasattr(part, 'metainfo')]


def leaf_datasets(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The keys and data sets inside a wrapper that are no wrappers; the data set itself if it is no wrapper."""
    inner = inner_datasets(dataset, where)
    for key, part in inner:
        yield from leaf_datasets(part, key)
    if not inner:
        yield where, dataset
