"""Files and folders that are whole or not there."""

import contextlib
import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..utils.errors import UserError


def remove(path: str | Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there.

    Args:
        path (str | Path): What to remove.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_way(target: str | Path) -> None:
    """Move a folder, or a link to one, that stands where a file is to be written.

    Args:
        target (str | Path): Where the file goes.
    """
    target = Path(target)
    if not target.is_dir():
        return
    number = 0
    while os.path.lexists(aside := target.with_name(f'{target.name}.folder{number or ""}')):
        number += 1
    os.rename(target, aside)
    print_log(f'{target} was a folder, where a file is written: moved to {aside}', 'current')


def replace(temporary: str | Path, target: str | Path) -> None:
    """Put a file or folder that is complete in the place of another, once its bytes are on the disk.

    Args:
        temporary (str | Path): What was written, beside the target.
        target (str | Path): Its name from now on.
    """
    temporary, target = Path(temporary), Path(target)
    parts = [path for path in temporary.rglob('*') if path.is_file()] if temporary.is_dir() else [temporary]
    for path in parts:
        # Without it a power cut may keep the rename and lose the bytes.
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
    make_way(target)
    os.replace(temporary, target)


@register_backend('mmmap_atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name only once all their bytes are on the disk.

    The bytes go to ``NAME.tmp`` beside the target, which a rename within one file system then replaces in one step. A
    process killed at any moment leaves the former file untouched and at worst a ``.tmp``, removed at the next start.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, making its folder where needed.

        Args:
            obj (bytes): The content.
            filepath (str or Path): Where it goes.

        Raises:
            UserError: If it cannot be written; the former file is as it was.
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
            raise not_written(target, error) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file, as :meth:`put` does.

        Args:
            obj (str): The content.
            filepath (str or Path): Where it goes.
            encoding (str): How to encode it.
        """
        self.put(obj.encode(encoding), filepath)


def discard(temporary: str | Path) -> None:
    """Remove what was written in part; an error of that must not hide the one before.

    Args:
        temporary (str | Path): A file or folder.
    """
    with contextlib.suppress(OSError):
        remove(temporary)


def not_written(target: str | Path, error: Exception) -> UserError:
    """One line for a file that could not be written.

    Args:
        target (str | Path): The file.
        error (Exception): The cause.
    """
    cause = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:200]
    return UserError(f'{target} could not be written ({cause}): earlier checkpoints are whole, go on with --resume')
