"""Reading of point clouds as PCD files, the format of the Point Cloud Library."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mmengine.logging import print_log

from .typed_rows import bytes_left, check_size, read_binary_rows, read_text_rows

#: Types of the columns by the format's letter and size.
_TYPES = {f'{kind.upper()}{size}': f'<{kind}{size}' for kind in 'iu' for size in (1, 2, 4, 8)}
_TYPES |= {'F4': '<f4', 'F8': '<f8'}
_MAX_HEADER_LINES = 1000
# Fields that fill up a point are all called '_', which are told apart by a number.
_PADDING = '_ '
#: Fields that hold a colour in a number.
_PACKED = ('rgb', 'rgba')
#: Numbers of a point, histograms of features included.
_MAX_COLUMNS = 4096


def _read_header(file: BinaryIO, path: Path) -> dict[str, list[str]]:
    """The words of each line of the header by its first, up to DATA."""
    header = {}
    for _ in range(_MAX_HEADER_LINES):
        line = file.readline(1 << 16)
        words = line.decode('latin-1').partition('#')[0].split()
        if words:
            header[words[0].upper()] = words[1:]
        if not line or 'DATA' in header:
            break
    if missing := [key for key in ('FIELDS', 'SIZE', 'TYPE', 'POINTS', 'DATA') if not header.get(key)]:
        raise ValueError(f'{path}: not a PCD file, its header has no {missing[0]}')
    return header


def _read_fields(header: dict[str, list[str]], path: Path) -> list[tuple[str, str, int]]:
    """Name, type and number of values of each field."""
    names, sizes, letters = (header[key] for key in ('FIELDS', 'SIZE', 'TYPE'))
    try:
        counts = [int(word) for word in header.get('COUNT', ['1'] * len(names))]
        fields = [
            (f'{_PADDING}{i}' if name == '_' else name, _TYPES[letter + size], count)
            for i, (name, letter, size, count) in enumerate(zip(names, letters, sizes, counts, strict=True))
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f'{path}: its fields make no sense ({error})') from None
    if min(counts) < 1 or sum(counts) > _MAX_COLUMNS or len({name for name, *_ in fields}) < len(fields):
        raise ValueError(f'{path}: its fields make no sense ({" ".join(names)}, {sum(counts)} values)')
    return fields


def _decompress(file: BinaryIO, path: Path, fields: list[tuple[str, str, int]], count: int) -> dict[str, np.ndarray]:
    """Read points that lie field after field, compressed as one."""
    try:
        import lzf
    except ImportError:
        raise ImportError(f'{path} is compressed, which python-neo-lzf unpacks: pip install python-neo-lzf') from None
    size = count * sum(np.dtype(kind).itemsize * values for _, kind, values in fields)
    sizes = file.read(8)
    packed, unpacked = struct.unpack('<II', sizes) if len(sizes) == 8 else (0, 0)
    # LZF never packs more than 264 bytes into three.
    check_size(path, packed, 1, bytes_left(file))
    if unpacked != size or packed * 88 < size:
        raise ValueError(f'{path} is cut off: {unpacked:,} bytes are packed, {count:,} points have {size:,}')
    try:
        content = lzf.decompress(file.read(packed), unpacked)
    except ValueError as error:
        raise ValueError(f'{path} is damaged: {error}') from None
    if content is None or len(content) != size:
        raise ValueError(f'{path} is damaged: its points cannot be unpacked')
    columns, start = {}, 0
    for name, kind, values in fields:
        column = np.frombuffer(content, kind, count * values, start)
        columns[name] = column.copy() if values == 1 else column.reshape(count, values).copy()
        start += column.nbytes
    return columns


def _read_text(file: BinaryIO, path: Path, fields: list[tuple[str, str, int]], count: int) -> dict[str, np.ndarray]:
    names = [[f'{name} {i}' for i in range(values)] if values > 1 else [name] for name, _, values in fields]
    kinds = [kind for _, kind, _ in fields]
    flat = np.dtype([(name, kind) for parts, kind in zip(names, kinds, strict=True) for name in parts])
    check_size(path, count, 2 * len(flat), bytes_left(file) + 1)
    table = read_text_rows(io.TextIOWrapper(file, 'latin-1'), path, flat, count)
    for name, kind, values in fields:
        # Bits of a float survive as text only if alpha is 0; those of 255 are 'nan', and plain numbers have others.
        if name in _PACKED and (kind, values) == ('<f4', 1) and (wrong := table[name].view(np.uint32) >> 24 > 0).any():
            index = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f'{path}: {name} of point {index} is {table[name][index]:g}, which is no colour packed into a float: '
                f'save the file as binary, or {name} as TYPE U'
            )
    return {
        name: table[name] if values == 1 else np.stack([table[part] for part in parts], axis=1)
        for (name, _, values), parts in zip(fields, names, strict=True)
    }


def read_pcd(path: str | Path) -> dict[str, np.ndarray]:
    """Read the points of a PCD file.

    Args:
        path (str | Path): The file, 'ascii', 'binary' or 'binary_compressed', the latter with python-neo-lzf.

    Returns:
        dict[str, np.ndarray]: Each field by its name, shape (N,) or (N, COUNT); in place of 'rgb' and 'rgba', which
        pack colours into a number, 'red', 'green' and 'blue'. Points with NaN as a coordinate, where a sensor got
        nothing back, are left out, and their number is logged.

    Raises:
        ImportError: If python-neo-lzf is needed and missing.
        ValueError: If the file is cut off or no such file; one line that names it.
    """
    path = Path(path)
    with open(path, 'rb') as file:
        header = _read_header(file, path)
        fields = _read_fields(header, path)
        points, layout = header['POINTS'][0], header['DATA'][0].lower()
        if not points.isdecimal():
            raise ValueError(f'{path}: its header has POINTS {points}')
        count = int(points)
        if layout == 'binary_compressed':
            columns = _decompress(file, path, fields, count)
        elif layout == 'binary':
            dtype = np.dtype([(name, kind, (values,) if values > 1 else ()) for name, kind, values in fields])
            columns = read_binary_rows(file, path, dtype, count)
        elif layout == 'ascii':
            columns = _read_text(file, path, fields, count)
        else:
            raise ValueError(f'{path}: its data is {layout!r}, not ascii, binary or binary_compressed')
    columns = {name: values for name, values in columns.items() if not name.startswith(_PADDING)}
    for name in _PACKED:
        if name in columns and columns[name].dtype.itemsize == 4:
            packed = columns.pop(name).view(np.uint32)
            for colour, shift in (('red', 16), ('green', 8), ('blue', 0)):
                columns[colour] = (packed >> shift & 255).astype(np.uint8)
    return _without_holes(columns, path)


def _without_holes(columns: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The points of which a coordinate is a number; a sensor's picture has NaN where nothing came back."""
    there = np.ones(len(next(iter(columns.values()))), bool)
    for name in ('x', 'y', 'z'):
        if name in columns and columns[name].dtype.kind == 'f' and columns[name].ndim == 1:
            there &= ~np.isnan(columns[name])
    if there.all():
        return columns
    print_log(
        f'{path}: {np.count_nonzero(~there):,} of {len(there):,} points left out: their coordinates are NaN, no return',
        'current',
    )
    return {name: values[there] for name, values in columns.items()}
