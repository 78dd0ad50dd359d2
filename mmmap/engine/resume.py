"""How a run goes on from a checkpoint when its settings have changed since."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from .errors import UserError
from .run_settings import (
    IMPLEMENTATION,
    by_name,
    changed_values,
    group_settings,
    infer_place,
    infer_settings,
    optimizers_of,
    read_settings,
    stored_groups,
    stored_states,
)
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


class Reconciliation:
    """Lets a run go on from a checkpoint with the settings of today's config.

    What was learned and how much of the training is done stay the checkpoint's: weights, moments of the optimizer,
    epochs and shares of epochs (iterations, where the loop counts those). What is set becomes today's: rates and other
    values of the optimizer, schedules, the length of the training, the seed. Where nothing differs, the checkpoint's
    states are left as they are.

    Args:
        runner (Runner): Has built its optimizer and schedulers and not loaded the checkpoint yet.
        checkpoint (dict): What the file holds; changed in place.

    Attributes:
        now (dict): The settings of today, see :func:`~mmmap.engine.run_settings.read_settings`.
        place (tuple[int, int] | None): Where the data goes on: pass and batches of it that are done; None: not known.
        gradients (dict[str, Tensor]): Those that wait for the next step.
        lines (list[str]): What to tell the user.

    Raises:
        UserError: If the checkpoint is of a training that this one cannot go on with.
    """

    def __init__(self, runner: Runner, checkpoint: dict) -> None:
        self.runner, self.checkpoint, self.meta = runner, checkpoint, checkpoint.get('meta') or {}
        if not {'epoch', 'iter'} <= self.meta.keys():
            raise UserError(f'the checkpoint does not say how far its training came: {_START_ANEW}')
        # mmengine would run this one as code.
        self.meta.pop('config', None)
        self.now, self.lines = read_settings(runner), []
        self.was = self.meta.get('run')
        if self.was is None:
            self.lines.append(
                'The checkpoint does not hold the settings of its run; those of its optimizer are compared.'
            )
            self.was = infer_settings(checkpoint, self.now)
        self.gradients = checkpoint.pop('gradients', {})
        self._take_seed()
        self._find_place()
        states = stored_states(checkpoint)
        if states.keys() - optimizers_of(runner).keys():
            raise UserError(
                f'the checkpoint has optimizers {sorted(states)}, the config {sorted(optimizers_of(runner))}'
            )
        if not states:
            self.lines.append('The checkpoint holds no state of the optimizer: its moments start anew.')
        for name in optimizers_of(runner):
            self._go_on(name, states.get(name))

    def evaluation_is_due(self) -> bool:
        """Whether the loop would have evaluated at the checkpoint, and did not before it was written."""
        loop, counts_epochs = self.runner.train_loop, self.now['by_epoch']
        done = self.meta['epoch'] if counts_epochs else self.meta['iter']
        if self.runner.val_loop is None or self.was.get('evaluated', True) or not done:
            return False
        if not hasattr(loop, 'val_interval'):  # A loop with a rule of its own.
            return False
        if counts_epochs and self.place[1]:
            return False
        # What the loop does before it asks the same.
        loop._decide_current_val_interval()
        last = loop.max_epochs if counts_epochs else loop.max_iters
        return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)

    def _differs(self, key: str) -> bool:
        return self.was.get(key, self.now[key]) != self.now[key]

    def _say(self, name: str, before: Any, after: Any, follows: str) -> None:
        line = f'resumed with another {_NAMES.get(name, name)}: {before} -> {after} ({follows})'
        if line not in self.lines:
            self.lines.append(line)

    def _take_seed(self) -> None:
        """Take the seed of the config. If it has none, that of the checkpoint goes on."""
        today, before = (self.runner.cfg.get('randomness') or {}).get('seed'), self.meta.get('seed')
        if today is None:
            self.now['order_seeds'] = self.was.get('order_seeds', [])
        elif before is not None and today != before:
            self._say('seed', before, today, 'samples and other random numbers are those of the new one from here on')
            self.meta['seed'] = today

    def _find_place(self) -> None:
        """Find what is done in iterations of today, and say which sizes differ."""
        now, was, meta = self.now, self.was, self.meta
        if self._differs('by_epoch'):
            kinds = {True: 'epochs', False: 'iterations'}
            raise UserError(
                f'the checkpoint is of a training that counts {kinds[was["by_epoch"]]}, train_cfg counts '
                f'{kinds[now["by_epoch"]]}: keep its kind, or {_START_ANEW}'
            )
        self.place = tuple(was['place']) if 'place' in was else None
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
                # The same samples are done.
                self.place = (self.place[0], round(self.place[1] * sizes[0] / sizes[1]))
            self.done, end, unit = meta['iter'], 'max_iters', 'iteration'
        self.point = f'{unit} {self.done:.6g} of {now[end]}'
        if self.done > now[end]:
            reached = f'the checkpoint is of {self.done:.6g} {unit}s'
            raise UserError(f'{reached}, train_cfg.{end} is {now[end]}: raise it, or {_START_ANEW}')
        if self.done == now[end]:
            self.lines.append(
                f'The checkpoint is of {now[end]} {unit}s, as many as train_cfg asks for: the training is done.'
            )
        length = f'an epoch has {lengths[1]} iterations, before {lengths[0]}; goes on from {self.point}'
        changed = [key for key in ('world_size', 'batch_size') if self._differs(key)]
        if not changed and now['by_epoch'] and lengths[0] != lengths[1]:
            changed = ['epoch_length']
        for key in changed:
            self._say(key, was[key], now[key], length if now['by_epoch'] else 'the data goes on after the same samples')
        if self._differs('accumulation'):
            self._say('accumulation', was['accumulation'], now['accumulation'], 'from the next step on')
            changed.append('accumulation')
        if self._differs(end):
            self._say(end, was[end], now[end], f'goes on from {self.point}')
        if changed and self.gradients:
            self.lines.append('Gradients that waited for the next step are dropped, as the batches are others now.')
            self.gradients = {}

    def _go_on(self, name: str, state: dict | None) -> None:
        """Give an optimizer the values of today, and its schedules the point that is reached."""
        wrapper = optimizers_of(self.runner)[name]
        groups = wrapper.param_groups if state is None else stored_groups(state)
        self._check_groups(name, groups)
        today = self.now['optimizers'][name]['groups']
        before = self.was['optimizers'].get(name, {}).get('groups') or group_settings(groups)
        schedules = [part['schedules'].get(name, []) for part in (self.was, self.now)]
        scheduled = {one['param_name'] for part in schedules for one in part}
        changed = changed_values(before, today, scheduled)
        schedulers = by_name(self.runner.param_schedulers).get(name, [])
        kept = by_name(self.checkpoint.get('param_schedulers')).get(name, [])
        # Without the optimizer's state its values are those of a start.
        same = state is not None and same_schedules(*schedules) and len(kept) == len(schedulers)
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
            starts = key.startswith('initial_')
            index = max(where, key=lambda index: _size(today[index][key]))
            follows = 'the schedule starts from it' if starts else 'from here on'
            self._say(key.removeprefix('initial_'), before[index][key], today[index][key], follows)
        # Lengths in iterations follow from the length of an epoch, which was said.
        if not same_schedules(*schedules, lengths=not self._differs('epoch_length')):
            self._say('schedule', *differing_schedules(*schedules), f'followed from {self.point} on')
        if not same and schedulers:
            rates = (f'{key} {max(group[key] for group in wrapper.param_groups):.4g}' for key in sorted(scheduled))
            self.lines.append(f'Schedules are those of the config from {self.point} on: {", ".join(rates)}.')

    def _check_groups(self, name: str, groups: list[dict]) -> None:
        """Refuse the state of an optimizer that is another one, or of other parameters."""
        wrapper, where = optimizers_of(self.runner)[name], f'optimizer {name!r}' if name else 'the optimizer'
        advice = f'keep the optimizer of the checkpoint, or {_START_ANEW}'
        kinds = self.was['optimizers'].get(name, {}).get('type'), self.now['optimizers'][name]['type']
        keys = [set(part[0]) - IMPLEMENTATION for part in (groups, wrapper.param_groups)]
        # Versions of torch add keys, and what follows momentum by a schedule has one more.
        if kinds[0] not in (None, kinds[1]) or (('betas' in keys[0]) != ('betas' in keys[1])):
            raise UserError(f'{where} is {kinds[1]}, that of the checkpoint {kinds[0] or "another"}: {advice}')
        counts = [[len(group['params']) for group in part] for part in (groups, wrapper.param_groups)]
        if len(counts[0]) != len(counts[1]):
            raise UserError(
                f'{where} has {len(counts[1])} groups of parameters, that of the checkpoint {len(counts[0])}: {advice}'
            )
        # A model split over ranks has other parameters than a checkpoint of the whole.
        split = is_model_wrapper(self.runner.model) and not isinstance(self.runner.model, DistributedDataParallel)
        if counts[0] != counts[1] and not split:
            index = next(i for i, pair in enumerate(zip(*counts, strict=True)) if pair[0] != pair[1])
            raise UserError(
                f'group {index} of {where} has {counts[1][index]} parameters, '
                f'in the checkpoint {counts[0][index]}: {advice}'
            )

    def _replay(self, name: str, schedulers: list, kept: list[dict], groups: list[dict]) -> None:
        """Take new schedules to the point that is reached, and their values over."""
        wrapper = optimizers_of(self.runner)[name]
        epochs, length = (self.place[0] if self.now['by_epoch'] else 0), self.now['epoch_length']
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
        """Keep what a schedule that follows a metric has seen, and by how much it has lowered its values."""
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
