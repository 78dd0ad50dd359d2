"""A hook that writes checkpoints completely or not at all."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmap.registry import HOOKS
from mmmap.utils.atomic_files import discard, move_folder_aside, remove, replace

from ..atomic_backend import write_error
from ..checkpoint_files import remove_left_overs


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with files that are complete even if the process is killed at any moment.

    Local checkpoints are written under a temporary name and renamed. So are those of DeepSpeed and sharded FSDP, which
    are folders. A checkpoint that ``max_keep_ckpts`` or a better one retires is removed after the new one is written,
    so that there is always one. Incomplete files of a killed run are removed when the next run starts.

    Args:
        **kwargs: The arguments of ``CheckpointHook``.

    Raises:
        TypeError: If an argument is unknown; mmengine would raise only at the first checkpoint.
    """

    backend_args: dict | None
    best_ckpt_path: str | None
    file_backend: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.args:
            raise TypeError(f'AtomicCheckpointHook got an unexpected argument {next(iter(self.args))!r}')

    def before_train(self, runner: Runner) -> None:
        """Choose the atomic backend for a local folder, unless another backend is configured."""
        out_dir = runner.work_dir if self.out_dir is None else self.out_dir
        is_local = self.file_client_args is None and '://' not in str(out_dir)
        if is_local and self.backend_args is None:
            self.backend_args = {'backend': 'mmmap_atomic'}
        super().before_train(runner)
        self._take_own_best()
        if is_local and is_main_process():
            remove_left_overs(self.out_dir)
            remove_left_overs(runner.work_dir)
        if hasattr(runner, 'strategy'):
            _rename_when_complete(runner.strategy)

    def _take_own_best(self) -> None:
        """Let the best checkpoints of a resumed run be those in its own folder.

        A checkpoint has their whole paths. After the folder was copied these are the original's, which mmengine would
        remove when the copy has a better one.
        """

        def own(path: str | None) -> str | None:
            return path and self.file_backend.join_path(self.out_dir, os.path.basename(path))

        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = own(self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = own(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # mmengine removes the former best checkpoint before it writes the new one.
        backend = self.file_backend
        self.file_backend = _RemovesLater(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
            self.file_backend.remove_now()
        finally:
            self.file_backend = backend

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # mmengine removes a checkpoint before it writes the next one, unless the step is in the list already. So the
        # list is updated here.
        retired = None
        if self.max_keep_ckpts > 0:
            # A best checkpoint makes mmengine save the same step a second time.
            if step in self.keep_ckpt_ids:
                self.keep_ckpt_ids.remove(step)
            elif len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                retired = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            # The list has the retired one, too: if the process is killed before the removal, the resumed run does it.
            listed = [*([] if retired is None else [retired]), *self.keep_ckpt_ids]
            runner.message_hub.update_info('keep_ckpt_ids', listed)
        if is_main_process():
            # mmengine opens this path for writing even if it is a folder or a link.
            pointer = Path(runner.work_dir, 'last_checkpoint')
            move_folder_aside(pointer)
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
    """A file backend that removes files and folders only in ``remove_now``."""

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


def _rename_when_complete(strategy: Any) -> None:
    """Make a strategy rename its checkpoints, files or folders, when they are complete.

    Strategies write directly, without a backend; DeepSpeed and sharded FSDP write from all processes.
    """
    if 'save_checkpoint' in vars(strategy):
        return  # An earlier training of this runner has done it.
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
        # torch raises RuntimeError if the disk is full.
        except (OSError, RuntimeError) as error:
            discard(temporary)
            raise write_error(filename, error) from error
        barrier()

    strategy.save_checkpoint = save_checkpoint
