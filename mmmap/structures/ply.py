"""Reading and writing of point clouds as PLY files."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

# Both spellings that the format has of each type.
_TYPES = {
    'char': 'i1',
    'int8': 'i1',
    'uchar': 'u1',
    'uint8': 'u1',
    'short': '<i2',
    'int16': '<i2',
    'ushort': '<u2',
    'uint16': '<u2',
    'int': '<i4',
    'int32': '<i4',
    'uint': '<u4',
    'uint32': '<u4',
    'float': '<f4',
    'float32': '<f4',
    'double': '<f8',
    'float64': '<f8',
}
_NAMES = {'i1': 'char', 'u1': 'uchar', 'i2': 'short', 'u2': 'ushort', 'i4': 'int', 'u4': 'uint', 'f4': 'float'}
_FORMATS = ('ascii', 'binary_little_endian')
# A header of the usual length has some twenty lines; a file that is no PLY may have none at all.
_MAX_HEADER_LINES = 1000


def _read_header(file: BinaryIO, path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Format, number of vertices, and the names and types of their properties."""
    if file.readline(8).strip() != b'ply':
        raise ValueError(f'{path}: not a PLY file')
    layout, count, element, properties = '', None, '', []
    for _ in range(_MAX_HEADER_LINES):
        words = file.readline(1024).decode('ascii', 'replace').split()
        match words:
            case ['end_header']:
                break
            case ['format', layout, *_]:
                pass
            case ['element', element, number]:
                if count is None:
                    if element != 'vertex':
                        raise ValueError(f'{path}: its first element is {element!r}, not the vertices')
                    count = int(number)
            case ['property', 'list', *_] if element == 'vertex':
                raise ValueError(f'{path}: its vertices have a list, {words[-1]!r}, which is not supported')
            case ['property', kind, name] if element == 'vertex':
                if kind not in _TYPES:
                    raise ValueError(f'{path}: the property {name!r} is of the unknown type {kind!r}')
                properties.append((name, _TYPES[kind]))
    else:
        raise ValueError(f'{path}: its header does not end')
    if layout not in _FORMATS:
        raise ValueError(f'{path}: its format is {layout!r}; {" and ".join(_FORMATS)} are supported')
    if not count or not properties:
        raise ValueError(f'{path}: it has no vertices')
    return layout, count, properties


def read_ply(path: str | Path) -> dict[str, np.ndarray]:
    """Read the vertices of a PLY file; faces and whatever else follows them are skipped.

    Args:
        path (str | Path): The file, of the format 'ascii' or 'binary_little_endian'.

    Returns:
        dict[str, np.ndarray]: Each property of the vertices by its name, shape (N,).

    Raises:
        ValueError: If the file is cut off or not such a file; one line that names it.
    """
    path = Path(path)
    with open(path, 'rb') as file:
        layout, count, properties = _read_header(file, path)
        dtype = np.dtype(properties)
        if layout == 'binary_little_endian':
            content = file.read(count * dtype.itemsize)
            found = len(content) // dtype.itemsize
            vertices = np.frombuffer(content, dtype, found)
        else:
            # Only as many lines as there are vertices: the faces that follow have other columns.
            lines = [line for line in (file.readline() for _ in range(count)) if line.strip()]
            found = len(lines)
            try:
                vertices = np.loadtxt(lines, dtype=dtype, ndmin=1) if lines else np.empty(0, dtype)
            except ValueError as error:
                raise ValueError(f'{path}: its vertices cannot be read ({error})') from None
    if found < count:
        raise ValueError(f'{path} is cut off: {found:,} of its {count:,} vertices are there')
    return {name: np.ascontiguousarray(vertices[name]) for name in dtype.names}


def write_ply(path: str | Path, xyz: np.ndarray, rgb: np.ndarray | None = None, **properties: np.ndarray) -> None:
    """Write a point cloud as a binary PLY file, whole or not at all.

    Args:
        path (str | Path): The file; its folder is made where needed.
        xyz (np.ndarray): Coordinates, shape (N, 3); written as float.
        rgb (np.ndarray, optional): Colours from 0 to 255, shape (N, 3); written as uchar.
        **properties (np.ndarray): More properties by name, such as labels, shape (N,).

    Raises:
        ValueError: If a property has another length than the cloud, or a type that the format has not.
    """
    columns = {name: np.asarray(xyz[:, i], '<f4') for i, name in enumerate('xyz')}
    if rgb is not None:
        columns |= {name: np.asarray(rgb[:, i], 'u1') for i, name in enumerate(('red', 'green', 'blue'))}
    columns |= {name: np.asarray(values) for name, values in properties.items()}
    lines = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(xyz)}']
    for name, values in columns.items():
        kind = f'{values.dtype.kind}{values.dtype.itemsize}'
        if kind not in _NAMES or values.shape != (len(xyz),):
            raise ValueError(f'{name}: shape {values.shape} of type {values.dtype} for {len(xyz)} points')
        lines.append(f'property {_NAMES[kind]} {name}')
    vertices = np.empty(len(xyz), [(name, values.dtype.newbyteorder('<')) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    part.write_bytes('\n'.join([*lines, 'end_header', '']).encode() + vertices.tobytes())
    os.replace(part, path)
