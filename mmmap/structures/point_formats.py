"""File formats of clouds and scenes: a reader of columns for each suffix."""

import re
import struct
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .pcd import read_pcd
from .ply import read_ply
from .typed_rows import check_size, read_text_rows

# Points of a LAS file that are read at a time.
_CHUNK = 1_000_000
_COMMENT = ('#', '//')
# Standard names of columns by the names in files, in lower case. Files may use capitals.
_NAMES = {
    **{name: name for name in ('x', 'y', 'z', 'red', 'green', 'blue', 'label')},
    **{f'diffuse_{name}': name for name in ('red', 'green', 'blue')},
    'r': 'red',
    'g': 'green',
    'b': 'blue',
    'class': 'label',
    'classification': 'label',
    'scalar_label': 'label',
    'scalar_classification': 'label',
}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise
    # zipfile, zlib and numpy raise many kinds of errors for a damaged archive.
    except Exception as error:
        raise ValueError(f'{path} is cut off or not an .npz file ({str(error)[:100]})') from None


def _check_las_records(file: BinaryIO, path: Path) -> None:
    """Raise an error if the header announces more records before or after the points than fit into the file."""
    head, size = file.read(247), path.stat().st_size
    file.seek(0)
    if len(head) < 104 or head[:4] != b'LASF':
        raise ValueError(f'{path} is cut off or not a LAS file')
    # The headers of the two kinds of records have 54 and 60 bytes.
    start, points, count = struct.unpack_from('<HII', head, 94)
    room = min(points, size) - start
    more_start, more = struct.unpack_from('<QI', head, 235) if head[25] >= 4 and len(head) == 247 else (0, 0)
    if 54 * count > room or (more and 60 * more > size - more_start):
        raise ValueError(f'{path} is cut off: the {count:,} and {more:,} records of its header do not fit')


def _read_las(path: Path) -> dict[str, np.ndarray]:
    """Read LAS and LAZ: scaled and shifted coordinates, intensity, classification and colours."""
    try:
        import laspy
    except ImportError:
        raise ImportError(f"{path} is a LAS file and needs laspy: pip install 'laspy[lazrs]'") from None
    with open(path, 'rb') as file:
        _check_las_records(file, path)
        try:
            reader = laspy.open(file, closefd=False)
            header = reader.header
            count = header.point_count
            if not header.are_points_compressed:
                there = path.stat().st_size - header.offset_to_point_data
                check_size(path, count, header.point_format.size, there)
            known = set(header.point_format.dimension_names)
            features = [name for name in ('intensity', 'classification', 'red', 'green', 'blue') if name in known]
            parts: dict[str, list[np.ndarray]] = {name: [] for name in ('x', 'y', 'z', *features)}
            for chunk in reader.chunk_iterator(_CHUNK):
                for name, values in parts.items():
                    values.append(np.array(chunk[name]))
        # laspy and its decoders raise many kinds of errors for a damaged file.
        except Exception as error:
            hint = "; .laz needs pip install 'laspy[lazrs]'" if path.suffix.lower() == '.laz' else ''
            raise ValueError(f'{path} is cut off or not a LAS file ({error}){hint}') from None
    columns = {name: np.concatenate(values) if values else np.empty(0) for name, values in parts.items()}
    if len(columns['x']) != count:
        raise ValueError(f'{path} is cut off: {len(columns["x"]):,} of its {count:,} points are there')
    return columns


def _read_off(path: Path) -> dict[str, np.ndarray]:
    """Read OFF: the vertices of a mesh, and their colours."""
    with open(path, encoding='latin-1') as file:
        lines = (line for line in (line.partition('#')[0] for line in file) if line.strip())
        # In some files the numbers follow the name in the same line: OFF8 12 0.
        start = re.fullmatch(r'C?OFF\s*(.*)', next(lines, '').strip())
        if not start:
            raise ValueError(f'{path}: not an OFF file with x, y, z and perhaps colours of vertices')
        numbers = (start[1] or next(lines, '')).split()
        if not numbers or not numbers[0].isdecimal():
            raise ValueError(f'{path}: its header has no number of vertices')
        count, first = int(numbers[0]), next(lines, '')
        names = ['x', 'y', 'z', 'red', 'green', 'blue', 'alpha'][: max(3, len(first.split()))]
        check_size(path, count, 2 * len(names), path.stat().st_size)
        return read_text_rows(chain([first], lines), path, np.dtype([(name, 'f8') for name in names]), count)


def _words(line: str) -> list[str]:
    return re.split(r'[,;\s]+', line.strip(' \t\r\n'))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_table_of_points(path: Path) -> dict[str, np.ndarray]:
    """Read points from text, one per line. White space, commas or semicolons separate the numbers.

    Args:
        path (Path): The text. Lines before the points may be comments, which start with ``#`` or ``//``. The last line
            before the points, a comment or not, may name the columns: one word each, with x, y and z.

    Returns:
        dict[str, np.ndarray]: Each column by its name in lower case, float64, shape (N,). Without names: x, y, z,
        'column 3' and so on.

    Raises:
        ValueError: If it is not such a table. One line that names it.
    """
    with open(path, encoding='utf-8-sig', errors='replace') as file:
        lines, head = (line for line in file if line.strip()), ''
        first = next(lines, '')
        while first.startswith(_COMMENT) or (first and not any(map(_is_number, _words(first)))):
            head, first = first, next(lines, '')
        delimiter = next((mark for mark in ',;' if mark in first), None)
        count = len(first.split(delimiter))
        names = [word.strip('"').lower() for word in _words(head.lstrip('#/'))]
        if len(names) != count or not {'x', 'y', 'z'} <= set(names):
            if head and not head.startswith(_COMMENT):
                raise ValueError(f'{path}: its first line names {names}: expected {count} columns with x, y and z')
            names = ['x', 'y', 'z', *(f'column {i}' for i in range(3, count))]
        if len(set(names)) < len(names):
            raise ValueError(f'{path}: two of its columns have the same name: {", ".join(names)}')
        return read_text_rows(chain([first], lines), path, np.dtype([(name, 'f8') for name in names]), None, delimiter)


#: Formats without fixed names of columns.
TEXT_SUFFIXES = ('.txt', '.xyz', '.csv', '.asc')
READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    '.npz': _read_npz,
    '.ply': read_ply,
    '.pcd': read_pcd,
    '.las': _read_las,
    '.laz': _read_las,
    '.off': _read_off,
    **dict.fromkeys(TEXT_SUFFIXES, read_table_of_points),
}


def read_columns(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays or columns of a file of points.

    Args:
        path (str | Path): A file in one of the formats of ``READERS``.

    Returns:
        dict[str, np.ndarray]: Arrays or columns by name. The names of x, y, z, red, green, blue and label are the same
        for all formats; the others are those of the file.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the format is unknown, or the file is missing, damaged or cut off. One line that names it.
    """
    path = Path(path)
    if (reader := READERS.get(path.suffix.lower())) is None:
        raise ValueError(f'{path}: points are read from {", ".join(READERS)} files')
    if not path.is_file():
        raise ValueError(f'{path} is missing')
    columns, named = reader(path), {}
    for name, values in columns.items():
        known = _NAMES.get(name.lower(), name)
        named[name if known in columns or known in named else known] = values
    return named
