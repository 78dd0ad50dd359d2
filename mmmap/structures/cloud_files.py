"""Reading of clouds. Tables in text are parsed once and kept as arrays."""

import contextlib
from pathlib import Path

import numpy as np

from ..utils.atomic_files import atomic_path
from ..utils.origin_mark import Origin
from .point_checks import check_points, to_floats
from .point_formats import READERS, TEXT_SUFFIXES, read_columns
from .scene_files import read_scene

# Increase this number when the content of the copies changes.
_FORMAT = 2


def read_table(path: str | Path, columns: int, delimiter: str | None = None) -> np.ndarray:
    """Read numbers from text, one row per line, and keep a copy as an array.

    The first call writes the copy ``NAME.npy`` beside ``NAME.txt``: the array, then a mark of its source. Later calls
    read the copy. It is made again when the text changes. If the folder cannot be written, the text is read each time.

    Args:
        path (str | Path): The text. If it is missing, its copy is read.
        columns (int): Numbers per line, coordinates first.
        delimiter (str, optional): Separator of the numbers. Defaults to None, white space.

    Returns:
        np.ndarray: Shape (N, columns), float32, or float64 if float32 would change the shape of the cloud.

    Raises:
        ValueError: If the file is missing, not such a table, or was cut off after its copy was made. One line that
            names it.
    """
    path = Path(path)
    kept = path.with_suffix('.npy')
    former, mark = _read_copy(kept)
    gone = not path.is_file()
    # A copy with a mark may have been made with other settings. Then it is made again.
    if former is not None and (gone or not mark) and (former.ndim != 2 or former.shape[1] != columns):
        raise ValueError(f'{kept} has the shape {former.shape}, not (N, {columns}): remove it')
    if gone:
        if former is not None and mark:
            return former
        raise ValueError(f'{path} is missing')
    origin = Origin([path], f'{_FORMAT} {columns} {delimiter!r}')
    if former is not None and origin.is_of(mark):
        if not origin.is_unchanged(mark):
            _write_copy(former, kept, origin.mark())
        return former
    mark = origin.mark()
    table = _parse_table(path, columns, delimiter)
    rows = len(table)
    if former is not None and rows < len(former) and _start_alike(table, former):
        raise ValueError(
            f'{path} is cut off: it has {rows:,} of the {len(former):,} rows that it had; if this is intended, remove '
            f'{kept.name}'
        )
    _write_copy(table, kept, mark)
    return table


def _parse_table(path: Path, columns: int, delimiter: str | None) -> np.ndarray:
    try:
        table = np.loadtxt(path, np.float64, comments=None, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path} is not a table of numbers: {error}') from None
    if not len(table) or table.shape[1] != columns:
        raise ValueError(f'{path} has the shape {table.shape}, not (N, {columns})')
    # Numbers that are not finite are reported later, by check_points.
    with np.errstate(invalid='ignore', over='ignore'):
        return to_floats(table)


def _start_alike(table: np.ndarray, former: np.ndarray) -> bool:
    """Whether a table is the start of another. The last row of several may differ: it may end within a number."""
    rows = max(len(table) - 1, 1)
    return table.shape[1] == former.shape[1] and np.array_equal(
        table[:rows].astype(former.dtype), former[:rows], equal_nan=True
    )


def _read_copy(path: Path) -> tuple[np.ndarray | None, bytes]:
    """The array and the mark of a copy. None and b'' if it is missing or damaged."""
    try:
        with open(path, 'rb') as file:
            return np.load(file, allow_pickle=False), file.read()
    except (OSError, ValueError, EOFError):
        return None, b''


def _write_copy(table: np.ndarray, path: Path, mark: bytes) -> None:
    """Write a copy, if the folder can be written. Several workers may do so at once."""
    with contextlib.suppress(OSError), atomic_path(path) as part, open(part, 'wb') as file:
        np.save(file, table)
        file.write(mark)


def read_array(path: str | Path) -> np.ndarray:
    """Read an ``.npy`` file.

    Raises:
        ValueError: If it is missing or damaged. One line that names it.
    """
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f'{path} is missing') from None
    # numpy raises several kinds of errors for a damaged header.
    except Exception as error:
        raise ValueError(f'{path} is cut off or not an .npy file ({str(error)[:100]})') from None


def read_cloud(path: str | Path) -> np.ndarray:
    """Read a single cloud.

    Args:
        path (str | Path): An ``.npy`` file with an array (N, 3 + F), coordinates first; a table in text, with all its
            columns; or any other file that :func:`~mmmap.structures.scene_files.read_scene` reads, with the
            coordinates alone.

    Returns:
        np.ndarray: Shape (N, 3 + F), float32, or float64 if float32 would change the shape of the cloud.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the file is missing or damaged, or its format is unknown. One line that names it.
    """
    path = Path(path)
    if (suffix := path.suffix.lower()) == '.npy':
        points = read_array(path)
    elif suffix in TEXT_SUFFIXES:
        columns = read_columns(path)
        points = np.stack([columns.pop(axis) for axis in 'xyz'] + list(columns.values()), axis=1)
    elif suffix not in READERS:
        raise ValueError(f'{path} is not a cloud: clouds are read from {", ".join((".npy", *READERS))} files')
    else:
        points = read_scene(path, colours=False)['xyz']
    check_points(points, str(path))
    return to_floats(points)
