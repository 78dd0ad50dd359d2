"""A hook that saves and ends a run when a signal asks it to stop."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmmap.registry import HOOKS
from mmmap.utils.atomic_files import remove

from ...utils.errors import UserError
from ..checkpoint_files import STOP_CHECKPOINT, save_iteration
from ..preemption import Preempted, StopAgreement, StopRequest, shield_workers
from ..runner_parts import checkpoint_hook_of, optimizers_of
from .resume_hook import ResumeHook


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, SIGUSR1, SIGHUP or Ctrl-C, write a checkpoint of the present iteration and end with status 75.

    The checkpoint is ``iter_N.pth`` in the folder of the run's checkpoint hook, and ``last_checkpoint`` names it. The
    same command with ``--resume`` continues from it. It is removed when the resumed run has written a later one. With
    accumulated gradients the run continues until the next step of the optimizer. Of several processes any may get the
    signal: all stop after the same iteration, at most one later. A second Ctrl-C ends at once.

    A validation is stopped, too. The resumed run repeats it.
    """

    # The checkpoint has to include what other hooks do after an iteration.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._request = StopRequest()
        self._agreed = False
        self._saving: dict[str, int] | None = None
        self._saved: dict[str, int] | None = None
        self._polls = 0

    def before_train(self, runner: Runner) -> None:
        """Set the signal handlers."""
        self._agreement = StopAgreement()
        self._first_iter = runner.iter
        # The name of the last checkpoint of an earlier stop.
        self._own: str | None = runner.message_hub.runtime_info.get(STOP_CHECKPOINT)
        for loop in (runner.train_loop, runner.val_loop):
            if hasattr(loop, 'dataloader'):
                shield_workers(loop.dataloader)
        self._request.watch(within=type(runner.train_loop).run.__code__)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop if requested; remove the checkpoint of an earlier stop if there is a later one."""
        self._retire(runner)
        self._agreed = self._agreed or self._agreement.step(self._request.signal_name is not None)
        if self._agreed and _has_stepped(runner):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def before_val(self, runner: Runner) -> None:
        """Store a fingerprint of the weights of the training."""
        self._weights = _fingerprint(runner.model)
        # Some processes may have more batches than others.
        self._polls = self._agreement.least(len(getattr(runner.val_loop, 'dataloader', ())))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if requested."""
        if not self._poll():
            return
        # During a validation EMAHook has swapped its averages in. Its public method to swap back does more than that.
        swapped = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if not torch.equal(_fingerprint(runner.model), self._weights):
            for hook in swapped:
                hook._swap_ema_parameters()
            if not torch.equal(_fingerprint(runner.model), self._weights):
                # These are not the weights of the training and must not be saved: the validation continues.
                for hook in swapped:
                    hook._swap_ema_parameters()
                return
        self._stop(runner, runner.epoch, runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop if requested at the end of the epoch, for example while its checkpoint was written."""
        self._retire(runner)
        self._polls = 1
        # A loop over iterations is a single epoch, after which there is nothing to stop.
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and self._poll():
            self._stop(runner, runner.epoch + 1, runner.iter)

    def until_asked_to_stop(self, dataloader: DataLoader) -> Iterator[Any]:
        """Yield the batches of another hook's data loader until this process is asked to stop.

        Raises:
            UserError: If the process is asked to stop. The run stops soon after.
        """
        shield_workers(dataloader)
        for batch in dataloader:
            if self._request.signal_name is not None:
                raise UserError(f'the run is asked to stop ({self._request.signal_name})')
            yield batch

    def _poll(self) -> bool:
        if self._polls > 0 and not self._agreed:
            self._polls -= 1
            self._agreed = self._agreement.step(self._request.signal_name is not None)
        return self._agreed

    def after_train(self, runner: Runner) -> None:
        """Remove the checkpoint of an earlier stop if there is a later one."""
        self._retire(runner)

    def after_run(self, runner: Runner) -> None:
        """Restore the former signal handlers."""
        self._request.release()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the point of the training at which a checkpoint is written."""
        if self._saving is not None:
            # During an evaluation FlexibleRunner would store the end of an iteration or epoch instead.
            checkpoint['meta'].update(self._saving)
        if 'optimizer' in checkpoint:
            self._saved = {name: checkpoint['meta'][name] for name in ('epoch', 'iter')}

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        point = dict(epoch=epoch, iter=iteration)
        cause = self._request.signal_name or 'A signal to another process'
        if self._saved == point:
            saved = f'iteration {iteration} is saved'
        elif iteration > self._first_iter:
            saved = f'iteration {iteration} is saved in {self._save(runner, point)}'
        else:
            saved = f'iteration {iteration} is where it started, nothing to save'
        self._agreement.meet()
        runner.logger.warning(f'{cause}: the run stops; {saved}. To continue: the same command with --resume.')
        if 'SLURM_PROCID' in os.environ and is_main_process():
            # srun ends the other ranks as soon as one exits with a status other than 0.
            time.sleep(3)
        self._request.release()
        raise Preempted

    def _save(self, runner: Runner, point: dict[str, int]) -> str:
        for hook in runner.hooks:
            if isinstance(hook, ResumeHook):
                # A validation may come between accumulated batches, whose gradients wait for a step.
                hook.share_gradients(runner)
        former, self._saving = self._own, point
        path = Path(save_iteration(runner, point['epoch'], point['iter']))
        if is_main_process() and former is not None and former != path.name:
            remove(path.with_name(former))
        return str(path)

    def _retire(self, runner: Runner) -> None:
        """Remove the checkpoint of an earlier stop once the checkpoint hook of this run has written its first."""
        hook = checkpoint_hook_of(runner)
        if self._own is not None and hook is not None and hook.last_ckpt is not None:
            if is_main_process() and Path(hook.last_ckpt).name != self._own:
                remove(Path(hook.out_dir, self._own))
            self._own = None
            runner.message_hub.pop_info(STOP_CHECKPOINT, None)


def _has_stepped(runner: Runner) -> bool:
    """Whether the last iteration ended with a step of the optimizer, so that no gradient waits for one."""
    # DeepSpeed counts itself.
    if hasattr(runner.model, 'gradient_accumulation_steps'):
        return runner.model.micro_steps % runner.model.gradient_accumulation_steps() == 0
    wrappers = optimizers_of(runner).values()
    return all(wrapper.should_update() for wrapper in wrappers if hasattr(wrapper, 'should_update'))


@torch.no_grad()
def _fingerprint(model: torch.nn.Module) -> torch.Tensor:
    return torch.stack([parameter.sum(dtype=torch.float32) for parameter in model.parameters()]).nan_to_num()
