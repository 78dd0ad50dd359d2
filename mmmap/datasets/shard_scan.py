"""Reading through a tar shard: its images, their positions and their labels."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from .image_reader import IMAGE_SUFFIXES

# Suffixes of the members with labels or metadata.
_COMPANIONS = {'.cls', '.txt', '.json'}
_PICKLES = {'.pkl', '.pickle', '.pyd', '.pth', '.pt'}
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstandard'}
_EXAMPLES = 3
_MOST_LABEL = 1 << 24
_ADVICE = 'copy or write it again'


class PassedOver(dict):
    """Members of shards that are left out: for each kind their number and the first names."""

    def add(self, kind: str, names: list[str], count: int | None = None) -> None:
        """Record members that are left out.

        Args:
            kind (str): Their kind, in words that follow a number.
            names (list[str]): Their names.
            count (int, optional): Their number, if there are more than ``names``.
        """
        entry = self.setdefault(kind, [0, []])
        entry[0] += len(names) if count is None else count
        entry[1] += names[: _EXAMPLES - len(entry[1])]

    def describe(self) -> str:
        """Describe all kinds, a line for each, or ''."""
        return ''.join(
            f'\n  {count} {kind}: {", ".join(names)}{", ..." if count > len(names) else ""}'
            for kind, (count, names) in self.items()
        )


def _check_plain(shard: str, file: BinaryIO) -> None:
    start = file.read(6)
    file.seek(0)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(
                f'{shard} is compressed by {name}, so its images cannot be read in any order: unpack it (images are '
                'compressed already)'
            )


def _check_end(shard: str, file: BinaryIO, position: int) -> None:
    """Raise an error unless two blocks of zeros end the shard, and only zeros follow."""
    file.seek(position)
    end = file.read(2 * tarfile.BLOCKSIZE)
    if len(end) < 2 * tarfile.BLOCKSIZE and not any(end):
        raise ValueError(f'{shard} is cut off at byte {position + len(end)}, its end is missing: {_ADVICE}')
    if any(end):
        raise ValueError(f'{shard} is damaged at byte {position}, where a member should begin: {_ADVICE}')
    while rest := file.read(1 << 20):
        if any(rest):
            raise ValueError(f'{shard} goes on after its end at byte {position} (joined shards?): {_ADVICE}')


def _members(shard: str, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a shard. If there is no error, the shard is whole."""
    _check_plain(shard, file)
    try:
        tar = tarfile.open(fileobj=file, mode='r:')  # noqa: SIM115  The caller closes the file.
        while (info := tar.next()) is not None:
            if info.size < 0:
                raise tarfile.ReadError(f'{info.name} has a negative size')
            yield info
    # A damaged header may have any size.
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f'{shard} is cut off or damaged ({str(error) or "sizes"}): {_ADVICE}') from error
    _check_end(shard, file, tar.offset)


def _content(shard: str, file: BinaryIO, info: tarfile.TarInfo) -> bytes:
    if info.size > _MOST_LABEL:
        raise ValueError(f'{shard}: {info.name}: {info.size} bytes are too many for a label')
    file.seek(info.offset_data)
    content = file.read(info.size)
    if len(content) < info.size:
        raise ValueError(f'{shard} is cut off or damaged (within {info.name}): {_ADVICE}')
    return content


def _label(content: bytes, label: str, where: str) -> int | str | None:
    """Parse the label in a member: a number, a name, or None if a JSON lacks the key."""
    try:
        text = content.decode().strip()
        if label == 'cls':
            return int(text)
        if label == 'txt':
            return text
        value = json.loads(text)
    except ValueError as error:
        advice = "; for names use label='txt'" if label == 'cls' else ''
        raise ValueError(f'{where}: not a {"number" if label == "cls" else label[:4]} ({error}){advice}') from error
    key = label.partition('.')[2]
    value = value.get(key) if isinstance(value, dict) else None
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise ValueError(f'{where}: {key}={value!r} is neither the number nor the name of a class')
    return value


def _is_hidden(name: str) -> bool:
    # '__...__' is metadata in this layout, and macOS archives have '__MACOSX'.
    return any(part.startswith('.') or re.match('__.*__$|__MACOSX$', part) for part in name.split('/'))


def scan_shard(shard: str, label: str | None) -> dict[str, Any]:
    """Read through a shard.

    Args:
        shard (str): Path of a local shard.
        label (str, optional): The member with the label: 'cls', 'txt' or 'json.KEY'. None for no labels.

    Returns:
        dict: ``samples``, a list of (name, offset, size, label or None), and ``passed_over``.

    Raises:
        ValueError: If the shard is damaged, cut off or compressed, a name or a key occurs twice, or a label is invalid.
            One line that names the shard and the member.
    """
    images: dict[str, tuple[str, int, int]] = {}
    labels, others, passed_over = {}, {}, PassedOver()
    wanted, names = '.' + (label or '').partition('.')[0], set()
    with open(shard, 'rb') as file:
        for info in _members(shard, file):
            if info.isdir():
                continue
            name = info.name.removeprefix('./')
            key, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if not info.isreg() or info.issparse():
                passed_over.add('links or special files', [name])
            elif _is_hidden(name):
                passed_over.add('hidden files', [name])
            elif name in names:
                raise ValueError(f'{shard} has two members of the name {name}: {_ADVICE}')
            elif suffix in IMAGE_SUFFIXES:
                if key in images:
                    raise ValueError(f'{shard} has two images of the key {key}: {images[key][0]} and {name}')
                images[key] = (name, info.offset_data, info.size)
            elif suffix in _COMPANIONS:
                others[name] = key
                if label and suffix == wanted:
                    if key in labels:
                        raise ValueError(f'{shard} has two labels of the key {key}: {name} is one')
                    labels[key] = _label(_content(shard, file, info), label, f'{shard}: {name}')
            elif suffix in _PICKLES:
                passed_over.add(f'pickles {suffix}, which are never opened', [name])
            else:
                passed_over.add(f'{suffix}, not images' if suffix else 'without a suffix', [name])
            names.add(name)
    # A mask KEY.seg.png beside KEY.jpg is not a sample. Without KEY.jpg, KEY.seg is the key.
    further = [key for key in images if _has_shorter_key(key, images)]
    for key in further:
        passed_over.add('further images of a sample', [images.pop(key)[0]])
    for name, key in others.items():
        if key not in images and not _has_shorter_key(key, images):
            passed_over.add('without an image of their key', [name])
    samples = [(*image, labels.get(key)) for key, image in images.items()]
    return dict(samples=samples, passed_over=passed_over)


def _has_shorter_key(key: str, images: dict[str, Any]) -> bool:
    return any(key[: dot.start()] in images for dot in re.finditer(r'\.', key))
