"""Reading and writing of point clouds as PLY files."""

import io
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..utils.atomic_files import atomic_path
from .point_checks import to_colours
from .typed_rows import bytes_left, check_size, read_binary_rows, read_text_rows

# The two names of each type in PLY files, by NumPy's name. The first one is written.
_TYPE_NAMES = {
    'i1': ('char', 'int8'),
    'u1': ('uchar', 'uint8'),
    'i2': ('short', 'int16'),
    'u2': ('ushort', 'uint16'),
    'i4': ('int', 'int32'),
    'u4': ('uint', 'uint32'),
    'f4': ('float', 'float32'),
    'f8': ('double', 'float64'),
}
# Codes of struct by the names in PLY files.
_TYPES = {name: np.dtype(kind).char for kind, names in _TYPE_NAMES.items() for name in names}
_FORMATS = {'ascii': '', 'binary_little_endian': '<', 'binary_big_endian': '>'}
# Longest header, with comments.
_MAX_HEADER_BYTES = 1 << 20


@dataclass
class _Element:
    """An element of the header. Properties are (name, type), or (name, type, type of the length) for lists."""

    name: str
    count: int
    properties: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(len(entry) == 3 for entry in self.properties)

    def dtype(self, order: str) -> np.dtype:
        return np.dtype([(name, order + kind) for name, kind in self.properties])


def _header_lines(file: BinaryIO, path: Path) -> list[str]:
    """Read the lines of the header after the first. The file is then positioned after the header."""
    head = file.read(_MAX_HEADER_BYTES)
    start = re.match(rb'ply[ \t]*(\r\n|\n|\r)', head)
    if not start:
        raise ValueError(f'{path}: not a PLY file')
    # All lines of the header end like the first one. Binary numbers after it may look like another line end.
    end = re.compile(rb'(?<=[\r\n])end_header[ \t]*' + start[1]).search(head, start.end() - 1)
    if not end:
        raise ValueError(f'{path}: its header does not end')
    file.seek(end.end())
    return re.split(r'[\r\n]+', head[start.end() : end.start()].decode('utf-8', 'replace'))


def _type(kind: str, name: str, path: Path) -> str:
    if kind not in _TYPES:
        raise ValueError(f'{path}: the property {name!r} is of the unknown type {kind!r}')
    return _TYPES[kind]


def _read_header(file: BinaryIO, path: Path) -> tuple[str, list[_Element]]:
    """Read the format and the elements up to the vertices."""
    layout, elements = '', []
    for line in _header_lines(file, path):
        match line.split():
            case [] | ['comment' | 'obj_info', *_]:
                pass
            case ['format', layout, *_]:
                pass
            case ['element', name, number] if number.isdecimal():
                elements.append(_Element(name, int(number)))
            case ['property', 'list', length, kind, name] if elements and _type(length, name, path) not in 'fd':
                elements[-1].properties.append((name, _type(kind, name, path), _TYPES[length]))
            case ['property', kind, name] if elements:
                elements[-1].properties.append((name, _type(kind, name, path)))
            case _:
                raise ValueError(f'{path}: its header has the invalid line {line[:80]!r}')
    if layout not in _FORMATS:
        raise ValueError(f'{path}: its format is {layout!r}, not one of {", ".join(_FORMATS)}')
    names = [element.name for element in elements]
    if 'vertex' not in names:
        raise ValueError(f'{path}: it has no vertices')
    elements = elements[: names.index('vertex') + 1]
    vertex = elements[-1]
    if not vertex.count or not vertex.properties:
        raise ValueError(f'{path}: it has no vertices')
    if lists := [name for name, _, *length in vertex.properties if length]:
        raise ValueError(f'{path}: its vertices have a list, {lists[0]!r}, which is not supported')
    keys = [name for name, _ in vertex.properties]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f'{path}: its vertices have the property {min(twice)!r} twice')
    return layout, elements


