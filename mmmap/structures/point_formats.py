"""The formats that clouds and scenes are read from: a reader of columns for each suffix."""

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

#: Points of a LAS file that are read at a time.
_CHUNK = 1_000_000
_COMMENT = ('#', '//')
#: Other names of columns, in lower case. Columns of files are called so in capitals too.
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
    # A damaged archive fails in a dozen ways, within zipfile, zlib and numpy.
    except Exception as error:
        raise ValueError(f'{path} is cut off or no .npz file ({str(error)[:100]})') from None


def _check_las_records(file: BinaryIO, path: Path) -> None:
    """Raise an error if a header tells more records before or after the points than the file has room for."""
    head, size = file.read(247), path.stat().st_size
    file.seek(0)
    if len(head) < 104 or head[:4] != b'LASF':
        raise ValueError(f'{path} is cut off or no LAS file')
    # Their headers have 54 and 60 bytes.
    start, points, count = struct.unpack_from('<HII', head, 94)
    room = min(points, size) - start
    more_start, more = struct.unpack_from('<QI', head, 235) if head[25] >= 4 and len(head) == 247 else (0, 0)
    if 54 * count > room or (more and 60 * more > size - more_start):
        raise ValueError(f'{path} is cut off: it has no room for the {count:,} and {more:,} records of its header')


def _read_las(path: Path) -> dict[str, np.ndarray]:
    """LAS and LAZ: coordinates scaled and shifted as the header says, intensity, classification and colours."""
    try:
        import laspy
    except ImportError:
        raise ImportError(f"{path} is a LAS file, which laspy reads: pip install 'laspy[lazrs]'") from None
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
            parts = {name: [] for name in ('x', 'y', 'z', *features)}
            for chunk in reader.chunk_iterator(_CHUNK):
                for name, values in parts.items():
                    values.append(np.array(chunk[name]))
        # laspy and its decoders have no common error for a damaged file.
        except Exception as error:
            hint = "; .laz needs pip install 'laspy[lazrs]'" if path.suffix.lower() == '.laz' else ''
            raise ValueError(f'{path} is cut off or no LAS file ({error}){hint}') from None
    columns = {name: np.concatenate(values) if values else np.empty(0) for name, values in parts.items()}
    if len(columns['x']) != count:
        raise ValueError(f'{path} is cut off: {len(columns["x"]):,} of its {count:,} points are there')
    return columns


def _read_off(path: Path) -> dict[str, np.ndarray]:
    """OFF: the vertices of a mesh, and their colours."""
    with open(path, encoding='latin-1') as file:
        lines = (line for line in (line.partition('#')[0] for line in file) if line.strip())
        # Some files have the numbers in the line of the name: OFF8 12 0.
        start = re.fullmatch(r'C?OFF\s*(.*)', next(lines, '').strip())
        if not start:
            raise ValueError(f'{path}: not an OFF file whose vertices have x, y and z, perhaps colours')
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
    """Read points from text, a point a line, numbers between white space, commas or semicolons.

    Args:
        path (Path): The text. Its columns have names if the line before the first point has as many words, x, y and z
            among them. Comments may stand before the points; they start with ``#`` or ``//``, as the names may.

    Returns:
        dict[str, np.ndarray]: Each column by its name in lower case, float64, shape (N,). Without names x, y, z, and
        then 'column 3' and so on.

    Raises:
        ValueError: If it is no such table; one line that names it.
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
                raise ValueError(f'{path}: its first line names {names}, which must be {count} columns with x, y and z')
            names = ['x', 'y', 'z', *(f'column {i}' for i in range(3, count))]
        if len(set(names)) < len(names):
            raise ValueError(f'{path}: two of its columns have one name: {", ".join(names)}')
        return read_text_rows(chain([first], lines), path, np.dtype([(name, 'f8') for name in names]), None, delimiter)


#: Of text all columns count, as they are in a row; the other formats name theirs.
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
    """Read what a file of points has.

    Args:
        path (str | Path): A file of one of the formats of ``READERS``.

    Returns:
        dict[str, np.ndarray]: Its arrays or columns by their names, those of :func:`read_ply` and so on; red, green,
        blue and label by these names.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the format is another, or the file is missing, damaged or cut off; one line that names it.
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
