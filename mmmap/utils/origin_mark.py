"""Marks that tell whether a copy was made from files as they are now."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

#: Seconds after which another change of a file has a later time.
SETTLED_AFTER = 2


def state_of(path: str | Path) -> tuple[str, int, int, int, int]:
    """Real name, size, both times of change and inode, which tell without reading whether a file has changed.

    The second time also changes when a tool moves the file or sets the first time back.

    Raises:
        OSError: If the file is missing.
    """
    state = os.stat(path)
    return os.path.realpath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def is_settled(path: str | Path) -> bool:
    """Whether another change of a file will have a later time."""
    state = os.stat(path)
    return time.time() - max(state.st_mtime, state.st_ctime) > SETTLED_AFTER


class Origin:
    """The files that a copy is made from, as they are now.

    A copy keeps the :meth:`mark` of its origin: a digest of names, sizes and times, which takes no reading, and one of
    the bytes, which decides where the first one differs. Make the mark before the files are read for the copy.

    Args:
        paths (Iterable[str | Path]): The files.
        how (str): What else the copy depends on, such as settings and the version of a format. Defaults to ''.

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
        """The mark, some 150 bytes of JSON; reads the files."""
        return json.dumps(dict(state=self._state, content=self._content)).encode()

    def is_of(self, mark: bytes) -> bool:
        """Whether the copy with this mark is of these files as they are; other bytes are the mark of no copy."""
        return self.is_unchanged(mark) or _read(mark).get('content') == self._content

    def is_unchanged(self, mark: bytes) -> bool:
        """The same by names, sizes and times alone: True is sure, False is not."""
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