def _skip(file: BinaryIO, path: Path, element: _Element, order: str) -> None:
    """Skip the rows of a binary element."""
    least = sum(struct.calcsize(entry[-1]) for entry in element.properties)
    if (there := bytes_left(file)) < element.count * least:
        raise ValueError(f'{path} is cut off within the element {element.name!r} before its vertices')
    if not element.has_lists:
        file.seek(element.count * least, os.SEEK_CUR)
        return
    start, content, offset = file.tell(), file.read(there), 0
    try:
        for _ in range(element.count):
            for _, kind, *length in element.properties:
                times = 1
                if length:
                    (times,) = struct.unpack_from(order + length[0], content, offset)
                    offset += struct.calcsize(length[0])
                    if times < 0:
                        raise ValueError(f'{path}: the element {element.name!r} has a list of {times} values')
                offset += int(times) * struct.calcsize(kind)
    except struct.error:
        offset = len(content) + 1
    if offset > len(content):
        raise ValueError(f'{path} is cut off within the element {element.name!r} before its vertices')
    file.seek(start + offset)


def read_ply(path: str | Path) -> dict[str, np.ndarray]:
    """Read the vertices of a PLY file, text or binary. All other elements are skipped.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, np.ndarray]: Each property of the vertices by its name, shape (N,).

    Raises:
        ValueError: If the file is cut off or not a PLY file, or a number does not fit its type. One line that names it.
    """
    path = Path(path)
    with open(path, 'rb') as file:
        layout, (*others, vertex) = _read_header(file, path)
        order = _FORMATS[layout]
        if layout != 'ascii':
            for element in others:
                _skip(file, path, element, order)
            return read_binary_rows(file, path, vertex.dtype(order), vertex.count)
        # A number in text takes at least two bytes.
        check_size(path, vertex.count, 2 * len(vertex.properties), bytes_left(file) + 1)
        lines = (line for line in io.TextIOWrapper(file, 'latin-1') if line.strip())
        for _ in range(sum(element.count for element in others)):
            if next(lines, None) is None:
                break
        return read_text_rows(lines, path, vertex.dtype('='), vertex.count)


def write_ply(path: str | Path, xyz: np.ndarray, rgb: np.ndarray | None = None, **properties: np.ndarray) -> None:
    """Write a point cloud as a binary PLY file, whole or not at all.

    Args:
        path (str | Path): The file. Its folder is created if needed.
        xyz (np.ndarray): Coordinates, shape (N, 3). float16 and float32 are written as float, others as double.
        rgb (np.ndarray, optional): Colours from 0 to 255, shape (N, 3), written as uchar.
        **properties (np.ndarray): More properties by name, such as labels, shape (N,).

    Raises:
        ValueError: If a property does not have N values or a type that PLY lacks, or a colour is out of range.
    """
    xyz = np.asarray(xyz)
    kind = 'f4' if xyz.dtype in (np.float16, np.float32) else 'f8'
    columns = {name: xyz[:, i].astype(kind) for i, name in enumerate('xyz')}
    if rgb is not None:
        rgb = to_colours(np.asarray(rgb), f'{path}: rgb', 255).astype('u1')
        columns |= {name: rgb[:, i] for i, name in enumerate(('red', 'green', 'blue'))}
    columns |= {name: np.asarray(values) for name, values in properties.items()}
    lines = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(xyz)}']
    for name, values in columns.items():
        kind = f'{values.dtype.kind}{values.dtype.itemsize}'
        if kind not in _TYPE_NAMES or values.shape != (len(xyz),):
            raise ValueError(f'{name}: shape {values.shape} of type {values.dtype} for {len(xyz)} points')
        lines.append(f'property {_TYPE_NAMES[kind][0]} {name}')
    vertices = np.empty(len(xyz), [(name, values.dtype.newbyteorder('<')) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    with atomic_path(path) as part:
        part.write_bytes('\n'.join([*lines, 'end_header', '']).encode() + vertices.tobytes())
