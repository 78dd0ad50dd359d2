"""Parameter schedules: their settings, and their values after a number of steps."""

import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.optim import BaseOptimWrapper, _ParamScheduler
from mmengine.optim.scheduler import ConstantParamScheduler, LinearParamScheduler, ReduceOnPlateauParamScheduler
from mmengine.runner import Runner

from .config_parts import dotted, find_class, walk

# Entries of a scheduler's state that are no settings. Base values are the optimizer's and are compared there.
_PROGRESS = {'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs', 'cooldown_counter', 'base_values'}
_NEVER = 10**9  # mmengine's default of ``end``.
_LENGTHS = {
    *('begin', 'end', 'T_max', 'total_iters', 'total_steps', 'step_size', 'milestones', 'periods'),
    *('cumulative_periods', '_schedule_phases'),
}


def end_short_schedules(runner: Runner) -> list[str]:
    """Let warm-ups of one step end, in schedules that a Runner has not built yet. Returns one line per change.

    mmengine's ``LinearLR``, ``ConstantLR`` and the like reach their last value at their second step. With one step the
    first value would stay for the whole training.
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


def plain_setting(value: Any) -> Any:
    """A setting as numbers, strings, lists and dicts, which can be loaded from a checkpoint safely."""
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_setting(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [plain_setting(inner) for inner in value]
    return getattr(value, '__name__', type(value).__name__)


def schedule_settings(state: Mapping, kind: str | None = None) -> dict:
    """The settings in a scheduler's ``state_dict()``, without its progress; ``kind`` is its class name, if known."""
    settings = {
        key: plain_setting(value) for key, value in state.items() if key not in _PROGRESS | {'optimizer', 'verbose'}
    }
    return settings if kind is None else {'type': kind, **settings}


def same_schedules(before: list[dict], after: list[dict], lengths: bool = True) -> bool:
    """Whether two lists of :func:`schedule_settings` are equal.

    Classes are compared only if all are known, numbers of steps only if ``lengths`` is true.
    """
    ignored = set() if lengths else _LENGTHS
    if any('type' not in one for one in before):
        ignored = ignored | {'type'}
    parts = [[{key: one[key] for key in one.keys() - ignored} for one in part] for part in (before, after)]
    return parts[0] == parts[1]


def differing_schedules(before: list[dict], after: list[dict]) -> tuple[str, str]:
    """Describe the differing settings of two lists of :func:`schedule_settings`, one text for each list."""
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


class _PackedGroups:
    """Replaces an optimizer: all groups are packed in one, each value an array with one element per group."""

    def __init__(self, groups: list[dict]) -> None:
        self.before: dict[str, Any] = {}
        for key, first in groups[0].items():
            if isinstance(first, float) and all(isinstance(group.get(key), float) for group in groups):
                self.before[key] = np.array([group[key] for group in groups])
            elif key == 'betas':
                betas = np.array([group[key] for group in groups])
                self.before[key] = (betas[:, 0], betas[:, 1])
        self.param_groups = [dict(self.before)]
        # Schedulers read these to warn of a wrong order of calls.
        self.step = SimpleNamespace(_with_counter=True)
        self._global_step = 0

    def unpack(self, groups: list[dict]) -> None:
        """Write changed values into the groups."""
        for key, values in self.param_groups[0].items():
            if values is self.before.get(key):
                continue
            for index, group in enumerate(groups):
                group[key] = tuple(float(v[index]) for v in values) if key == 'betas' else float(values[index])


def _step_all(schedulers: list[_ParamScheduler], epochs: int, epoch_length: int, iterations: int) -> None:
    """Step in the order of ``ParamSchedulerHook``."""
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
    """Step new schedulers, and so the groups of a new optimizer, to a point of the training.

    Every step is taken, as values depend on earlier ones and schedules of iterations and of epochs may overlap. Half a
    million steps take seconds, as mmengine's schedulers step all groups at once. Those that follow a metric are not
    stepped.

    Args:
        optimizer (BaseOptimWrapper): The optimizer.
        schedulers (list[_ParamScheduler]): Its schedulers.
        epochs (int): Whole epochs done.
        epoch_length (int): Iterations of each.
        iterations (int): Iterations done after them.
    """
    schedulers = [one for one in schedulers if not isinstance(one, ReduceOnPlateauParamScheduler)]
    groups = optimizer.param_groups
    # Schedulers of others may need the true groups. Tensors are not packed, as they must stay tensors.
    packable = all(type(one).__module__.startswith('mmengine.') for one in schedulers)
    packable &= all(isinstance(group.get(one.param_name), float) for one in schedulers for group in groups)
    with warnings.catch_warnings():
        # Schedulers warn if they step before the optimizer.
        warnings.simplefilter('ignore')
        if not packable:
            _step_all(schedulers, epochs, epoch_length, iterations)
            return
        packed = _PackedGroups(groups)
        kept = [(one.optimizer, one.base_values, one.verbose) for one in schedulers]
        for one in schedulers:
            one.optimizer, one.base_values, one.verbose = packed, [np.array(one.base_values)], False
        _step_all(schedulers, epochs, epoch_length, iterations)
    packed.unpack(groups)
    for one, (whole, base_values, verbose) in zip(schedulers, kept, strict=True):
        one.optimizer, one.base_values, one.verbose = whole, base_values, verbose
        if isinstance(one._last_value[0], np.ndarray):
            one._last_value = one._last_value[0].tolist()
