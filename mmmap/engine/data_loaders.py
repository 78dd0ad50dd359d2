"""What every data loader of a run has unless its config says otherwise, those that hooks and loops build included."""

import copy
from typing import Any

from mmengine.device import get_device
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .config_rules import type_name
from .wrapped_datasets import inner_datasets


def set_loader_defaults(loader: dict) -> None:
    """Give a data loader what mmpretrain's configs leave to its tools, in place.

    Args:
        loader (dict): The config of a data loader.
    """
    loader.setdefault('pin_memory', get_device() != 'cpu')
    loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
    loader.setdefault('collate_fn', dict(type='default_collate'))


def leave_classes_to_us(dataset: Any) -> None:
    """Let the parts of a ``ConcatDataset`` list other classes, in place.

    mmengine refuses them without a word of what differs; they are compared by name once they are built.

    Args:
        dataset (Any): The config of a data set.
    """
    if isinstance(dataset, dict) and 'datasets' in dataset and type_name(dataset.get('type', '')) == 'ConcatDataset':
        ignored = dataset.get('ignore_keys') or []
        dataset['ignore_keys'] = [*([ignored] if isinstance(ignored, str) else ignored), 'classes']
    if isinstance(dataset, dict):
        for _, part in inner_datasets(dataset, ''):
            leave_classes_to_us(part)


def build_loader(runner: Runner, loader: dict) -> DataLoader:
    """Build a data loader of labelled images beside those of the Runner, with the same defaults.

    Args:
        runner (Runner): The runner.
        loader (dict): Its config.
    """
    loader = copy.deepcopy(loader)
    set_loader_defaults(loader)
    leave_classes_to_us(loader.get('dataset'))
    return runner.build_dataloader(loader)
