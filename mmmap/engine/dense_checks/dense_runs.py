"""What the checks of detectors and segmentors read in a Runner."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..wrapped_datasets import leaf_datasets


def is_a(model: nn.Module, name: str, package: str) -> bool:
    """Whether a model is of a class of that name or of a subclass. The package of the class need not be installed."""
    return any(kind.__name__ == name and kind.__module__.split('.')[0] == package for kind in type(model).__mro__)


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of mmdet."""
    return is_a(model, 'BaseDetector', 'mmdet')


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model is a segmentor of mmseg."""
    return is_a(model, 'BaseSegmentor', 'mmseg')


def dense_model(runner: Runner) -> nn.Module | None:
    """The detector or segmentor of a run, without the wrappers around it; None if the model is something else."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model if is_detector(model) or is_segmentor(model) else None


def loops(runner: Runner) -> list[tuple[str, Any]]:
    """The loops of a run that are built, with their names: ``'train'``, ``'val'`` and ``'test'``."""
    found = [(phase, getattr(runner, f'_{phase}_loop')) for phase in ('train', 'val', 'test')]
    return [(phase, loop) for phase, loop in found if isinstance(loop, BaseLoop)]


def loaders(runner: Runner) -> list[tuple[str, Any]]:
    """The data loaders of :func:`loops` with their keys in the config, such as ``'train_dataloader'``."""
    return [(f'{phase}_dataloader', loop.dataloader) for phase, loop in loops(runner)]


def datasets(runner: Runner) -> Iterator[tuple[str, Any]]:
    """Each data set of :func:`loaders` inside wrappers, with its key in the config."""
    for key, loader in loaders(runner):
        yield from leaf_datasets(loader.dataset, f'{key}.dataset')


def is_training_key(key: str) -> bool:
    """Whether a key of :func:`loaders` or :func:`datasets` is one of the training."""
    return key.startswith('train_')


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the states of all generators afterwards, so that a trial of a pipeline or model leaves no trace."""
    states = random.getstate(), np.random.get_state()
    # Without the devices, torch would warn of their number.
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
