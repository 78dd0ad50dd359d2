"""What a run is set to, as plain data that its checkpoints hold."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .reproducible import is_infinite, samplers_of
from .schedules import describe, plain

#: How an optimizer computes, not what.
IMPLEMENTATION = {'foreach', 'fused', 'capturable', 'differentiable'}


def optimizers_of(runner: Runner) -> dict[str, BaseOptimWrapper]:
    """The optimizer wrappers of a run by name; a single one has the name ''."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def by_name(schedulers: Any) -> dict[str, list]:
    """Schedulers, or their states in a checkpoint, by the name of their optimizer."""
    return schedulers if isinstance(schedulers, dict) else {'': schedulers or []}


def group_settings(groups: list[dict]) -> list[dict]:
    """What an optimizer's groups are set to: all but their parameters and how it computes."""
    ignored = {'params', 'param_names'} | IMPLEMENTATION
    return [{key: plain(value) for key, value in group.items() if key not in ignored} for group in groups]


def stored_groups(state: dict) -> list[dict]:
    """The groups in an optimizer's state, as a wrapper has them: with the one that stands for the base alone."""
    base = state.get('base_param_settings')
    return state['param_groups'] if base is None else [*state['param_groups'], base]


def stored_states(checkpoint: dict) -> dict[str, dict]:
    """The states of optimizers in a checkpoint by name, as :func:`optimizers_of` has them; {} if there are none."""
    stored = checkpoint.get('optimizer') or {}
    return {'': stored} if 'param_groups' in stored else stored


def read_settings(runner: Runner) -> dict:
    """What a run is set to, as numbers, strings, lists and dicts.

    Args:
        runner (Runner): Its optimizer and schedulers are built, and neither used nor loaded yet.
    """
    loop, loader = runner.train_loop, runner.train_dataloader
    optimizers = optimizers_of(runner)
    try:
        length = len(loader)
    except TypeError:  # Of a data set that is a stream.
        length = 0
    return dict(
        by_epoch=not hasattr(loop, 'dataloader_iterator'),
        world_size=get_world_size(),
        batch_size=getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None),
        # mmengine has no public name for it.
        accumulation=max(getattr(wrapper, '_accumulative_counts', 1) for wrapper in optimizers.values()),
        epoch_length=length,
        max_epochs=loop.max_epochs,
        max_iters=loop.max_iters,
        order_seeds=[getattr(sampler, 'seed', None) for sampler in samplers_of(loader)],
        optimizers={
            name: dict(
                type=type(getattr(wrapper, 'optimizer', wrapper)).__name__, groups=group_settings(wrapper.param_groups)
            )
            for name, wrapper in optimizers.items()
        },
        schedules={
            name: [describe(one.state_dict(), type(one).__name__) for one in schedulers]
            for name, schedulers in by_name(runner.param_schedulers).items()
        },
    )


def infer_settings(checkpoint: dict, now: dict) -> dict:
    """What can be told of a checkpoint that does not hold the settings of its run.

    Args:
        checkpoint (dict): As it was loaded.
        now (dict): The settings of today, for what cannot be told.
    """
    epoch, iteration = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    # mmengine gives its seed to samplers that have none.
    was = {**now, 'order_seeds': [checkpoint['meta'].get('seed')] * len(now['order_seeds'])}
    if now['by_epoch'] and epoch and iteration and iteration % epoch == 0:
        was['epoch_length'] = iteration // epoch
    was['optimizers'] = {
        name: dict(type=None, groups=group_settings(stored_groups(state)))
        for name, state in stored_states(checkpoint).items()
    }
    was['schedules'] = {
        name: [describe(state) for state in states]
        for name, states in by_name(checkpoint.get('param_schedulers')).items()
    }
    return was


def infer_place(settings: dict, epoch: int, iteration: int, loader: DataLoader) -> tuple[int, int]:
    """The place of the data after so many iterations, for a checkpoint that does not hold it.

    Args:
        settings (dict): Of the run.
        epoch (int): Whole epochs done.
        iteration (int): Iterations done.
        loader (DataLoader): Of the training.

    Returns:
        tuple[int, int]: The pass through the data, from 0, and the batches of it that are done.
    """
    length = settings['epoch_length']
    if settings['by_epoch']:
        batch = iteration - epoch * length
        return epoch, batch if 0 <= batch <= length else 0
    return (0, iteration) if is_infinite(loader) or not length else divmod(iteration, length)


def set_order_seeds(loader: DataLoader, seeds: list[int | None]) -> None:
    """Draw the order of the data from other seeds, as if the samplers had been built with them.

    Args:
        loader (DataLoader): Of the training.
        seeds (list[int | None]): As :func:`read_settings` has found them.
    """
    for sampler, seed in zip(samplers_of(loader), seeds, strict=False):
        if seed is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed


def changed_values(before: list[dict], today: list[dict], scheduled: set[str]) -> dict[str, list[int]]:
    """Values of an optimizer's groups that differ, and in which groups.

    Args:
        before (list[dict]): As :func:`group_settings` gives them.
        today (list[dict]): Likewise.
        scheduled (set[str]): What schedules drive, which does not count.
    """
    driven = scheduled | ({'betas'} if 'momentum' in scheduled else set())
    changed: dict[str, list[int]] = {}
    for index, (old, new) in enumerate(zip(before, today, strict=True)):
        for key in old.keys() & new.keys() - driven:
            if old[key] != new[key]:
                changed.setdefault(key, []).append(index)
    return changed
