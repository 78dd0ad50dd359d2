"""Tries a config that was written: builds its model, trains two iterations and predicts, on generated pictures."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmap.engine.error_report import explain
from mmmap.utils.errors import UserError

from .probe import Level, build_initialised, observe, predict, training_loss

# What mixed precision adds to an optimizer wrapper. It may need a GPU, and is the base's matter.
_OF_AMP = ('dtype', 'loss_scale', 'use_fp16', 'cache_enabled', 'accumulative_counts')


@contextmanager
def trial(words: str) -> Iterator[None]:
    """Run a trial silently. Any error in it becomes a ``UserError`` of one line, behind some words."""
    logger, random_state = MMLogger.get_current_instance(), torch.get_rng_state()
    level = logger.level
    logger.setLevel(logging.ERROR)
    # Some heads and losses ask it for the progress of the run.
    name = 'mmmap adapt'
    MessageHub.get_instance(name).update_info_dict(dict(iter=0, epoch=0, max_iters=1, max_epochs=1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except Exception as error:
        hint = '; with a GPU it can be tried' if 'implementation for device cpu not found' in str(error) else ''
        raise UserError(f'{words}: {explain(error)}{hint}') from error
    finally:
        MessageHub._instance_dict.pop(name, None)
        logger.setLevel(level)
        torch.set_rng_state(random_state)


def try_training(cfg: Config, scope: str, size: int, levels: list[Level] | None) -> BaseModel:
    """Train the model of a config for two iterations on generated pictures.

    Args:
        cfg (Config): As read from its file.
        scope (str): The package of its task.
        size (int): Side of the pictures in pixels.
        levels (list[Level], optional): The maps that its heads are to get, None if they get vectors.

    Returns:
        BaseModel: The model.

    Raises:
        UserError: If the maps are others, a weight of the backbone or the pyramid learns nothing, or the loss is not
            finite.
        Exception: What the model raises if its parts do not fit.
    """
    model = build_initialised(cfg)
    settings = {key: value for key, value in cfg.optim_wrapper.to_dict().items() if key not in _OF_AMP}
    optimizer = build_optim_wrapper(model, settings | dict(type='OptimWrapper'))
    _check_maps(model, scope, size, levels)
    # The second iteration after a step with the gradients of the first.
    optimizer.step()
    optimizer.zero_grad()
    _, loss = training_loss(model, scope, (size, size))
    optimizer.update_params(loss)
    if not torch.isfinite(loss):
        raise UserError(f'the loss of a generated batch is {loss.item()}')
    return model


def predict_once(model: BaseModel, scope: str, size: int) -> None:
    """Predict a picture of a size that the patches do not divide. Classifiers get one size, unless they pad."""
    odd = scope != 'mmpretrain' or getattr(model.data_preprocessor, 'pad_size_divisor', 1) > 1
    predict(model, scope, (size - 3, size + 5) if odd else (size, size))


def _check_maps(model: nn.Module, scope: str, size: int, levels: list[Level] | None) -> None:
    found = observe(model, scope, size, cut=False).neck
    if levels is not None:
        strides = found if isinstance(found, str) else [level.stride for level in found]
        if strides != [level.stride for level in levels]:
            raise UserError(f'the heads get maps of strides {strides} in place of {[level.stride for level in levels]}')
    idle = [
        name
        for name, param in model.named_parameters()
        if name.startswith(('backbone.', 'neck.')) and param.requires_grad and param.grad is None
    ]
    if idle:
        raise UserError(f'{len(idle)} weights would not be trained, such as {idle[0]}')
