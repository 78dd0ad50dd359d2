"""Index files of tar shards: the list of the images of a shard, kept until the shard changes."""

import hashlib
import json
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmmap.utils.atomic_files import atomic_path

from .image_reader import IMAGE_SUFFIXES
from .shard_files import copy_path, fetch_shard, fingerprint, is_remote, local_fingerprint, open_filesystem
from .shard_scan import scan_shard

# Version of the index files. It depends on the suffixes of images. With another version, all indexes are made again.
FORMAT = hashlib.blake2b(repr((1, sorted(IMAGE_SUFFIXES))).encode(), digest_size=8).hexdigest()


def _index_path(shard: str, label: str | None, cache_dir: str | None) -> str:
    name = f'{shard}.{label or "images"}.index.json'
    if cache_dir is None or is_remote(shard):
        return name
    return os.path.join(os.path.expanduser(cache_dir), os.path.abspath(name).lstrip(os.sep))


def _load_index(path: str, expected: dict[str, Any]) -> dict[str, Any] | None:
    """Load an index file. None if it is missing, damaged or outdated."""
    try:
        if is_remote(path):
            system, name = open_filesystem(path)
            index = json.loads(system.cat_file(name))
        else:
            index = json.loads(Path(path).read_bytes())
        fits = all(index[key] == value for key, value in expected.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if fits else None


@lru_cache
def log_once(text: str, level: int = logging.WARNING) -> None:
    """Log a line once per process, because several data sets of a run may read the same shards."""
    print_log(text, logger='current', level=level)


def index_shard(shard: str, label: str | None, cache_dir: str | None = None) -> dict[str, Any]:
    """List the images of a shard, from its index file. A missing or outdated index is made and saved.

    The index lies beside the shard, such as ``SHARD.cls.index.json`` for labels in ``.cls``. It has the name, size and
    time of the shard, and a hash of its ends, which also identifies copies in object storage.

    Args:
        shard (str): Path or address.
        label (str, optional): As for :func:`~mmmap.datasets.shard_scan.scan_shard`.
        cache_dir (str, optional): Folder for copies of remote shards, and for indexes of local ones.

    Returns:
        dict: The result of :func:`~mmmap.datasets.shard_scan.scan_shard`, and the fingerprint of the shard.

    Raises:
        ValueError: As :func:`~mmmap.datasets.shard_scan.scan_shard`; or if a remote shard has no index, without
            ``cache_dir``.
        OSError: If the shard cannot be read or fetched.
    """
    now = fingerprint(shard)
    expected = dict(format=FORMAT, name=shard.rpartition('/')[2], label=label, **now)
    path = _index_path(shard, label, cache_dir)
    if is_remote(shard) and cache_dir is not None:
        copy = copy_path(shard, cache_dir)
        if os.path.exists(copy) and not now.items() <= local_fingerprint(copy).items():
            os.remove(copy)
    index = _load_index(path, expected)
    if index is not None:
        return index
    if is_remote(shard):
        if cache_dir is None:
            raise ValueError(
                f'{shard} has no index {os.path.basename(path)} of its present state beside it: set cache_dir, '
                'a folder for copies of shards, or index the shards before you upload them'
            )
        return index_shard(fetch_shard(shard, cache_dir), label)
    folder = os.path.dirname(shard) or '.'
    log_once(f'Shards in {folder} are read once to index them; later starts use the index files', logging.INFO)
    index = expected | local_fingerprint(shard) | scan_shard(shard, label)
    if fingerprint(shard) != now:
        raise ValueError(f'{shard} changed while it was indexed: start again when it is complete')
    try:
        with atomic_path(path) as part:
            part.write_text(json.dumps(index))
    except OSError as error:
        log_once(f'{folder}: indexes cannot be saved ({error.strerror}), so each start makes them: set cache_dir')
    return index
