"""Schedules of learning rates and the like: what they are set to, and where they are after so many steps."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.optim import BaseOptimWrapper, _ParamScheduler
from mmengine.optim.scheduler import ConstantParamScheduler, LinearParamScheduler, ReduceOnPlateauParamScheduler
from mmengine.runner import Runner

from .config_check import dotted, find_class, walk

# What changes while a scheduler goes on; its base values are those of the optimizer, which are compared themselves.
_PROGRESS = {'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs', 'cooldown_counter', 'base_values'}
_NEVER = 10**9  # mmengine's default of ``end``.
_LENGTHS = {
    *('begin', 'end', 'T_max', 'total_iters', 'total_steps', 'step_size', 'milestones', 'periods'),
    *('cumulative_periods', '_schedule_phases'),
}


def end_short_schedules(runner: Runner) -> list[str]:
    """Let warm-ups of one step end, in the schedules that a Runner has not built yet.

    ``LinearLR``, ``ConstantLR`` and the like of mmengine reach their last value at their second step. After one step
    alone the value would stay at the first for the whole training.

    Args:
        runner (Runner): Its training set can be built.

    Returns:
        list[str]: What was changed, one line each.
    """
    messages = []
    for path, one in walk(runner.param_schedulers, ('param_scheduler',)):
        kind = find_class(one, path) if isinstance(one, dict) else None
        if not (isinstance(kind, type) and issubclass(kind, LinearParamScheduler | ConstantParamScheduler)):
            continue
        converted = bool(one.get('convert_to_iter_based'))
        length = len(runner.train_dataloader) if converted else 1
        begin, end = int(one.get('begin', 0) * length), int(one.get('end', _NEVER) * length)
        if end - begin != 1:
            continue
        by_epoch = one.get('by_epoch', True) and not converted
        one.update(begin=begin, end=end + 1, by_epoch=by_epoch, convert_to_iter_based=False)
        unit = 'epoch' if by_epoch else 'iteration'
        messages.append(
            f'{dotted(path)}: a {kind.__name__} of one {unit} would never leave its first value; it ends after that '
            f'{unit}'
        )
    return messages


def plain(value: Any) -> Any:
    """A setting as numbers, strings, lists and dicts, which every checkpoint may hold."""
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [plain(inner) for inner in value]
    return getattr(value, '__name__', type(value).__name__)


def describe(state: Mapping, kind: str | None = None) -> dict:
    """What a scheduler is set to, without its progress.

    Args:
        state (Mapping): Its ``state_dict()``.
        kind (str, optional): The name of its class, if known.
    """
    settings = {key: plain(value) for key, value in state.items() if key not in _PROGRESS | {'optimizer', 'verbose'}}
    return settings if kind is None else {'type': kind, **settings}


def same_schedules(before: list[dict], after: list[dict], lengths: bool = True) -> bool:
    """Whether schedules are set alike; of those without a class the other settings are compared.

    Args:
        before (list[dict]): As :func:`describe` gives them.
        after (list[dict]): Likewise.
        lengths (bool): Whether numbers of steps must be the same, too. Defaults to True.
    """
    ignored = set() if lengths else _LENGTHS
    if any('type' not in one for one in before):
        ignored = ignored | {'type'}
    parts = [[{key: one[key] for key in one.keys() - ignored} for one in part] for part in (before, after)]
    return parts[0] == parts[1]


def differing_schedules(before: list[dict], after: list[dict]) -> tuple[str, str]:
    """Say of two lists of schedules what they differ in.

    Args:
        before (list[dict]): As :func:`describe` gives them.
        after (list[dict]): Likewise.
    """
    matched = len(before) == len(after)
    texts = []
    for part, other in ((before, after), (after, before)):
        names = []
        for index, one in enumerate(part):
            rest = other[index] if matched else {}
            settings = [
                f'{key}={value}' for key, value in sorted(one.items()) if key != 'type' and value != rest.get(key)
            ]
            if settings or not matched:
                names.append(f'{one.get("type", "schedule")}({", ".join(settings)})')
        texts.append(', '.join(names) or 'none')
    return texts[0], texts[1]


class _Packed:
    """Stands in for an optimizer: its groups are one, whose values are arrays with an element a group."""

    def __init__(self, groups: list[dict]) -> None:
        self.before = {}
        for key, first in groups[0].items():
            if isinstance(first, float) and all(isinstance(group.get(key), float) for group in groups):
                self.before[key] = np.array([group[key] for group in groups])
            elif key == 'betas':
                betas = np.array([group[key] for group in groups])
                self.before[key] = (betas[:, 0], betas[:, 1])
        self.param_groups = [dict(self.before)]
        # What a scheduler looks at to warn of a wrong order of calls.
        self.step = lambda: None
        self.step._with_counter = True
        self._global_step = 0

    def unpack(self, groups: list[dict]) -> None:
        """Write what has changed into the groups."""
        for key, values in self.param_groups[0].items():
            if values is self.before.get(key):
                continue
            for index, group in enumerate(groups):
                group[key] = tuple(float(v[index]) for v in values) if key == 'betas' else float(values[index])


def _go(schedulers: list[_ParamScheduler], epochs: int, epoch_length: int, iterations: int) -> None:
    """Step as ``ParamSchedulerHook`` does."""
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    for epoch in range(epochs + 1):
        if by_iteration:
            for _ in range(epoch_length if epoch < epochs else iterations):
                for scheduler in by_iteration:
                    scheduler.step()
        if epoch < epochs:
            for scheduler in by_epoch:
                scheduler.step()


def replay(
    optimizer: BaseOptimWrapper, schedulers: list[_ParamScheduler], epochs: int, epoch_length: int, iterations: int
) -> None:
    """Bring new schedulers, and with them the optimizer's groups, to a point of the training.

    Every step is taken, as values follow from those before, and schedules of iterations and of epochs may overlap. Half
    a million take seconds: those of mmengine handle all groups at once.

    Args:
        optimizer (BaseOptimWrapper): Newly built.
        schedulers (list[_ParamScheduler]): Newly built for it. Those that follow a metric are left alone.
        epochs (int): Whole epochs done.
        epoch_length (int): Iterations of each.
        iterations (int): Iterations done after them.
    """
    schedulers = [one for one in schedulers if not isinstance(one, ReduceOnPlateauParamScheduler)]
    groups = optimizer.param_groups
    # Others might count the groups. Rates held in tensors stay what they are.
    packable = all(type(one).__module__.startswith('mmengine.') for one in schedulers)
    packable &= all(isinstance(group.get(one.param_name), float) for one in schedulers for group in groups)
    with warnings.catch_warnings():
        # Of schedulers that step before the optimizer.
        warnings.simplefilter('ignore')
        if not packable:
            _go(schedulers, epochs, epoch_length, iterations)
            return
        packed = _Packed(groups)
        kept = [(one.optimizer, one.base_values, one.verbose) for one in schedulers]
        for one in schedulers:
            one.optimizer, one.base_values, one.verbose = packed, [np.array(one.base_values)], False
        _go(schedulers, epochs, epoch_length, iterations)
    packed.unpack(groups)
    for one, (whole, base_values, verbose) in zip(schedulers, kept, strict=True):
        one.optimizer, one.base_values, one.verbose = whole, base_values, verbose
        if isinstance(one._last_value[0], np.ndarray):
            one._last_value = one._last_value[0].tolist()
