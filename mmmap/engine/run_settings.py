"""The settings of a run as plain data, which its checkpoints hold."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .keyed_random import is_infinite, samplers_of
from .runner_parts import accumulated_batches, optimizers_of
from .schedules import plain_setting, schedule_settings

#: Settings of an optimizer's groups that change how it computes but not its results.
IMPLEMENTATION = {'foreach', 'fused', 'capturable', 'differentiable'}


def by_name(schedulers: Any) -> dict[str, list]:
    """Schedulers, or their states in a checkpoint, by the name of their optimizer."""
    return schedulers if isinstance(schedulers, dict) else {'': schedulers or []}


def group_settings(groups: list[dict]) -> list[dict]:
    """The settings of an optimizer's groups, without parameters and :data:`IMPLEMENTATION`."""
    ignored = {'params', 'param_names'} | IMPLEMENTATION
    return [{key: plain_setting(value) for key, value in group.items() if key not in ignored} for group in groups]


def stored_groups(state: dict) -> list[dict]:
    """The groups in an optimizer's state, with the group of base settings that a wrapper adds."""
    base = state.get('base_param_settings')
    return state['param_groups'] if base is None else [*state['param_groups'], base]


def stored_states(checkpoint: dict) -> dict[str, dict]:
    """The states of optimizers in a checkpoint, by the names of :func:`optimizers_of`."""
    stored = checkpoint.get('optimizer') or {}
    return {'': stored} if 'param_groups' in stored else stored


def read_settings(runner: Runner) -> dict:
    """The settings of a run as numbers, strings, lists and dicts; nothing may be stepped or loaded yet."""
    loop, loader = runner.train_loop, runner.train_dataloader
    optimizers = optimizers_of(runner)
    try:
        length = len(loader)
    except TypeError:  # An iterable data set.
        length = 0
    return dict(
        by_epoch=not hasattr(loop, 'dataloader_iterator'),
        world_size=get_world_size(),
        batch_size=getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None),
        accumulation=max(map(accumulated_batches, optimizers.values())),
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
            name: [schedule_settings(one.state_dict(), type(one).__name__) for one in schedulers]
            for name, schedulers in by_name(runner.param_schedulers).items()
        },
    )


def infer_settings(checkpoint: dict, now: dict) -> dict:
    """Infer the settings of a checkpoint that does not hold them; those that cannot be inferred come from ``now``."""
    epoch, iteration = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    # mmengine seeds samplers without a seed by the run's.
    was = {**now, 'order_seeds': [checkpoint['meta'].get('seed')] * len(now['order_seeds'])}
    if now['by_epoch'] and epoch and iteration and iteration % epoch == 0:
        was['epoch_length'] = iteration // epoch
    was['optimizers'] = {
        name: dict(type=None, groups=group_settings(stored_groups(state)))
        for name, state in stored_states(checkpoint).items()
    }
    was['schedules'] = {
        name: [schedule_settings(state) for state in states]
        for name, states in by_name(checkpoint.get('param_schedulers')).items()
    }
    return was


def infer_place(settings: dict, epoch: int, iteration: int, loader: DataLoader) -> tuple[int, int]:
    """The pass through the data and the number of its batches done, for a checkpoint that does not hold them."""
    length = settings['epoch_length']
    if settings['by_epoch']:
        batch = iteration - epoch * length
        return epoch, batch if 0 <= batch <= length else 0
    return (0, iteration) if is_infinite(loader) or not length else divmod(iteration, length)


def set_order_seeds(loader: DataLoader, seeds: list[int | None]) -> None:
    """Seed a loader's samplers with ``order_seeds`` of :func:`read_settings`."""
    for sampler, seed in zip(samplers_of(loader), seeds, strict=False):
        if seed is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed


def changed_values(before: list[dict], today: list[dict], scheduled: set[str]) -> dict[str, list[int]]:
    """The indices of groups that differ in two lists of :func:`group_settings`, by the name of the value.

    Values that schedules set are ignored.
    """
    driven = scheduled | ({'betas'} if 'momentum' in scheduled else set())
    changed: dict[str, list[int]] = {}
    for index, (old, new) in enumerate(zip(before, today, strict=True)):
        for key in old.keys() & new.keys() - driven:
            if old[key] != new[key]:
                changed.setdefault(key, []).append(index)
    return changed
