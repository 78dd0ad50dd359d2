"""Checkpoint files that are whole or not there, and how to find the last whole one."""

import os
import re
import zipfile
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from .errors import UserError

# What CheckpointHook writes by default. `best_*.pth` is left out: it holds no optimizer state to resume from.
_STEP_FILE = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


@register_backend('mmmap_atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name only once all their bytes are on the disk.

    The bytes go to ``NAME.tmp`` beside the target, which a rename within one file system then replaces in one step. A
    process killed at any moment leaves the former file untouched and at worst a ``.tmp``, overwritten by the next try.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, making its folder where needed.

        Args:
            obj (bytes): The content.
            filepath (str or Path): Where it goes.
        """
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + '.tmp')
        with open(temporary, 'wb') as file:
            file.write(obj)
            file.flush()
            # Without it a power cut may keep the rename and lose the bytes.
            os.fsync(file.fileno())
        os.replace(temporary, target)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file, as :meth:`put` does.

        Args:
            obj (str): The content.
            filepath (str or Path): Where it goes.
            encoding (str): How to encode it.
        """
        self.put(obj.encode(encoding), filepath)


def is_whole(path: str | Path) -> bool:
    """Tell whether a file is a complete archive as ``torch.save`` writes it.

    The directory of a zip archive is its last part, so a file cut anywhere does not open. No tensor is read.

    Args:
        path (str or Path): A local file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('data.pkl') for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def find_whole_checkpoint(work_dir: str | Path) -> tuple[str | None, list[str]]:
    """Find the checkpoint from which an interrupted run goes on.

    It is the one that ``last_checkpoint`` names, or, if that is missing or cut off, the newest whole
    ``epoch_*.pth`` or ``iter_*.pth`` of the folder.

    Args:
        work_dir (str or Path): The work directory of the run.

    Returns:
        tuple[str | None, list[str]]: The path, None if there is none; what to tell the user, one line each.
    """
    work_dir, messages = Path(work_dir), []
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named and is_whole(named):
        return named, [f'Resuming from {named}.']
    if named:
        state = 'is cut off' if Path(named).is_file() else 'does not exist'
        messages.append(f'{named}, named in {pointer}, {state}: looking for an earlier checkpoint.')

    def age(path: Path) -> tuple[int, int]:
        # Files written in one tick of the clock are told apart by their step.
        return path.stat().st_mtime_ns, int(_STEP_FILE.fullmatch(path.name)[1])

    candidates = [path for path in work_dir.glob('*.pth') if _STEP_FILE.fullmatch(path.name)]
    for path in sorted(candidates, key=age, reverse=True):
        if is_whole(path):
            return str(path), [*messages, f'Resuming from {path}.']
        if str(path) != named:
            messages.append(f'{path} is cut off: skipped.')
    return None, [*messages, f'No checkpoint to resume from in {work_dir}: training starts from the beginning.']


def check_checkpoint_file(path: str) -> None:
    """Check that a checkpoint the user named can be read; URLs are left to mmengine.

    Args:
        path (str): The checkpoint.

    Raises:
        UserError: If a local path is no file, or a file that was cut off.
    """
    if '://' in path:
        return
    if not Path(path).is_file():
        raise UserError(f'checkpoint not found: {path}')
    with open(path, 'rb') as file:
        is_archive = file.read(2) == b'PK'
    # Files older than torch 1.6 are no archives: torch.load judges those.
    if (is_archive and not is_whole(path)) or os.path.getsize(path) == 0:
        raise UserError(f'checkpoint is cut off: {path}')


def save_iteration(runner: Runner) -> str:
    """Write a checkpoint of the iteration in progress, once all hooks are done with it, to resume from.

    It is ``iter_N.pth`` where the run's checkpoint hook writes, and ``last_checkpoint`` names it.

    Args:
        runner (Runner): In ``after_train_iter``; all processes have to call it.

    Returns:
        str: The file.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    out_dir, name = (runner.work_dir if hook is None else hook.out_dir), f'iter_{runner.iter + 1}.pth'
    runner.save_checkpoint(
        out_dir,
        name,
        None if hook is None else hook.file_client_args,
        meta=dict(epoch=runner.epoch, iter=runner.iter + 1),
        by_epoch=False,
        backend_args={'backend': 'mmmap_atomic'} if hook is None else hook.backend_args,
    )
    path = os.path.join(out_dir, name)
    if is_main_process():
        AtomicLocalBackend().put_text(path, Path(runner.work_dir, 'last_checkpoint'))
    return path
