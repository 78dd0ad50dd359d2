"""Defaults of all data loaders, and data loaders that hooks and loops build."""

import copy
from typing import Any

from mmengine.device import get_device
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .config_parts import type_name
from .wrapped_datasets import inner_datasets


def set_loader_defaults(loader: dict) -> None:
    """Set the options of a data loader that mmpretrain's configs leave to its tools, in place."""
    loader.setdefault('pin_memory', get_device() != 'cpu')
    loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
    loader.setdefault('collate_fn', dict(type='default_collate'))


def allow_other_classes(dataset: Any) -> None:
    """Allow different classes in the parts of a ``ConcatDataset``, in the config of a data set, in place.

    mmengine would refuse them without telling the difference. ``ClassNamesHook`` compares the built parts by name.
    """
    if isinstance(dataset, dict) and 'datasets' in dataset and type_name(dataset.get('type', '')) == 'ConcatDataset':
        ignored = dataset.get('ignore_keys') or []
        dataset['ignore_keys'] = [*([ignored] if isinstance(ignored, str) else ignored), 'classes']
    if isinstance(dataset, dict):
        for _, part in inner_datasets(dataset, ''):
            allow_other_classes(part)


def build_loader(runner: Runner, loader: dict) -> DataLoader:
    """Build another data loader of labelled images from its config, with the defaults of the Runner's loaders."""
    loader = copy.deepcopy(loader)
    set_loader_defaults(loader)
    allow_other_classes(loader.get('dataset'))
    return runner.build_dataloader(loader)
