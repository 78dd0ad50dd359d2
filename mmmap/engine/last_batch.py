"""Says before a training what would stop it at the end of its first epoch: a batch too small, or none at all."""

import copy
import random

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import UserError


def last_batch_size(samples: int, batch_size: int, drop_last: bool) -> int:
    """Samples in the last batch of an epoch.

    Args:
        samples (int): Samples of one process in an epoch.
        batch_size (int): Samples in a full batch.
        drop_last (bool): Whether a batch that is not full is left out.

    Returns:
        int: At most ``batch_size``; 0 if there is no batch at all.
    """
    if samples < batch_size:
        return 0 if drop_last else samples
    return batch_size if drop_last else samples % batch_size or batch_size


def check_last_batch(runner: Runner) -> None:
    """Raise if the last batch of an epoch is one sample and the model cannot take that, or if there is no batch.

    Batch norm over one value a channel has no variance; torch raises then, at the end of the first epoch. Where the
    last batch has one sample and the model has batch norm, a copy of the model in training mode is tried on one sample:
    batch norm over maps of pixels or points takes it.

    Args:
        runner (Runner): Its train loop is built.

    Raises:
        UserError: With what to set.
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
            f'{where}: no batch in an epoch: {samples} samples a process, batch_size={size}, drop_last; '
            'use a smaller train_dataloader.batch_size or fewer processes'
        )
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if last > 1 or not isinstance(model, nn.Module) or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    if _stops_at_one(model, loader):
        many = size > 1 and samples > size
        raise UserError(
            f'{where}: the last batch of an epoch has one sample ({samples} samples a process, '
            f'batch_size={size}), which the batch norm of the model cannot take: set '
            f'train_dataloader.{"drop_last=True" if many else "batch_size to 2 or more"}'
        )


def _stops_at_one(model: nn.Module, loader: torch.utils.data.DataLoader) -> bool:
    """Whether a training step on one sample fails in batch norm; leaves the model and random numbers alone."""
    state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), torch.no_grad():
        try:
            trial = copy.deepcopy(model).train()
            data = trial.data_preprocessor(loader.collate_fn([loader.dataset[0]]), True)
            trial(**data, mode='loss') if isinstance(data, dict) else trial(*data, mode='loss')
        # torch.nn.functional.batch_norm has no other words for it; what else is wrong, the training tells.
        except Exception as error:
            return 'Expected more than 1 value per channel' in str(error)
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
    return False
