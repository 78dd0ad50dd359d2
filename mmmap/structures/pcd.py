"""Reading of PCD files, the point clouds of the Point Cloud Library."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mmengine.logging import print_log

from .typed_rows import bytes_left, check_size, read_binary_rows, read_text_rows

# NumPy's types by the letter and size of the format.
_TYPES = {f'{kind.upper()}{size}': f'<{kind}{size}' for kind in 'iu' for size in (1, 2, 4, 8)}
_TYPES |= {'F4': '<f4', 'F8': '<f8'}
_MAX_HEADER_LINES = 1000
# All padding fields are named '_'. A number is appended to keep them apart.
_PADDING = '_ '
# Fields with a colour packed into a number.
_PACKED = ('rgb', 'rgba')
# Most numbers per point, including histograms.
_MAX_COLUMNS = 4096


def _read_header(file: BinaryIO, path: Path) -> dict[str, list[str]]:
    """Read the lines of the header up to DATA: the first word of each, and its other words."""
    header: dict[str, list[str]] = {}
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
    """Return the name, the type and the number of values of each field."""
    names, sizes, letters = (header[key] for key in ('FIELDS', 'SIZE', 'TYPE'))
    try:
        counts = [int(word) for word in header.get('COUNT', ['1'] * len(names))]
        fields = [
            (f'{_PADDING}{i}' if name == '_' else name, _TYPES[letter + size], count)
            for i, (name, letter, size, count) in enumerate(zip(names, letters, sizes, counts, strict=True))
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f'{path}: its fields are invalid ({error})') from None
    if min(counts) < 1 or sum(counts) > _MAX_COLUMNS or len({name for name, *_ in fields}) < len(fields):
        raise ValueError(f'{path}: its fields are invalid ({" ".join(names)}, {sum(counts)} values)')
    return fields


def _decompress(file: BinaryIO, path: Path, fields: list[tuple[str, str, int]], count: int) -> dict[str, np.ndarray]:
    """Read compressed points, which are stored field after field."""
    try:
        import lzf
    except ImportError:
        raise ImportError(f'{path} is compressed and needs python-neo-lzf: pip install python-neo-lzf') from None
    size = count * sum(np.dtype(kind).itemsize * values for _, kind, values in fields)
    sizes = file.read(8)
    packed, unpacked = struct.unpack('<II', sizes) if len(sizes) == 8 else (0, 0)
    # LZF packs at most 264 bytes into three.
    check_size(path, packed, 1, bytes_left(file))
    if unpacked != size or packed * 88 < size:
        raise ValueError(f'{path} is cut off: it holds {unpacked:,} bytes, {count:,} points need {size:,}')
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
    check_size(path, count, 2 * len(flat.names or ()), bytes_left(file) + 1)
    table = read_text_rows(io.TextIOWrapper(file, 'latin-1'), path, flat, count)
    for name, kind, values in fields:
        # Colours survive as the text of a float only if alpha is 0. With alpha 255 the text is 'nan'.
        if name in _PACKED and (kind, values) == ('<f4', 1) and (wrong := table[name].view(np.uint32) >> 24 > 0).any():
            index = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f'{path}: {name} of point {index} is {table[name][index]:g}, not a colour packed into a float: '
                f'save the file as binary, or {name} as TYPE U'
            )
    return {
        name: table[name] if values == 1 else np.stack([table[part] for part in parts], axis=1)
        for (name, _, values), parts in zip(fields, names, strict=True)
    }


def read_pcd(path: str | Path) -> dict[str, np.ndarray]:
    """Read the points of a PCD file.

    Args:
        path (str | Path): The file: 'ascii', 'binary' or 'binary_compressed'.

    Returns:
        dict[str, np.ndarray]: Each field by its name, shape (N,) or (N, COUNT). Packed colours 'rgb' and 'rgba' become
        'red', 'green' and 'blue'. Points with a NaN coordinate (no return of the sensor) are dropped, and their number
        is logged.

    Raises:
        ImportError: If the file is compressed and python-neo-lzf is missing.
        ValueError: If the file is cut off or not a PCD file. One line that names it.
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
    return _drop_nan(columns, path)


def _drop_nan(columns: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
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
