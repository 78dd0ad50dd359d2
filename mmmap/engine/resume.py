"""Resuming a run from a checkpoint when its settings have changed since."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from ..utils.errors import UserError
from .run_settings import (
    IMPLEMENTATION,
    by_name,
    changed_values,
    group_settings,
    infer_place,
    infer_settings,
    read_settings,
    stored_groups,
    stored_states,
)
from .runner_parts import optimizers_of
from .schedules import differing_schedules, replay, same_schedules

_START_ANEW = 'start a new training from its weights (load_from, without resume)'
_NAMES = {
    'world_size': 'number of processes',
    'batch_size': 'batch size per process',
    'accumulation': 'number of accumulated batches',
    'epoch_length': 'length of an epoch',
    'max_epochs': 'number of epochs',
    'max_iters': 'number of iterations',
    'lr': 'learning rate',
    'weight_decay': 'weight decay',
}


class ResumePlan:
    """Prepares a checkpoint so that the run continues from it with the settings of the current config.

    The checkpoint gives what was learned and how far the training is: weights, moments of the optimizer, and epochs
    with fractions (or iterations, if the loop counts those). The config gives the settings: rates and other values of
    the optimizer, schedules, the length of the training, the seed. If no setting differs, the checkpoint's states stay
    unchanged.

    Args:
        runner (Runner): Has built its optimizer and schedulers, and has not loaded the checkpoint yet.
        checkpoint (dict): The content of the file; changed in place.

    Attributes:
        now (dict): The current settings, see :func:`~mmmap.engine.run_settings.read_settings`.
        was (dict): Those of the checkpoint.
        place (tuple[int, int] | None): The pass through the data and the number of its batches that are done, if known.
        gradients (dict[str, Tensor]): Those accumulated for the next step.
        lines (list[str]): Messages for the user.

    Raises:
        UserError: If this training cannot continue from the checkpoint.
    """

    def __init__(self, runner: Runner, checkpoint: dict) -> None:
        self.runner, self.checkpoint = runner, checkpoint
        self.meta: dict[str, Any] = checkpoint.get('meta') or {}
        if not {'epoch', 'iter'} <= self.meta.keys():
            raise UserError(f'the checkpoint does not say how far its training came: {_START_ANEW}')
        # mmengine would execute it.
        self.meta.pop('config', None)
        self.now = read_settings(runner)
        self.lines: list[str] = []
        if self.meta.get('run') is None:
            self.lines.append('The checkpoint lacks the settings of its run. Only those of its optimizer are compared.')
        self.was: dict[str, Any] = self.meta.get('run') or infer_settings(checkpoint, self.now)
        self.gradients = checkpoint.pop('gradients', {})
        self._set_seed()
        self._set_place()
        states = stored_states(checkpoint)
        if states.keys() - optimizers_of(runner).keys():
            raise UserError(
                f'the checkpoint has optimizers {sorted(states)}, the config {sorted(optimizers_of(runner))}'
            )
        if not states:
            self.lines.append('The checkpoint holds no state of the optimizer: its moments start anew.')
        for name in optimizers_of(runner):
            self._continue_optimizer(name, states.get(name))

    def evaluation_is_due(self) -> bool:
        """Whether the loop evaluates at the point of the checkpoint, and the checkpoint was written before that."""
        loop, counts_epochs = self.runner.train_loop, self.now['by_epoch']
        done = self.meta['epoch'] if counts_epochs else self.meta['iter']
        if self.runner.val_loop is None or self.was.get('evaluated', True) or not done:
            return False
        if not hasattr(loop, 'val_interval'):  # A loop with a rule of its own.
            return False
        if counts_epochs and self.place and self.place[1]:
            return False
        loop._decide_current_val_interval()
        last = loop.max_epochs if counts_epochs else loop.max_iters
        return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)

    def _differs(self, key: str) -> bool:
        return self.was.get(key, self.now[key]) != self.now[key]

    def _tell_change(self, name: str, before: Any, after: Any, effect: str) -> None:
        line = f'resumed with another {_NAMES.get(name, name)}: {before} -> {after} ({effect})'
        if line not in self.lines:
            self.lines.append(line)

    def _set_seed(self) -> None:
        """Use the seed of the config or, if it has none, that of the checkpoint."""
        today, before = (self.runner.cfg.get('randomness') or {}).get('seed'), self.meta.get('seed')
        if today is None:
            self.now['order_seeds'] = self.was.get('order_seeds', [])
        elif before is not None and today != before:
            self._tell_change('seed', before, today, 'samples and random numbers follow it from here on')
            self.meta['seed'] = today

    def _set_place(self) -> None:
        """Express the progress in current iterations, and tell which sizes differ."""
        now, was, meta = self.now, self.was, self.meta
        if self._differs('by_epoch'):
            kinds = {True: 'epochs', False: 'iterations'}
            raise UserError(
                f'the checkpoint is of a training that counts {kinds[was["by_epoch"]]}, train_cfg counts '
                f'{kinds[now["by_epoch"]]}: keep its kind, or {_START_ANEW}'
            )
        self.place: tuple[int, int] | None = None
        if 'place' in was:
            self.place = was['place'][0], was['place'][1]
        lengths = was['epoch_length'], now['epoch_length']
        if now['by_epoch']:
            epoch, batch = self.place or infer_place(was, meta['epoch'], meta['iter'], self.runner.train_dataloader)
            if lengths[0] != lengths[1]:
                batch = round(batch / max(lengths[0], 1) * lengths[1])
                meta['iter'] = epoch * lengths[1] + batch
            self.place = (epoch, batch)
            self.done, end, unit = epoch + batch / max(lengths[1], 1), 'max_epochs', 'epoch'
        else:
            sizes = [one['batch_size'] and one['batch_size'] * one['world_size'] for one in (was, now)]
            if self.place and None not in sizes:
                # As many samples are done.
                self.place = (self.place[0], round(self.place[1] * sizes[0] / sizes[1]))
            self.done, end, unit = meta['iter'], 'max_iters', 'iteration'
        self.point = f'{unit} {self.done:.6g} of {now[end]}'
        if self.done > now[end]:
            raise UserError(
                f'the checkpoint is of {self.done:.6g} {unit}s, train_cfg.{end} is {now[end]}: '
                f'raise it, or {_START_ANEW}'
            )
        if self.done == now[end]:
            self.lines.append(
                f'The checkpoint is of {now[end]} {unit}s, as many as train_cfg asks for: the training is done.'
            )
        length = f'an epoch has {lengths[1]} iterations, before {lengths[0]}; goes on from {self.point}'
        changed = [key for key in ('world_size', 'batch_size') if self._differs(key)]
        if not changed and now['by_epoch'] and lengths[0] != lengths[1]:
            changed = ['epoch_length']
        for key in changed:
            effect = length if now['by_epoch'] else 'the data goes on after the same number of samples'
            self._tell_change(key, was[key], now[key], effect)
        if self._differs('accumulation'):
            self._tell_change('accumulation', was['accumulation'], now['accumulation'], 'from the next step on')
            changed.append('accumulation')
        if self._differs(end):
            self._tell_change(end, was[end], now[end], f'goes on from {self.point}')
        if changed and self.gradients:
            self.lines.append('Gradients accumulated for the next step are dropped, as the batches have changed.')
            self.gradients = {}

    def _continue_optimizer(self, name: str, state: dict | None) -> None:
        """Give an optimizer the current settings, and move its schedules to the point of the checkpoint."""
        wrapper = optimizers_of(self.runner)[name]
        groups = wrapper.param_groups if state is None else stored_groups(state)
        self._check_groups(name, groups)
        today = self.now['optimizers'][name]['groups']
        before = self.was['optimizers'].get(name, {}).get('groups') or group_settings(groups)
        old_schedules, new_schedules = [part['schedules'].get(name, []) for part in (self.was, self.now)]
        scheduled = {one['param_name'] for one in old_schedules + new_schedules}
        changed = changed_values(before, today, scheduled)
        schedulers = by_name(self.runner.param_schedulers).get(name, [])
        kept = by_name(self.checkpoint.get('param_schedulers')).get(name, [])
        # Without a state the optimizer has its first values.
        same = state is not None and same_schedules(old_schedules, new_schedules) and len(kept) == len(schedulers)
        same = same and not any(f'initial_{key}' in changed for key in scheduled)
        if self.now['by_epoch'] and self._differs('epoch_length'):
            same = same and all(scheduler.by_epoch for scheduler in schedulers)
        if same:
            for key, where in changed.items():
                for index in where:
                    groups[index][key] = wrapper.param_groups[index][key]
        else:
            self._replay(name, schedulers, kept, groups)
        for group, new in zip(groups, wrapper.param_groups, strict=True):
            group.update({key: new[key] for key in IMPLEMENTATION & new.keys()})
        for key, where in sorted(changed.items()):
            index = max(where, key=lambda index: _size(today[index][key]))
            effect = 'the schedule starts from it' if key.startswith('initial_') else 'from here on'
            self._tell_change(key.removeprefix('initial_'), before[index][key], today[index][key], effect)
        # Another length of an epoch changes lengths in iterations, and has been told.
        if not same_schedules(old_schedules, new_schedules, lengths=not self._differs('epoch_length')):
            differences = differing_schedules(old_schedules, new_schedules)
            self._tell_change('schedule', *differences, f'followed from {self.point} on')
        if not same and schedulers:
            rates = (f'{key} {max(group[key] for group in wrapper.param_groups):.4g}' for key in sorted(scheduled))
            self.lines.append(f'Schedules are those of the config from {self.point} on: {", ".join(rates)}.')

    def _check_groups(self, name: str, groups: list[dict]) -> None:
        """Refuse the state of an optimizer of another type or with other parameters."""
        wrapper, where = optimizers_of(self.runner)[name], f'optimizer {name!r}' if name else 'the optimizer'
        advice = f'keep the optimizer of the checkpoint, or {_START_ANEW}'
        kinds = self.was['optimizers'].get(name, {}).get('type'), self.now['optimizers'][name]['type']
        keys = [set(part[0]) - IMPLEMENTATION for part in (groups, wrapper.param_groups)]
        # Other keys may differ between versions of torch, and a schedule of the momentum adds one.
        if kinds[0] not in (None, kinds[1]) or (('betas' in keys[0]) != ('betas' in keys[1])):
            raise UserError(f'{where} is {kinds[1]}, that of the checkpoint {kinds[0] or "another"}: {advice}')
        counts = [[len(group['params']) for group in part] for part in (groups, wrapper.param_groups)]
        if len(counts[0]) != len(counts[1]):
            raise UserError(
                f'{where} has {len(counts[1])} groups of parameters, that of the checkpoint {len(counts[0])}: {advice}'
            )
        # A rank of a sharded model has other parameters than the checkpoint.
        split = is_model_wrapper(self.runner.model) and not isinstance(self.runner.model, DistributedDataParallel)
        if counts[0] != counts[1] and not split:
            index = next(i for i, pair in enumerate(zip(*counts, strict=True)) if pair[0] != pair[1])
            raise UserError(
                f'group {index} of {where} has {counts[1][index]} parameters, '
                f'in the checkpoint {counts[0][index]}: {advice}'
            )

    def _replay(self, name: str, schedulers: list, kept: list[dict], groups: list[dict]) -> None:
        """Step new schedules to the point of the checkpoint, and store their values in it."""
        wrapper = optimizers_of(self.runner)[name]
        epochs = self.place[0] if self.place and self.now['by_epoch'] else 0
        length = self.now['epoch_length']
        replay(wrapper, schedulers, epochs, length, self.meta['iter'] - epochs * length)
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceOnPlateauParamScheduler):
                self._keep_plateau(scheduler, kept, groups)
        for group, new in zip(groups, wrapper.param_groups, strict=True):
            group.update({key: value for key, value in new.items() if key != 'params'})
        states = [scheduler.state_dict() for scheduler in schedulers]
        if isinstance(self.runner.param_schedulers, dict):
            self.checkpoint.setdefault('param_schedulers', {})[name] = states
        elif states:
            self.checkpoint['param_schedulers'] = states

    @staticmethod
    def _keep_plateau(scheduler: ReduceOnPlateauParamScheduler, kept: list[dict], groups: list[dict]) -> None:
        """Keep the progress of a schedule that follows a metric, and the factor by which it has changed its values."""
        key, initial = scheduler.param_name, f'initial_{scheduler.param_name}'
        states = [state for state in kept if 'num_bad_epochs' in state and state['param_name'] == key]
        if not states:
            return
        progress = ('best', 'num_bad_epochs', 'cooldown_counter', 'last_step', '_global_step')
        scheduler.load_state_dict({name: states[0][name] for name in progress})
        for group, new in zip(groups, scheduler.optimizer.param_groups, strict=True):
            new[key] = group[key] * new.get(initial, 1.0) / group.get(initial, 1.0)


def _size(value: Any) -> float:
    return max(value) if isinstance(value, list) else value or 0.0
