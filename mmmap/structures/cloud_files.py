"""Files of clouds: tables in text, read once and kept as arrays."""

import contextlib
from pathlib import Path

import numpy as np

from ..utils.made_from import Origin
from ..utils.whole_files import written_whole
from .point_formats import READERS, TEXT_SUFFIXES, read_columns
from .points import check_points, to_floats
from .scene_files import read_scene

# Counts up where the copies change.
_FORMAT = 2


def read_table(path: str | Path, columns: int, delimiter: str | None = None) -> np.ndarray:
    """Read numbers from text, a row a line.

    The first reading leaves ``NAME.npy`` beside ``NAME.txt``, written whole or not at all: the array, and behind it
    what it was made from. It is read in place of the text until that changes, and made again then. Where the folder
    cannot be written, the text is read each time.

    Args:
        path (str | Path): The text. Where it is gone, its copy is read.
        columns (int): Numbers of a line, coordinates first.
        delimiter (str, optional): What is between them. Defaults to None, white space.

    Returns:
        np.ndarray: Shape (N, columns), float32, or float64 where float32 would move the points.

    Raises:
        ValueError: If the file is missing or no such table, or was cut off since its copy was made; one line that names
            it.
    """
    path = Path(path)
    kept = path.with_suffix('.npy')
    former, mark = _read_copy(kept)
    gone = not path.is_file()
    # A copy that tells what it was made from may have been made with other settings.
    if former is not None and (gone or not mark) and (former.ndim != 2 or former.shape[1] != columns):
        raise ValueError(f'{kept} has the shape {former.shape}, not (N, {columns}): remove it')
    if gone:
        if mark:
            return former
        raise ValueError(f'{path} is missing')
    origin = Origin([path], f'{_FORMAT} {columns} {delimiter!r}')
    if origin.is_of(mark):
        if not origin.is_unchanged(mark):
            _keep(former, kept, origin.mark())
        return former
    mark = origin.mark()
    table = _parse_table(path, columns, delimiter)
    rows = len(table)
    if former is not None and rows < len(former) and _start_alike(table, former):
        raise ValueError(
            f'{path} is cut off: it has {rows:,} of the {len(former):,} rows that it had; if that is meant, remove '
            f'{kept.name}'
        )
    _keep(table, kept, mark)
    return table


def _parse_table(path: Path, columns: int, delimiter: str | None) -> np.ndarray:
    try:
        table = np.loadtxt(path, np.float64, comments=None, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path} is no table of numbers: {error}') from None
    if not len(table) or table.shape[1] != columns:
        raise ValueError(f'{path} has the shape {table.shape}, not (N, {columns})')
    # Numbers that are not finite are told where the points are looked at.
    with np.errstate(invalid='ignore', over='ignore'):
        return to_floats(table)


def _start_alike(table: np.ndarray, former: np.ndarray) -> bool:
    """Whether a table is the start of another; of several rows the last may differ, as it may end within a number."""
    rows = max(len(table) - 1, 1)
    return table.shape[1] == former.shape[1] and np.array_equal(
        table[:rows].astype(former.dtype), former[:rows], equal_nan=True
    )


def _read_copy(path: Path) -> tuple[np.ndarray | None, bytes]:
    """The array of a copy and its mark; None where there is no copy that is whole."""
    try:
        with open(path, 'rb') as file:
            return np.load(file, allow_pickle=False), file.read()
    except (OSError, ValueError, EOFError):
        return None, b''


def _keep(table: np.ndarray, path: Path, mark: bytes) -> None:
    """Write a copy, if the folder can be written."""
    # Several workers may read the same text.
    with contextlib.suppress(OSError), written_whole(path) as part, open(part, 'wb') as file:
        np.save(file, table)
        file.write(mark)


def read_array(path: str | Path) -> np.ndarray:
    """Read an ``.npy`` file.

    Args:
        path (str | Path): The file.

    Raises:
        ValueError: If it is missing or damaged; one line that names it.
    """
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f'{path} is missing') from None
    # A damaged header fails in several ways.
    except Exception as error:
        raise ValueError(f'{path} is cut off or no .npy file ({str(error)[:100]})') from None


def read_cloud(path: str | Path) -> np.ndarray:
    """Read a single cloud.

    Args:
        path (str | Path): An ``.npy`` file with an array (N, 3 + F), coordinates first; a table in text, of which all
            columns are taken, coordinates first; or another file of a scene, see
            :func:`~mmmap.structures.scene_files.read_scene`, of which the coordinates are taken.

    Returns:
        np.ndarray: Shape (N, 3 + F), float32, or float64 where float32 would move the points.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the file is missing or damaged, of another kind, or no cloud; one line that names it.
    """
    path = Path(path)
    if (suffix := path.suffix.lower()) == '.npy':
        points = read_array(path)
    elif suffix in TEXT_SUFFIXES:
        columns = read_columns(path)
        points = np.stack([columns.pop(axis) for axis in 'xyz'] + list(columns.values()), axis=1)
    elif suffix not in READERS:
        raise ValueError(f'{path} is no cloud: clouds are read from {", ".join((".npy", *READERS))} files')
    else:
        points = read_scene(path, colours=False)['xyz']
    check_points(points, str(path))
    return to_floats(points)
