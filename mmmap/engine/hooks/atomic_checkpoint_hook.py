"""A checkpoint hook whose files survive a kill at any moment."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmap.registry import HOOKS

from ..checkpoint import AtomicLocalBackend


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are whole or not there.

    Local checkpoints and the ``last_checkpoint`` file are written under a temporary name and renamed. The checkpoint
    that ``max_keep_ckpts`` retires is removed after the new one is there, not before, so that there is always one
    to resume from.

    Args:
        **kwargs: The arguments of ``CheckpointHook``.

    Raises:
        TypeError: If an argument is not one of those, now instead of at the first checkpoint.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.args:
            raise TypeError(f'AtomicCheckpointHook got an unexpected argument {next(iter(self.args))!r}')

    def before_train(self, runner: Runner) -> None:
        """Choose the atomic backend for a local folder that no other backend was configured for."""
        out_dir = runner.work_dir if self.out_dir is None else self.out_dir
        if self.backend_args is None and self.file_client_args is None and '://' not in str(out_dir):
            self.backend_args = {'backend': 'mmmap_atomic'}
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        retired = None
        # A best checkpoint makes mmengine save the same step a second time.
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                retired = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        if not is_main_process():
            return
        AtomicLocalBackend().put_text(str(self.last_ckpt), Path(runner.work_dir, 'last_checkpoint'))
        if retired is not None:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(retired))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
