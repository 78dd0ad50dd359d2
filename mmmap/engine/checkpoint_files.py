"""Checks checkpoints, finds the last one of a run that is undamaged, and writes one between two regular ones."""

import contextlib
import os
import re
import zipfile
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import Runner

from mmmap.utils.atomic_files import discard

from ..utils.errors import DamagedFileError, UserError
from ..utils.file_damage import first_damage
from ..utils.safe_load import load
from .atomic_backend import AtomicLocalBackend
from .checkpoint_folder import folder_damage
from .runner_parts import checkpoint_hook_of

# The names that CheckpointHook gives by default. `best_*.pth` is not among them: it has no optimizer state.
_STEP_FILE = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
_POINTER = 'last_checkpoint'
# The key in mmengine's message hub, which a checkpoint stores, with the name of the last file of save_iteration().
STOP_CHECKPOINT = 'stop_checkpoint'


def damage_of(path: str | Path) -> str | None:
    """Say what is wrong with a local checkpoint, a file or a folder; None if it is undamaged. Verifies all checksums.

    A checkpoint that is refused because it holds more than data counts as undamaged.
    """
    try:
        if not os.path.exists(path):
            return 'does not exist'
        if os.path.isdir(path):
            return folder_damage(path)
        if not os.path.isfile(path):
            return 'is no file'  # Opening a pipe would never return.
        damage = first_damage(path)
        if damage is None:
            # The checksums fit; the content may still be no checkpoint. With mmap no tensor of an archive is read.
            load(path, 'cpu', mmap=zipfile.is_zipfile(path))
        return damage
    except OSError as error:
        return f'cannot be read ({error.strerror or error})'
    except DamagedFileError as error:
        return f'is damaged ({str(error)[-80:]})'
    except UserError:
        return None


def _read_pointer(pointer: Path) -> tuple[str, str | None]:
    """The name in the file ``last_checkpoint``, and what is wrong with that file or None."""
    if not os.path.lexists(pointer):
        return '', None
    try:
        if not pointer.is_file():
            return '', 'is no file'
        content = pointer.read_bytes()
        named = content.decode().strip()
        if not named or not named.isprintable():
            return '', 'names no file'
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(named)  # Raises for a name that no file system has.
        return named, None
    except OSError as error:
        return '', f'cannot be read ({error.strerror or error})'
    except UnicodeError:
        return '', 'is no text'


def find_whole_checkpoint(work_dir: str | Path) -> tuple[str | None, list[str]]:
    """Find the checkpoint from which an interrupted run resumes.

    This is the one that ``last_checkpoint`` names. If that is missing or damaged, it is the newest undamaged
    ``epoch_*.pth`` or ``iter_*.pth``, a file or a folder. A file of that name in the work directory comes first, as the
    directory may have been copied. If the work directory has no checkpoints, the folder in the name is searched.

    Returns:
        tuple[str | None, list[str]]: The path or None; messages for the user, one line each.
    """
    folder, messages = Path(work_dir), []
    pointer = folder / _POINTER
    named, fault = _read_pointer(pointer)
    if fault is not None:
        messages.append(f'{pointer} {fault}: looking for the newest checkpoint.')
    candidates = _step_files(folder)
    first = None
    if named:
        first = folder / os.path.basename(named)
        if not candidates and not os.path.lexists(first):
            first, candidates = Path(named), _step_files(Path(named).parent)
        damage = damage_of(first)
        if damage is None:
            return str(first), [*messages, f'Resuming from {first}.']
        messages.append(f'{first}, named in {pointer}, {damage}: looking for an earlier checkpoint.')
    for path in candidates:
        if path == first:
            continue
        damage = damage_of(path)
        if damage is None:
            return str(path), [*messages, f'Resuming from {path}.']
        messages.append(f'{path} {damage}: skipped.')
    return None, [*messages, f'No checkpoint to resume from in {work_dir}: training starts from the beginning.']


def _step_files(folder: Path) -> list[Path]:
    """Checkpoints of a folder, the newest first."""
    try:
        found = [(path, match) for path in folder.iterdir() if (match := _STEP_FILE.fullmatch(path.name))]
        # Files written within one tick of the clock are sorted by their step.
        found.sort(key=lambda pair: (pair[0].lstat().st_mtime_ns, int(pair[1][1])), reverse=True)
    except OSError:
        return []
    return [path for path, _ in found]


def remove_left_overs(folder: str | Path) -> None:
    """Remove incomplete checkpoints of a killed process from a folder into which no process writes now."""
    for pattern in ('*.pth.tmp', '*.pth.former.tmp', f'{_POINTER}.tmp'):
        for path in Path(folder).glob(pattern):
            discard(path)


def require_same_checkpoint(path: str | None) -> None:
    """Make sure that all processes of a run have found the same checkpoint to resume from.

    Raises:
        UserError: If another process found another one, for example on a slow or broken disk.
    """
    found = all_gather_object(path)
    if len(set(found)) > 1:
        told = ', '.join(f'rank {rank} {name}' for rank, name in enumerate(found))
        raise UserError(f'the processes would not resume from the same checkpoint ({told}): name one, --resume FILE')


def check_checkpoint_file(path: str) -> None:
    """Check a checkpoint that the user named. URLs are not checked.

    Raises:
        UserError: If a local path does not exist or is damaged.
    """
    if '://' in path:
        return
    if not os.path.exists(path):
        raise UserError(f'checkpoint not found: {path}')
    damage = damage_of(path)
    if damage is not None:
        raise UserError(f'checkpoint {damage}: {path}')


def save_iteration(runner: Runner, epoch: int | None = None, iteration: int | None = None) -> str:
    """Write a checkpoint between two regular ones, from which the run can resume. All processes call it.

    It is ``iter_N.pth`` in the folder of the run's checkpoint hook, and ``last_checkpoint`` names it.
    ``PreemptionHook`` removes it when the resumed run has written a later one.

    Args:
        runner (Runner): A training run.
        epoch (int, optional): Completed epochs. The default is right in ``after_train_iter`` of the last hook.
        iteration (int, optional): Completed iterations. The default likewise.
    """
    hook = checkpoint_hook_of(runner)
    epoch = runner.epoch if epoch is None else epoch
    iteration = runner.iter + 1 if iteration is None else iteration
    out_dir, name = (runner.work_dir if hook is None else hook.out_dir), f'iter_{iteration}.pth'
    client_args, backend_args = (None, None) if hook is None else (hook.file_client_args, hook.backend_args)
    if client_args is None and backend_args is None and '://' not in str(out_dir):
        # Atomic even if the other checkpoints of the run are not: the process may be killed before the last byte.
        backend_args = {'backend': 'mmmap_atomic'}
    runner.message_hub.update_info(STOP_CHECKPOINT, name)
    runner.save_checkpoint(
        out_dir,
        name,
        client_args,
        meta=dict(epoch=epoch, iter=iteration),
        # FlexibleRunner ignores `meta` and adds one to the epoch or the iteration.
        by_epoch=epoch != runner.epoch,
        backend_args=backend_args,
    )
    path = os.path.join(out_dir, name)
    if is_main_process():
        AtomicLocalBackend().put_text(path, Path(runner.work_dir, 'last_checkpoint'))
    return path
