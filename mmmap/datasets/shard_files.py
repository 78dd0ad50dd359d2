"""Files of tar shards, local or in object storage: searching, copying, and detection of changes."""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
from filelock import FileLock

from mmmap.utils.atomic_files import atomic_path

# Bytes at the start and at the end of a shard that identify it.
_HEAD, _TAIL = 4096, 16384


def is_remote(path: str) -> bool:
    """Whether a path is an address such as ``s3://bucket/shard.tar``."""
    return '://' in path


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system (from fsspec) of an address, and its path there.

    Raises:
        ValueError: If the protocol is unknown, or needs a package that is missing.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f'{url} cannot be opened: {error}') from error


def _expand_braces(pattern: str) -> list[str]:
    """Expand ``a{1..2}`` and ``a{1,2}`` as a shell does."""
    found = re.search(r'\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}', pattern)
    if found is None:
        return [pattern]
    first, last, names = found.groups()
    choices = names.split(',') if names else [f'{i:0{len(first)}}' for i in range(int(first), int(last) + 1)]
    if not choices:
        raise ValueError(f'{pattern}: {found[0]} counts down, so it matches no shard')
    return [
        pattern[: found.start()] + choice + rest
        for choice in choices
        for rest in _expand_braces(pattern[found.end() :])
    ]


def _matches(base: str, pattern: str) -> list[str]:
    """List the shards of a file name, a folder or a glob pattern below a base, sorted."""
    if is_remote(base + pattern):
        system, path = open_filesystem(base + pattern)
        if system.isfile(path):
            return [base + pattern]
        found = system.glob(f'{path}/*.tar' if system.isdir(path) else path)
        return [system.unstrip_protocol(name) for name in sorted(found)]
    path = os.path.expanduser(base + pattern)
    if os.path.isfile(path):
        return [path]
    # The name of a folder may look [like a pattern].
    folder = path if os.path.isdir(path) else os.path.expanduser(base)
    return sorted(glob.glob(glob.escape(folder) + ('/*.tar' if folder == path else os.path.expanduser(pattern))))


def find_shards(patterns: str | Sequence[str], root: str = '') -> list[str]:
    """List shards.

    Args:
        patterns (str | Sequence[str]): Paths or addresses, with braces (``train-{000000..000012}.tar``) or globs
            (``train-*.tar``). A folder stands for the ``*.tar`` in it.
        root (str): Folder or address for relative paths.

    Returns:
        list[str]: The shards, each once.

    Raises:
        FileNotFoundError: If a shard is missing, or a pattern has no match.
        ValueError: If a range in braces is empty, or an address cannot be opened.
    """
    found: dict[str, None] = {}
    for given in [patterns] if isinstance(patterns, str) else patterns:
        absolute = is_remote(given) or os.path.isabs(os.path.expanduser(given)) or not root
        base = '' if absolute else f'{root.rstrip("/")}/'
        matches = {base + name: _matches(base, name) for name in _expand_braces(given)}
        missing = [name for name, those in matches.items() if not those]
        if missing:
            more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
            raise FileNotFoundError(f'shards not found: {missing[0]}{more}')
        found.update((shard, None) for those in matches.values() for shard in those)
    return list(found)


def _hash_ends(read: Callable[[int, int], bytes], size: int) -> str:
    """Hash the first and the last bytes of a shard. ``read`` takes a start and an end."""
    return hashlib.blake2b(read(0, min(_HEAD, size)) + read(max(size - _TAIL, 0), size), digest_size=16).hexdigest()


def fingerprint(shard: str) -> dict[str, Any]:
    """Make a fingerprint of a shard, to notice changes.

    Returns:
        dict: ``size``, and ``mtime_ns`` of a local shard or ``ends`` (a hash of the first and last bytes) of a remote
        one.

    Raises:
        OSError: If it cannot be read.
    """
    if not is_remote(shard):
        status = os.stat(shard)
        return dict(size=status.st_size, mtime_ns=status.st_mtime_ns)
    system, path = open_filesystem(shard)
    size = system.size(path)
    if size is None:
        raise OSError(f'{shard}: the server does not give its size')
    return dict(size=size, ends=_hash_ends(lambda start, end: system.cat_file(path, start=start, end=end), size))


def local_fingerprint(shard: str) -> dict[str, Any]:
    """Like :func:`fingerprint` of a local shard, with ``ends`` too."""
    with open(shard, 'rb') as file:

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        found = fingerprint(shard)
        return found | dict(ends=_hash_ends(read, found['size']))


def copy_path(shard: str, cache_dir: str) -> str:
    """Path of the local copy of a remote shard, which may not exist yet."""
    protocol, _, path = shard.partition('://')
    return os.path.join(os.path.expanduser(cache_dir), protocol, path.lstrip('/'))


def fetch_shard(shard: str, cache_dir: str) -> str:
    """Copy a remote shard to ``cache_dir`` if it is not there, and return the path of the copy.

    Other processes wait until the copy is complete.

    Raises:
        OSError: If it cannot be fetched. One line with the address.
    """
    copy = copy_path(shard, cache_dir)
    if os.path.isfile(copy):
        return copy
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    with FileLock(f'{copy}.lock'):
        if not os.path.isfile(copy):
            _fetch(shard, copy)
    return copy


def _fetch(shard: str, copy: str) -> None:
    system, path = open_filesystem(shard)
    try:
        with atomic_path(copy) as part:
            system.get_file(path, str(part))
            got, size = os.path.getsize(part), system.size(path)
            if got != size:
                raise OSError(f'got {got} of {size} bytes')
    # Clients of object storage raise many kinds of errors.
    except Exception as error:
        raise OSError(f'{shard} could not be fetched to {copy}: {" ".join(str(error).split())}') from error
