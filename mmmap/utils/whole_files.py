"""Writing of files that are complete or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file to write, which becomes ``path`` at the end; the folder is made.

    Several processes may write the same file at once. If writing fails, a former file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.urandom(4).hex()}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
