"""A checkpoint hook whose files survive a kill at any moment."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmap.registry import HOOKS

from ..atomic_files import discard, make_way, not_written, remove, replace
from ..checkpoint import remove_left_overs


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are whole or not there.

    Local checkpoints are written under a temporary name and renamed, those of DeepSpeed and sharded FSDP, which are
    folders, as well. The checkpoint that ``max_keep_ckpts`` retires, and the best one before a better one, are removed
    after the new one is there, not before, so that there is always one. What a killed run left half written is removed
    when the next one starts.

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
        is_local = self.file_client_args is None and '://' not in str(out_dir)
        if is_local and self.backend_args is None:
            self.backend_args = {'backend': 'mmmap_atomic'}
        super().before_train(runner)
        if is_local and is_main_process():
            remove_left_overs(self.out_dir)
            remove_left_overs(runner.work_dir)
        if hasattr(runner, 'strategy'):
            _write_under_another_name(runner.strategy)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # mmengine removes the former best one before it writes the new one.
        backend = self.file_backend
        self.file_backend = _RemovesLater(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
            self.file_backend.remove_now()
        finally:
            self.file_backend = backend

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # mmengine retires a checkpoint before it writes the next one. It leaves that alone where the step is in the
        # list already, so the list is kept here; all else is its own.
        retired = None
        if self.max_keep_ckpts > 0:
            # A best checkpoint makes mmengine save the same step a second time.
            if step in self.keep_ckpt_ids:
                self.keep_ckpt_ids.remove(step)
            elif len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                retired = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            # With the retired one: if the process is killed before it is removed, the resumed run does that.
            listed = [*([] if retired is None else [retired]), *self.keep_ckpt_ids]
            runner.message_hub.update_info('keep_ckpt_ids', listed)
        if is_main_process():
            # mmengine opens it for writing, whatever it is.
            pointer = Path(runner.work_dir, 'last_checkpoint')
            make_way(pointer)
            if pointer.is_symlink() or not os.access(pointer, os.W_OK):
                remove(pointer)
        super()._save_checkpoint_with_step(runner, step, meta)
        if retired is None:
            return
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if is_main_process():
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(retired))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                self.file_backend.rmtree(path)


class _RemovesLater:
    """A file backend that removes files and folders only when it is told to."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.calls: list[tuple[Callable, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.calls.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.calls.append((self.backend.rmtree, path))

    def remove_now(self) -> None:
        for call, path in self.calls:
            call(path)


def _write_under_another_name(strategy: Any) -> None:
    """Let the checkpoints of a strategy, files and folders alike, appear under their names when they are complete.

    Strategies write them directly, DeepSpeed and sharded FSDP from all processes; a backend is not asked.
    """
    if 'save_checkpoint' in vars(strategy):
        return  # Done by an earlier training of this runner.
    save = strategy.save_checkpoint

    @wraps(save)
    def save_checkpoint(filename: str, **kwargs: Any) -> None:
        if '://' in str(filename):
            save(filename, **kwargs)
            return
        temporary = f'{filename}.tmp'
        if is_main_process():
            remove(temporary)
        barrier()
        try:
            save(temporary, **kwargs)
            barrier()
            if is_main_process():
                replace(temporary, filename)
        # torch raises RuntimeError where its writer finds the disk full.
        except (OSError, RuntimeError) as error:
            discard(temporary)
            raise not_written(filename, error) from error
        barrier()

    strategy.save_checkpoint = save_checkpoint
