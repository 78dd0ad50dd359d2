"""How to tell a sound checkpoint, and find the last one of a run."""

import contextlib
import os
import re
import zipfile
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..utils.errors import DamagedFileError, UserError
from ..utils.integrity import first_damage
from ..utils.safe_load import load
from .atomic_files import AtomicLocalBackend, discard
from .checkpoint_folder import folder_damage

# What CheckpointHook writes by default. `best_*.pth` is left out: it holds no optimizer state to resume from.
_STEP_FILE = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
_POINTER = 'last_checkpoint'
# Where mmengine's message hub, which a checkpoint stores, keeps the name of the last file of save_iteration().
STOP_CHECKPOINT = 'stop_checkpoint'


def damage_of(path: str | Path) -> str | None:
    """Find out what is wrong with a checkpoint, a file or a folder: each of its bytes is read and compared.

    Args:
        path (str or Path): A local file or folder.

    Returns:
        str | None: A few words; None if it is sound. One that would be refused, as it holds more than data, is sound.
    """
    try:
        if not os.path.exists(path):
            return 'does not exist'
        if os.path.isdir(path):
            return folder_damage(path)
        if not os.path.isfile(path):
            return 'is no file'  # Opening a pipe would wait for ever.
        damage = first_damage(path)
        if damage is None:
            # The parts fit their checksums, but do they make a checkpoint? Of an archive no number is read for it.
            load(path, 'cpu', mmap=zipfile.is_zipfile(path))
        return damage
    except OSError as error:
        return f'cannot be read ({error.strerror or error})'
    except DamagedFileError as error:
        return f'is damaged ({str(error)[-80:]})'
    except UserError:
        return None


def _read_pointer(pointer: Path) -> tuple[str, str | None]:
    """The name that ``last_checkpoint`` holds, or what is wrong with it."""
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
    """Find the checkpoint from which an interrupted run goes on.

    It is the one that ``last_checkpoint`` names, or, if that is missing or damaged, the newest sound ``epoch_*.pth`` or
    ``iter_*.pth``, each a file or a folder. The name counts in the work directory first, as that may have been copied;
    a run whose checkpoints go elsewhere has none there.

    Args:
        work_dir (str or Path): The work directory of the run.

    Returns:
        tuple[str | None, list[str]]: The path, None if there is none; what to tell the user, one line each.
    """
    folder, messages = Path(work_dir), []
    pointer = folder / _POINTER
    named, fault = _read_pointer(pointer)
    if fault is not None:
        messages.append(f'{pointer} {fault}: looking for the newest checkpoint.')
    candidates = _step_files(folder)
    first = folder / os.path.basename(named) if named else None
    if named and not candidates and not os.path.lexists(first):
        first, candidates = Path(named), _step_files(Path(named).parent)
    if first is not None:
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

    def age(path: Path) -> tuple[int, int]:
        # Files written in one tick of the clock are told apart by their step.
        return path.lstat().st_mtime_ns, int(_STEP_FILE.fullmatch(path.name)[1])

    try:
        return sorted((path for path in folder.iterdir() if _STEP_FILE.fullmatch(path.name)), key=age, reverse=True)
    except OSError:
        return []


def remove_left_overs(folder: str | Path) -> None:
    """Remove what a killed process left half written, of our own names alone.

    Args:
        folder (str | Path): Where checkpoints of this run go; no process of it writes there yet.
    """
    for pattern in ('*.pth.tmp', '*.pth.former.tmp', f'{_POINTER}.tmp'):
        for path in Path(folder).glob(pattern):
            discard(path)


def require_agreement(path: str | None) -> None:
    """Make sure that all processes of a run go on from the same checkpoint.

    Args:
        path (str | None): What this process found.

    Raises:
        UserError: If another process found another, as where the disk of one is slower or broken.
    """
    found = all_gather_object(path)
    if len(set(found)) > 1:
        told = ', '.join(f'rank {rank} {name}' for rank, name in enumerate(found))
        raise UserError(f'the processes would not resume from the same checkpoint ({told}): name one, --resume FILE')


def check_checkpoint_file(path: str) -> None:
    """Check that a checkpoint the user named can be read; URLs are left to mmengine.

    Args:
        path (str): The checkpoint.

    Raises:
        UserError: If a local path is not there, or a file or folder that is not as it was written.
    """
    if '://' in path:
        return
    if not os.path.exists(path):
        raise UserError(f'checkpoint not found: {path}')
    damage = damage_of(path)
    if damage is not None:
        raise UserError(f'checkpoint {damage}: {path}')


def save_iteration(runner: Runner, epoch: int | None = None, iteration: int | None = None) -> str:
    """Write a checkpoint between two regular ones, to resume from.

    It is ``iter_N.pth`` where the run's checkpoint hook writes, and ``last_checkpoint`` names it. ``PreemptionHook``
    removes it once the resumed run has written a later one.

    Args:
        runner (Runner): All processes have to call it.
        epoch (int, optional): Whole epochs done. By default, as the next one, those in ``after_train_iter``, once all
            hooks are done with the iteration.
        iteration (int, optional): Iterations done.

    Returns:
        str: The file.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    epoch = runner.epoch if epoch is None else epoch
    iteration = runner.iter + 1 if iteration is None else iteration
    out_dir, name = (runner.work_dir if hook is None else hook.out_dir), f'iter_{iteration}.pth'
    client_args, backend_args = (None, None) if hook is None else (hook.file_client_args, hook.backend_args)
    if client_args is None and backend_args is None and '://' not in str(out_dir):
        # Also where the run's own checkpoints are mmengine's: who asked for the stop may not wait for the last byte.
        backend_args = {'backend': 'mmmap_atomic'}
    runner.message_hub.update_info(STOP_CHECKPOINT, name)
    runner.save_checkpoint(
        out_dir,
        name,
        client_args,
        meta=dict(epoch=epoch, iter=iteration),
        # FlexibleRunner reads no `meta`, but adds one to either number.
        by_epoch=epoch != runner.epoch,
        backend_args=backend_args,
    )
    path = os.path.join(out_dir, name)
    if is_main_process():
        AtomicLocalBackend().put_text(path, Path(runner.work_dir, 'last_checkpoint'))
    return path
