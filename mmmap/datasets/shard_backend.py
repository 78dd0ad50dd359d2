"""A file backend of mmengine for members of tar shards."""

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
    """Open a local shard. Threads and forked workers can share it, because each read gives its position."""
    return open(shard, 'rb', buffering=0)


def image_path(shard: str, member: str, offset: int, size: int) -> str:
    """Make the path of a member of a shard, which :class:`ShardBackend` reads in every transform that loads files.

    Args:
        shard (str): Path or address of the shard.
        member (str): Name of the member in the shard.
        offset (int): Position of its content, in bytes.
        size (int): Size of its content, in bytes.

    Returns:
        str: ``tar://SHARD::MEMBER@OFFSET+SIZE``; ``tar+s3://...`` for a shard in ``s3``. A colon in MEMBER is ``%3A``.
    """
    address = f'tar+{shard}' if is_remote(shard) else f'tar://{shard}'
    # mmengine takes the name of the backend from the text before '://', which must occur once.
    return f'{address}::{member.replace(":", "%3A")}@{offset}+{size}'


@register_backend('tar_shard', prefixes=['tar', *(f'tar+{name}' for name in fsspec.available_protocols())])
class ShardBackend(BaseStorageBackend):
    """Reads members of tar shards in place, by the paths of :func:`image_path`."""

    def get(self, filepath: str) -> bytes:
        """Read the content of a member.

        Raises:
            ValueError: If ``filepath`` is not from :func:`image_path`.
            OSError: If the shard cannot be read, or changed after it was indexed.
        """
        found = _IMAGE.fullmatch(str(filepath))
        if found is None:
            raise ValueError(f'{filepath}: expected tar://SHARD::MEMBER@OFFSET+SIZE, as ImageShards lists it')
        protocol, shard, offset, size = found[1], found[2], int(found[3]), int(found[4])
        # The header before the content shows whether the member is still there.
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
        """Read the content of a member as text, see :meth:`get`."""
        return self.get(filepath).decode(encoding)
