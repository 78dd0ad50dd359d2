"""Tar shards as files: found by patterns, read in place, on this machine or in object storage."""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import fsspec
from filelock import FileLock

from mmmap.utils.whole_files import written_whole

# Bytes at the start and at the end of a shard that tell whether it is the same.
_HEAD, _TAIL = 4096, 16384


def is_remote(path: str) -> bool:
    """Whether a path is an address such as ``s3://bucket/shard.tar``."""
    return '://' in path


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of an address, and its path there.

    Args:
        url (str): An address that fsspec knows the protocol of.

    Raises:
        ValueError: If the protocol is not known, or needs a package that is not installed.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f'{url} cannot be opened: {error}') from error


def _expand_braces(pattern: str) -> list[str]:
    """``a{1..2}`` and ``a{1,2}`` as a shell understands them."""
    found = re.search(r'\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}', pattern)
    if found is None:
        return [pattern]
    first, last, names = found.groups()
    choices = names.split(',') if names else [f'{i:0{len(first)}}' for i in range(int(first), int(last) + 1)]
    if not choices:
        raise ValueError(f'{pattern}: {found[0]} counts down, so it names no shard')
    return [
        pattern[: found.start()] + choice + rest
        for choice in choices
        for rest in _expand_braces(pattern[found.end() :])
    ]


def _matches(base: str, pattern: str) -> list[str]:
    """What a name, a folder or a glob pattern below a base stands for, in the order of the names."""
    if is_remote(base + pattern):
        system, path = open_filesystem(base + pattern)
        if system.isfile(path):
            return [base + pattern]
        found = system.glob(f'{path}/*.tar' if system.isdir(path) else path)
        return [system.unstrip_protocol(name) for name in sorted(found)]
    path = os.path.expanduser(base + pattern)
    if os.path.isfile(path):
        return [path]
    # Folders may be called [like patterns].
    folder = path if os.path.isdir(path) else os.path.expanduser(base)
    return sorted(glob.glob(glob.escape(folder) + ('/*.tar' if folder == path else os.path.expanduser(pattern))))


def find_shards(patterns: str | Sequence[str], root: str = '') -> list[str]:
    """List shards.

    Args:
        patterns (str | Sequence[str]): Paths or addresses, with braces (``train-{000000..000012}.tar``) or as globs
            (``train-*.tar``), or folders, whose ``*.tar`` are meant.
        root (str): What relative ones are relative to: a folder or an address.

    Returns:
        list[str]: The shards, each once.

    Raises:
        FileNotFoundError: If one that is named is not there, or a pattern has no match.
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


def digest_of_ends(read: Callable[[int, int], bytes], size: int) -> str:
    """A hash of the first and the last bytes of a shard.

    Args:
        read (Callable[[int, int], bytes]): Reads from one position to before another.
        size (int): Of the shard, in bytes.
    """
    return hashlib.blake2b(read(0, min(_HEAD, size)) + read(max(size - _TAIL, 0), size), digest_size=16).hexdigest()


def stamp(shard: str) -> dict[str, Any]:
    """What changes when a shard changes.

    Returns:
        dict: ``size`` and, of a local shard, ``mtime_ns``, of another one ``ends``, a hash of its first and last bytes.

    Raises:
        OSError: If it cannot be read.
    """
    if not is_remote(shard):
        status = os.stat(shard)
        return dict(size=status.st_size, mtime_ns=status.st_mtime_ns)
    system, path = open_filesystem(shard)
    size = system.size(path)
    if size is None:
        raise OSError(f'{shard}: the server does not tell its size')
    return dict(size=size, ends=digest_of_ends(lambda start, end: system.cat_file(path, start=start, end=end), size))


def local_stamp(shard: str) -> dict[str, Any]:
    """Like :func:`stamp` of a local shard, with ``ends`` too."""
    with open(shard, 'rb') as file:

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return file.read(end - start)

        found = stamp(shard)
        return found | dict(ends=digest_of_ends(read, found['size']))


def copy_of(shard: str, cache_dir: str) -> str:
    """Where the local copy of a remote shard is, or will be."""
    protocol, _, path = shard.partition('://')
    return os.path.join(os.path.expanduser(cache_dir), protocol, path.lstrip('/'))


def fetch(shard: str, cache_dir: str) -> str:
    """Copy a remote shard to this machine if it is not there; processes wait for each other.

    Args:
        shard (str): Its address.
        cache_dir (str): Folder of the copies.

    Returns:
        str: Path of the copy, which is whole.

    Raises:
        OSError: If it cannot be fetched; one line with the address.
    """
    copy = copy_of(shard, cache_dir)
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
        with written_whole(copy) as part:
            system.get_file(path, str(part))
            got, size = os.path.getsize(part), system.size(path)
            if got != size:
                raise OSError(f'got {got} of {size} bytes')
    # Clients of object storage raise errors of their own.
    except Exception as error:
        raise OSError(f'{shard} could not be fetched to {copy}: {" ".join(str(error).split())}') from error
