"""Saves and ends a run that is asked to stop by a signal, so that it loses nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmmap.registry import HOOKS

from ..atomic_files import remove
from ..checkpoint import STOP_CHECKPOINT, save_iteration
from ..errors import UserError
from ..preemption import Agreement, Preempted, StopRequest, shield_workers
from .resume_hook import ResumeHook


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, SIGUSR1, SIGHUP or Ctrl-C, writes a checkpoint of the iteration in progress and ends with status 75.

    The checkpoint is ``iter_N.pth``, where the run's checkpoint hook writes, and ``last_checkpoint`` names it: the same
    command with ``--resume`` goes on from it. It is removed once the resumed run has written a later one. With
    accumulated gradients the run goes on until the optimizer's next step. In a run of several processes it does not
    matter which of them gets the signal: all stop after the same iteration, at most one later. A second Ctrl-C ends
    at once.

    A validation is stopped too; a resumed run repeats it.
    """

    # Whatever the other hooks do after an iteration is in the checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._request = StopRequest()
        self._agreed = False
        self._saving: dict[str, int] | None = None
        self._saved: dict[str, int] | None = None
        self._polls = 0

    def before_train(self, runner: Runner) -> None:
        """Take over the signals."""
        self._agreement = Agreement()
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
        """Stop if that was asked for; remove the checkpoint of an earlier stop that a later one has replaced."""
        self._retire(runner)
        self._agreed = self._agreed or self._agreement.step(self._request.signal_name is not None)
        if self._agreed and _has_stepped(runner):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def before_val(self, runner: Runner) -> None:
        """Remember which weights are the training's."""
        self._weights = _fingerprint(runner.model)
        # A sampler may deal some processes more batches than others.
        self._polls = self._agreement.least(len(getattr(runner.val_loop, 'dataloader', ())))

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop if that was asked for."""
        if not self._poll():
            return
        # Moving averages stand in the model while it is validated; each hook's own step back does more than that.
        swapped = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if not torch.equal(_fingerprint(runner.model), self._weights):
            for hook in swapped:
                hook._swap_ema_parameters()
            if not torch.equal(_fingerprint(runner.model), self._weights):
                # Somebody else's weights must not pass for the training's: the validation goes on.
                for hook in swapped:
                    hook._swap_ema_parameters()
                return
        self._stop(runner, runner.epoch, runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop if that was asked for while the epoch was completed, such as during the writing of its checkpoint."""
        self._retire(runner)
        self._polls = 1
        # A loop over iterations is one epoch to its end, where there is nothing left to stop.
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and self._poll():
            self._stop(runner, runner.epoch + 1, runner.iter)

    def until_asked_to_stop(self, dataloader: DataLoader) -> Iterator[Any]:
        """Yield the batches of another hook's loader, as long as this process is not asked to stop.

        Args:
            dataloader (DataLoader): The loader of a side product, which may be left out.

        Raises:
            UserError: If the process is asked to stop; the run stops soon afterwards.
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
        """Remove the checkpoint of an earlier stop, if the last one of the run has replaced it."""
        self._retire(runner)

    def after_run(self, runner: Runner) -> None:
        """Give the signals back."""
        self._request.release()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember which point of the training a checkpoint holds."""
        if self._saving is not None:
            # FlexibleRunner knows the ends of iterations and epochs only, and puts one for a moment of an evaluation.
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
        runner.logger.warning(f'{cause}: the run stops; {saved}. To go on: the same command with --resume.')
        if 'SLURM_PROCID' in os.environ and is_main_process():
            # srun ends the other ranks as soon as one has another status than 0.
            time.sleep(3)
        self._request.release()
        raise Preempted

    def _save(self, runner: Runner, point: dict[str, int]) -> str:
        for hook in runner.hooks:
            if isinstance(hook, ResumeHook):
                # Gradients that wait for a step, as in a validation amid the batches of one.
                hook.share_gradients(runner)
        former, self._saving = self._own, point
        path = Path(save_iteration(runner, point['epoch'], point['iter']))
        if is_main_process() and former not in (None, path.name):
            remove(path.with_name(former))
        return str(path)

    def _retire(self, runner: Runner) -> None:
        """Remove the checkpoint of an earlier stop once the checkpoint hook of this run has written its first."""
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if self._own is not None and hook is not None and hook.last_ckpt is not None:
            if is_main_process() and Path(hook.last_ckpt).name != self._own:
                remove(Path(hook.out_dir, self._own))
            self._own = None
            runner.message_hub.pop_info(STOP_CHECKPOINT, None)


def _has_stepped(runner: Runner) -> bool:
    """Tell whether the last iteration ended with a step of the optimizer, so that no gradient waits for one."""
    if hasattr(runner.model, 'gradient_accumulation_steps'):
        # DeepSpeed counts for itself.
        return runner.model.micro_steps % runner.model.gradient_accumulation_steps() == 0
    wrapper = runner.optim_wrapper
    wrappers = wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(wrapper.should_update() for wrapper in wrappers if hasattr(wrapper, 'should_update'))


@torch.no_grad()
def _fingerprint(model: torch.nn.Module) -> torch.Tensor:
    return torch.stack([parameter.sum(dtype=torch.float32) for parameter in model.parameters()]).nan_to_num()
