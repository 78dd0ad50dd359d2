"""Index files of tar shards: what a shard holds, kept until the shard changes."""

import hashlib
import json
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmmap.utils.whole_files import written_whole

from .image_reader import IMAGE_SUFFIXES
from .shard_files import copy_of, fetch, is_remote, local_stamp, open_filesystem, stamp
from .shard_scan import scan

# Of what index files hold, which depends on the suffixes of images too: another one makes all of them anew.
FORMAT = hashlib.blake2b(repr((1, sorted(IMAGE_SUFFIXES))).encode(), digest_size=8).hexdigest()


def _index_path(shard: str, label: str | None, cache_dir: str | None) -> str:
    name = f'{shard}.{label or "images"}.index.json'
    if cache_dir is None or is_remote(shard):
        return name
    return os.path.join(os.path.expanduser(cache_dir), os.path.abspath(name).lstrip(os.sep))


def _saved(path: str, expected: dict[str, Any]) -> dict[str, Any] | None:
    """A kept index, if it is there, whole and of the shard as it is now."""
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
def say_once(text: str, level: int = logging.WARNING) -> None:
    """Log a line once in this process: several data sets of a run read the same shards."""
    print_log(text, logger='current', level=level)


def index_of(shard: str, label: str | None, cache_dir: str | None = None) -> dict[str, Any]:
    """The images of a shard, from its index file if that is of the shard as it is now; else it is made and kept.

    The file lies beside the shard, ``SHARD.cls.index.json`` for labels of ``.cls``. It holds name, size and time of the
    shard, and a hash of its ends for a copy in object storage, where times are others.

    Args:
        shard (str): Path or address.
        label (str, optional): As for :func:`~mmmap.datasets.shard_scan.scan`.
        cache_dir (str, optional): Where index files of local shards go instead, and copies of remote shards.

    Returns:
        dict: As from :func:`~mmmap.datasets.shard_scan.scan`, and what the index was made from.

    Raises:
        ValueError: See :func:`~mmmap.datasets.shard_scan.scan`; or if a remote shard has neither an index nor a folder
            for its copy.
        OSError: If it cannot be read or fetched.
    """
    now = stamp(shard)
    expected = dict(format=FORMAT, name=shard.rpartition('/')[2], label=label, **now)
    path = _index_path(shard, label, cache_dir)
    if is_remote(shard) and cache_dir is not None:
        copy = copy_of(shard, cache_dir)
        if os.path.exists(copy) and not now.items() <= local_stamp(copy).items():
            os.remove(copy)
    index = _saved(path, expected)
    if index is not None:
        return index
    if is_remote(shard):
        if cache_dir is None:
            raise ValueError(
                f'{shard} has no index {os.path.basename(path)} of its present state beside it: set cache_dir, '
                'a folder into which shards are copied, or index the shards before they are uploaded'
            )
        return index_of(fetch(shard, cache_dir), label)
    folder = os.path.dirname(shard) or '.'
    say_once(f'Shards in {folder} are read through, to index them; next time their index files tell', logging.INFO)
    index = expected | local_stamp(shard) | scan(shard, label)
    if stamp(shard) != now:
        raise ValueError(f'{shard} changed while it was indexed: start again when it is complete')
    try:
        with written_whole(path) as part:
            part.write_text(json.dumps(index))
    except OSError as error:
        say_once(f'{folder}: no index of shards can be kept ({error.strerror}), each start makes it: set cache_dir')
    return index
