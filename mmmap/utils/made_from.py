"""What a copy was made from, so that a copy of what has changed since is not used."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

#: A file that changed less than so many seconds ago may change again without a later time.
SETTLED_AFTER = 2


def state_of(path: str | Path) -> tuple[str, int, int, int, int]:
    """What tells without reading that a file is another than before: real name, size, both times of change, inode.

    The second time is the system's own: a tool that sets the first one back, or moves a file there, changes it.

    Args:
        path (str | Path): The file.

    Raises:
        OSError: If it is missing.
    """
    state = os.stat(path)
    return os.path.realpath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def is_settled(path: str | Path) -> bool:
    """Whether the times of a file are old enough to tell that it changes."""
    state = os.stat(path)
    return time.time() - max(state.st_mtime, state.st_ctime) > SETTLED_AFTER


class Origin:
    """The files that a copy is made from, as they are now.

    A copy keeps the :meth:`mark` of its origin. It has two digests: one of names, sizes and times, which takes no
    reading, and one of the bytes, which counts where the files were moved or touched. Make the mark before the files
    are read for the copy, so that a change in between is noticed.

    Args:
        paths (Iterable[str | Path]): The files.
        how (str): Whatever else the copy depends on, such as settings and the version of a format. Defaults to ''.

    Raises:
        OSError: If a file is missing.
    """

    def __init__(self, paths: Iterable[str | Path], how: str = '') -> None:
        self.paths = sorted(Path(path) for path in paths)
        self.how = how
        settled = all(is_settled(path) for path in self.paths)
        self._state = _digest([how, *(str(state_of(path)) for path in self.paths)]) if settled else None

    @cached_property
    def _content(self) -> str:
        names = [path.name for path in self.paths]
        return _digest([self.how, *names, *(_digest_of_file(path) for path in self.paths)])

    def mark(self) -> bytes:
        """What the copy is to keep, some 150 bytes of JSON; reads the files."""
        return json.dumps(dict(state=self._state, content=self._content)).encode()

    def is_of(self, mark: bytes) -> bool:
        """Whether a copy is of these files as they are.

        Args:
            mark (bytes): What the copy has kept; anything else counts as the mark of another copy.
        """
        return self.is_unchanged(mark) or _read(mark).get('content') == self._content

    def is_unchanged(self, mark: bytes) -> bool:
        """Whether names, sizes and times alone tell that a copy is of these files; a False may mean either."""
        return self._state is not None and _read(mark).get('state') == self._state


def _read(mark: bytes) -> dict:
    try:
        content = json.loads(mark)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b('\0'.join(parts).encode(), digest_size=16).hexdigest()


def _digest_of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, 'rb') as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
