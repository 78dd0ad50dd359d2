"""A hook that skips training steps with values that are not finite."""

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmap.registry import HOOKS
from mmmap.utils.checkpoint_content import ON_PURPOSE
from mmmap.utils.non_finite import first_non_finite

from ...utils.errors import UserError
from ..batch_report import dump
from ..checkpoint_files import save_iteration
from ..runner_parts import accumulated_batches, unwrapped_model
from ..skipped_steps import SkipCount, SkipReport, decisive_reports, describe_skip, gather_reports, named_tensors
from ..step_guard import CheckedStep, StepGuard, scale_may_fall, unguarded

# On a GPU the host reads the findings of a step this many steps later, so that it need not wait.
_STEPS_LATER = 2
_SCALAR = 'train/skipped_steps'


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Skip every step with a loss or a gradient that is not finite, and stop the run if there are too many.

    A skipped step changes no weight, no state of the optimizer, no running statistic and no moving average, not even
    that of ``EMAHook`` (:class:`~mmmap.engine.step_guard.StepGuard`). One line in the log names the loss or gradient,
    the process and the files. When too many steps are skipped, the run writes a checkpoint of the state, which is
    still good, and the batch to the work directory, and ends with one line. Steps that float16 skips while its loss
    scale falls do not count. Weights, averages and optimizer states that are not finite are never written.

    It works in any config of mmpretrain, mmsegmentation or mmdetection:
    ``custom_hooks = [dict(type='NonFiniteGuardHook')]``.

    Args:
        max_in_a_row (int): Stop after this many skipped steps in a row. Defaults to 10.
        max_share (float): Also stop if more than this share of the steps of an epoch is skipped, and more than
            ``max_in_a_row``. Defaults to 0.1.

    Raises:
        ValueError: If an argument is out of range.
    """

    # The last checkpoint has to include what other hooks do after an iteration.
    priority = 'LOWEST'

    def __init__(self, max_in_a_row: int = 10, max_share: float = 0.1) -> None:
        if not isinstance(max_in_a_row, int) or max_in_a_row < 1:
            raise ValueError(f'max_in_a_row={max_in_a_row!r}: must be a whole number from 1')
        if not isinstance(max_share, (int, float)) or not 0 < max_share <= 1:
            raise ValueError(f'max_share={max_share!r}: must be in (0, 1]')
        self._count = SkipCount(max_in_a_row, max_share)
        self._guard: StepGuard | None = None
        self._is_first_iteration = False
        # Names of tensors that are infinite on purpose, such as masks; None if this hook is inactive.
        self._infinite: set[str] | None = None
        # The batches since the last step; then the steps to be read with their iteration, batches and losses.
        self._batches: list = []
        self._unread: deque[tuple[int, list, dict, list[CheckedStep]]] = deque()

    def before_train(self, runner: Runner) -> None:
        """Note what is infinite on purpose, and check each checkpoint before it is written."""
        # Only the last of several guard hooks is active: that of the user's config, not that of a base config.
        if [hook for hook in runner.hooks if isinstance(hook, NonFiniteGuardHook)][-1] is not self:
            return
        model = unwrapped_model(runner)
        trained = {id(param) for param in model.parameters() if param.requires_grad}
        given = [*model.named_buffers(), *((n, p) for n, p in model.named_parameters() if id(p) not in trained)]
        self._infinite = {name for name, value in given if first_non_finite({name: value})}
        self._is_first_iteration = self._guard is None
        scalars = runner.message_hub.log_scalars
        self._count.total = int(scalars[_SCALAR].current()) if _SCALAR in scalars else 0
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                # mmengine removes a former checkpoint before it writes the next. There is no public method to use.
                hook._save_checkpoint_with_step = partial(self._save, runner, hook._save_checkpoint_with_step)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Copy the state that the iteration may change."""
        if self._is_first_iteration:
            self._is_first_iteration = False
            self._start(runner)
        if self._guard is not None:
            self._guard.start_iteration()
            self._batches.append(data_batch)

    def _start(self, runner: Runner) -> None:
        """Guard the steps. Other hooks have created their averages by now."""
        name = unguarded(runner.optim_wrapper)
        if name is not None:
            runner.logger.warning(
                f'NonFiniteGuardHook: steps are not guarded, as {name} hides the gradients; checkpoints are.'
            )
            return
        averaging = [hook for hook in runner.hooks if _keeps_averages(hook)]
        averages: list[nn.Module] = []
        if accumulated_batches(runner.optim_wrapper) > 1:
            # Averages change in each iteration, but only the last iteration tells whether the step is made.
            known = {id(module) for module in runner.model.modules()}
            averages = [module for hook in averaging for module in _modules_in(hook) if id(module) not in known]
        self._guard = StepGuard(runner.model, runner.optim_wrapper, averages)
        for hook in averaging:
            vars(hook)['after_train_iter'] = partial(self._unless_skipped, self._guard, hook.after_train_iter)
        self._steps_later = _STEPS_LATER if any(param.is_cuda for param in runner.model.parameters()) else 0

    @staticmethod
    def _unless_skipped(guard: StepGuard, after_train_iter: Callable, *args: Any, **kwargs: Any) -> None:
        if not guard.skipped():
            after_train_iter(*args, **kwargs)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Read the findings of the step, on a GPU those of two steps before.

        Raises:
            UserError: If too many steps were skipped.
        """
        if self._guard is None or not self._guard.steps():
            return
        self._unread.append((runner.iter + 1, self._batches, outputs or {}, self._guard.steps()))
        self._batches = []
        if len(self._unread) > self._steps_later:
            self._read(runner, saves=True)
        if self._count.total:
            runner.message_hub.update_scalar(_SCALAR, self._count.total)

    def after_train(self, runner: Runner) -> None:
        """Read the findings of the last steps."""
        while self._unread:
            self._read(runner, saves=False)

    def _read(self, runner: Runner, saves: bool) -> None:
        iteration, batches, outputs, steps = self._unread.popleft()
        if not any(step.skipped for step in steps):
            self._count.add(False)
            return
        reports = gather_reports(runner.model, steps, batches, outputs)
        if not any(report.losses for report in reports) and scale_may_fall(runner.optim_wrapper):
            runner.logger.info(f'Iteration {iteration}: step skipped, the loss scale was too high for float16.')
            return
        self._count.add(True)
        runner.logger.warning(
            f'Iteration {iteration}: step skipped, not finite: {describe_skip(reports)}. Weights, optimizer and '
            f'averages are as before it; {self._count.total} skipped in total.'
        )
        loader = runner.train_dataloader
        length = len(loader) if hasattr(loader, '__len__') else runner.max_iters
        steps_per_epoch = length / accumulated_batches(runner.optim_wrapper)
        reason = self._count.too_many((iteration - 1) // length, steps_per_epoch)
        if reason is not None:
            content = dict(iteration=iteration, losses=outputs, batches=batches)
            dumps = self._dump(runner, content, reports)
            state = self._save_good_state(runner) if saves else 'the last checkpoint is good'
            raise UserError(
                f'training stopped at iteration {iteration}: {reason}, not finite: {describe_skip(reports)}; '
                f'the batch is in {dumps}; {state}'
            )

    @staticmethod
    def _dump(runner: Runner, content: dict, reports: list[SkipReport]) -> str:
        """Write the batches with the fault, a file per process; returns the first file."""
        rank = get_rank()
        path = None
        if any(report.rank == rank for report in decisive_reports(reports)):
            path = str(Path(runner.work_dir, f'non_finite_iter_{content["iteration"]}_rank_{rank}.pt'))
            try:
                dump(content | dict(rank=rank, found=describe_skip(reports)), path)
            except (OSError, RuntimeError) as error:
                runner.logger.error(f'The batch could not be written to {path}: {error}')
                path = None
        return next((path for path in all_gather_object(path) if path is not None), 'no file')

    def _save_good_state(self, runner: Runner) -> str:
        """Write a checkpoint so that no work is lost; returns a note for the message."""
        bad = _first_on_any_rank(first_non_finite(unwrapped_model(runner).named_parameters()))
        if bad is not None:
            return f'the weights themselves are not finite ({bad}): resume from an earlier checkpoint with --resume'
        try:
            return f'the state, which is good, is in {save_iteration(runner)}'
        except (OSError, RuntimeError, UserError) as error:
            return f'a checkpoint could not be written: {" ".join(str(error).split())}'

    def _save(self, runner: Runner, save: Callable, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint, unless the weights are not finite."""
        if self._guard is not None:
            self._guard.restore_before_checkpoint()
        self._refuse(_first_on_any_rank(first_non_finite(self._named(unwrapped_model(runner).named_parameters()))))
        save(*args, **kwargs)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write a checkpoint with values that are not finite.

        Raises:
            UserError: If it has such values. No former checkpoint is removed.
        """
        if self._infinite is None:
            return
        if self._infinite and 'meta' in checkpoint:
            checkpoint['meta'][ON_PURPOSE] = sorted(self._infinite)
        # DeepSpeed adds its weights later.
        weights = checkpoint.get('state_dict') or dict(unwrapped_model(runner).named_parameters())
        averages = checkpoint.get('ema_state_dict') or {}
        optimizer = named_tensors(checkpoint.get('optimizer'), 'optimizer')
        self._refuse(first_non_finite([*self._named(weights.items()), *self._named(averages.items()), *optimizer]))

    def _named(self, pairs: Any) -> list[tuple[str, Any]]:
        """Leave out tensors that are infinite on purpose."""
        infinite = self._infinite or set()
        return [(name, value) for name, value in pairs if name.removeprefix('module.') not in infinite]

    @staticmethod
    def _refuse(name: str | None) -> None:
        if name is not None:
            raise UserError(
                f'checkpoint not written: {name} is not finite; resume from the checkpoint before, which is unchanged, '
                'with --resume and, for example, a lower learning rate'
            )


def _first_on_any_rank(name: str | None) -> str | None:
    """The first name that a process found; with FSDP each process has a shard of the weights."""
    return next((found for found in all_gather_object(name) if found is not None), None)


def _modules_in(hook: Hook) -> list[nn.Module]:
    return [value for value in vars(hook).values() if isinstance(value, nn.Module)]


def _keeps_averages(hook: Hook) -> bool:
    """Whether a hook averages the weights after each iteration, like EMAHook and mmdet's MeanTeacherHook."""
    if type(hook).after_train_iter is Hook.after_train_iter:
        return False
    shadows = [
        value
        for value in vars(hook).values()
        if isinstance(value, dict) and value and all(isinstance(item, Tensor) for item in value.values())
    ]
    return isinstance(hook, EMAHook) or hasattr(hook, 'momentum_update') or bool(shadows or _modules_in(hook))
