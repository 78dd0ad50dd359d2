"""Tables of numbers with one type per column, in text or binary. Readers of PLY, PCD and text use them."""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np


def check_size(path: Path, count: int, least: int, there: int) -> None:
    """Raise an error if a file is too short for its rows, before memory is allocated.

    Args:
        path (Path): The file.
        count (int): Rows according to its header.
        least (int): Smallest size of a row, in bytes.
        there (int): Bytes left in the file.
    """
    if count * least > there:
        raise ValueError(f'{path} is cut off: it has room for {there // least:,} of its {count:,} points')


def bytes_left(file: BinaryIO) -> int:
    """Bytes from the current position to the end."""
    start = file.tell()
    end = file.seek(0, 2)
    file.seek(start)
    return end - start


def read_binary_rows(file: BinaryIO, path: Path, dtype: np.dtype, count: int) -> dict[str, np.ndarray]:
    """Read binary rows.

    Args:
        file (BinaryIO): The file, positioned at the first row.
        path (Path): Its path, for errors.
        dtype (np.dtype): Names and types of the columns.
        count (int): Number of rows.

    Returns:
        dict[str, np.ndarray]: Each column by its name, in the byte order of this machine.

    Raises:
        ValueError: If there are fewer rows.
    """
    check_size(path, count, dtype.itemsize, bytes_left(file))
    rows = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return {name: rows[name].astype(rows[name].dtype.newbyteorder('=')) for name in dtype.names or ()}


def read_text_rows(
    lines: Iterable[str], path: Path, dtype: np.dtype, count: int | None = None, delimiter: str | None = None
) -> dict[str, np.ndarray]:
    """Read rows of text, one per line. Empty lines are skipped.

    Args:
        lines (Iterable[str]): The lines, from the first row on.
        path (Path): Their file, for errors.
        dtype (np.dtype): Names and types of the columns.
        count (int, optional): Number of rows; None for all.
        delimiter (str, optional): Separator of the numbers. Defaults to None, white space.

    Returns:
        dict[str, np.ndarray]: Each column by its name.

    Raises:
        ValueError: If there are fewer rows, or a number is invalid or does not fit the type of its column.
    """
    names = dtype.names or ()
    rows = islice((line for line in lines if line.strip()), count)
    first = list(islice(rows, 1))
    try:
        # Read as float64: in the types of the columns numpy would wrap numbers that do not fit.
        table = np.loadtxt(chain(first, rows), ndmin=2, comments=None, delimiter=delimiter) if first else None
    except ValueError as error:
        raise ValueError(f'{path}: its points cannot be read ({str(error).partition(";")[0]})') from None
    if table is None:
        table = np.empty((0, len(names)))
    if count is not None and len(table) < count:
        raise ValueError(f'{path} is cut off: {len(table):,} of its {count:,} points are there')
    if table.shape[1] != len(names):
        raise ValueError(f'{path}: its points have {table.shape[1]} numbers, not {len(names)} ({", ".join(names)})')
    return {name: _convert(table[:, i], dtype[name], name, path) for i, name in enumerate(names)}


def _convert(values: np.ndarray, dtype: np.dtype, name: str, path: Path) -> np.ndarray:
    """Convert numbers to the type of their column. Raise an error for a number that does not fit."""
    if dtype.kind in 'iu':
        limits = np.iinfo(dtype)
        # float64 holds whole numbers exactly below 2**53.
        low, high = max(limits.min, 1 - 2**53), min(limits.max, 2**53 - 1)
        good = (values >= low) & (values <= high) & (values == np.floor(values))
        if not good.all():
            index = int(np.flatnonzero(~good)[0])
            raise ValueError(f'{path}: {name} of point {index} is {values[index]:g}, which does not fit {dtype.name}')
    with np.errstate(over='ignore'):
        return values.astype(dtype)
