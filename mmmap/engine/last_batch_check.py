"""Checks before a training that the last batch of an epoch is not too small for batch norm, and that there is one."""

import copy
import random
from typing import Any

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.errors import UserError
from .runner_parts import unwrapped_model


def last_batch_size(samples: int, batch_size: int, drop_last: bool) -> int:
    """The number of samples in the last batch of an epoch of one process; 0 if there is no batch."""
    if samples < batch_size:
        return 0 if drop_last else samples
    return batch_size if drop_last else samples % batch_size or batch_size


def check_last_batch(runner: Runner) -> None:
    """Raise if an epoch has no batch, or if its last batch has one sample and the model cannot train on one.

    Batch norm over one value per channel has no variance: torch would raise at the end of the first epoch. If the last
    batch has one sample and the model has batch norm, a copy of the model is tried on one sample in training mode.
    Batch norm over several pixels or points works.

    Raises:
        UserError: With the setting to change.
    """
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return
    loader = loop.dataloader
    batches = loader.batch_sampler
    size = getattr(batches, 'batch_size', None)
    if not isinstance(size, int) or not hasattr(loader.sampler, '__len__'):
        return
    samples = len(loader.sampler)
    where = f'{runner.cfg.filename}: train_dataloader' if runner.cfg.filename else 'train_dataloader'
    last = last_batch_size(samples, size, getattr(batches, 'drop_last', False))
    if last == 0:
        raise UserError(
            f'{where}: no batch in an epoch: {samples} samples per process, batch_size={size}, drop_last; '
            'use a smaller train_dataloader.batch_size or fewer processes'
        )
    model = unwrapped_model(runner)
    if last > 1 or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    if _stops_at_one(model, loader):
        many = size > 1 and samples > size
        raise UserError(
            f'{where}: the last batch of an epoch has one sample ({samples} samples per process, '
            f'batch_size={size}), which the batch norm of the model cannot take: set '
            f'train_dataloader.{"drop_last=True" if many else "batch_size to 2 or more"}'
        )


def _stops_at_one(model: nn.Module, loader: torch.utils.data.DataLoader) -> bool:
    """Whether a training step on one sample fails in batch norm. Model and random states stay as they are."""
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), torch.no_grad():
        try:
            trial: Any = copy.deepcopy(model).train()
            data = trial.data_preprocessor(loader.collate_fn([loader.dataset[0]]), True)
            trial(**data, mode='loss') if isinstance(data, dict) else trial(*data, mode='loss')
        # The words of torch.nn.functional.batch_norm. The training will report other errors.
        except Exception as error:
            return 'Expected more than 1 value per channel' in str(error)
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
    return False
