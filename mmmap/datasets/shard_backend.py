"""Reading of members of tar shards, for all that reads files through mmengine."""

import os
import re
import tarfile
from functools import lru_cache
from typing import Any

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend

from .shard_files import is_remote, open_filesystem

_IMAGE = re.compile(r'tar(?:\+([^:/]+))?://(.*)::[^:]*@(\d+)\+(\d+)', re.DOTALL)


@lru_cache(maxsize=64)
def _opened(shard: str, inode: int, mtime_ns: int) -> Any:
    """An open local shard. Reads name their position, so threads and forked workers do not disturb each other."""
    return open(shard, 'rb', buffering=0)


def image_path(shard: str, member: str, offset: int, size: int) -> str:
    """The path by which :class:`ShardBackend`, and so every transform that reads files, reads a member of a shard.

    Args:
        shard (str): Path or address.
        member (str): Its name in the shard.
        offset (int): Where its content begins, in bytes.
        size (int): Of its content, in bytes.

    Returns:
        str: ``tar://SHARD::MEMBER@OFFSET+SIZE``, with ``tar+s3`` for a shard in ``s3``. A colon in MEMBER is ``%3A``.
    """
    address = f'tar+{shard}' if is_remote(shard) else f'tar://{shard}'
    # mmengine reads the backend's name from what is before the only '://'.
    return f'{address}::{member.replace(":", "%3A")}@{offset}+{size}'


@register_backend('tar_shard', prefixes=['tar', *(f'tar+{name}' for name in fsspec.available_protocols())])
class ShardBackend(BaseStorageBackend):
    """Reads members of tar shards by the paths of :func:`image_path`, in place."""

    def get(self, filepath: str) -> bytes:
        """Read the content of a member.

        Args:
            filepath (str): From :func:`image_path`.

        Raises:
            ValueError: If it is no such path.
            OSError: If the shard cannot be read, or changed since it was indexed.
        """
        found = _IMAGE.fullmatch(str(filepath))
        if found is None:
            raise ValueError(f'{filepath}: expected tar://SHARD::MEMBER@OFFSET+SIZE, as ImageShards lists it')
        protocol, shard, offset, size = found[1], found[2], int(found[3]), int(found[4])
        # With the member's header, which tells whether the member is still there.
        start, end = offset - tarfile.BLOCKSIZE, offset + size
        if protocol is None:
            status = os.stat(shard)
            file = _opened(shard, status.st_ino, status.st_mtime_ns)
            content = os.pread(file.fileno(), end - start, start)
        else:
            shard = f'{protocol}://{shard}'
            system, path = open_filesystem(shard)
            content = system.cat_file(path, start=start, end=end)
        try:
            header = tarfile.TarInfo.frombuf(content[: tarfile.BLOCKSIZE], 'utf-8', 'surrogateescape')
        except tarfile.HeaderError:
            header = None
        if header is None or header.size != size or len(content) != end - start:
            raise OSError(f'{shard} changed after it was indexed: start again')
        return content[tarfile.BLOCKSIZE :]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Read the content of a member as text.

        Args:
            filepath (str): From :func:`image_path`.
            encoding (str): How it is encoded.
        """
        return self.get(filepath).decode(encoding)
