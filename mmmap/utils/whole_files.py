"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place, and move it there once it is complete.

    Several processes may write the same file at once. Where writing fails, the former file stays as it was.

    Args:
        path (str | Path): Where the file goes; its folder is made.

    Yields:
        Path: The file to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.urandom(4).hex()}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
