"""Writes files and folders completely or not at all."""

import contextlib
import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..utils.errors import UserError


def remove(path: str | Path) -> None:
    """Remove a file, a link or a folder with its contents, if it exists."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_folder_aside(target: str | Path) -> None:
    """If a folder, or a link to one, stands where a file is to be written, give it another name."""
    target = Path(target)
    if not target.is_dir():
        return
    number = 0
    while os.path.lexists(aside := target.with_name(f'{target.name}.folder{number or ""}')):
        number += 1
    os.rename(target, aside)
    print_log(f'{target} was a folder and a file is written there: the folder is moved to {aside}', 'current')


def replace(temporary: str | Path, target: str | Path) -> None:
    """Rename a complete file or folder to ``target``, in the same folder, once its bytes are on the disk."""
    temporary, target = Path(temporary), Path(target)
    parts = [path for path in temporary.rglob('*') if path.is_file()] if temporary.is_dir() else [temporary]
    for path in parts:
        # Without fsync a power cut may keep the rename and lose the bytes.
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    if temporary.is_dir() and os.path.lexists(target):
        # A folder cannot replace another in one step.
        former = target.with_name(f'{target.name}.former.tmp')
        remove(former)
        os.rename(target, former)
        os.rename(temporary, target)
        remove(former)
        return
    move_folder_aside(target)
    os.replace(temporary, target)


@register_backend('mmmap_atomic')
class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files. A file gets its name only when all its bytes are on the disk.

    The bytes are written to ``NAME.tmp`` and then renamed. A process that is killed leaves the former file as it was.
    At worst a ``.tmp`` stays, which the next start removes.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, and make its folder if needed.

        Raises:
            UserError: If the file cannot be written. The former file stays as it was.
        """
        target = Path(filepath)
        temporary = target.with_name(target.name + '.tmp')
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, 'wb') as file:
                file.write(obj)
            replace(temporary, target)
        except OSError as error:
            discard(temporary)
            raise write_error(target, error) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


def discard(temporary: str | Path) -> None:
    """Remove an incomplete file or folder. Errors are ignored: they must not hide the error before."""
    with contextlib.suppress(OSError):
        remove(temporary)


def write_error(target: str | Path, error: Exception) -> UserError:
    """The error for a file that could not be written, with its cause in one line."""
    cause = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:200]
    return UserError(f'{target} could not be written ({cause}): earlier checkpoints are whole, continue with --resume')
