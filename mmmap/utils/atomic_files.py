"""Writing of files and folders that are complete or absent."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log


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


def discard(temporary: str | Path) -> None:
    """Remove an incomplete file or folder. Errors are ignored: they must not hide the error before."""
    with contextlib.suppress(OSError):
        remove(temporary)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file to write, which becomes ``path`` at the end; the folder is made.

    Several processes may write the same file at once. If writing fails, a former file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.urandom(4).hex()}.part')
    try:
        yield part
        replace(part, path)
    finally:
        discard(part)
