"""Rows of numbers with a type a column, in text or binary: what PLY, PCD and tables in text have in common."""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np


def check_size(path: Path, count: int, least: int, there: int) -> None:
    """Raise an error unless so many rows fit into what is left of a file, before memory is asked for.

    Args:
        path (Path): The file.
        count (int): Rows that its header tells.
        least (int): Bytes that a row has at least.
        there (int): Bytes that are left.
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
    """Read rows as they lie in the file.

    Args:
        file (BinaryIO): At the first of them.
        path (Path): Its name.
        dtype (np.dtype): Names and types of the columns.
        count (int): Number of rows.

    Returns:
        dict[str, np.ndarray]: Each column by its name, in the byte order of this machine.

    Raises:
        ValueError: If there are fewer.
    """
    check_size(path, count, dtype.itemsize, bytes_left(file))
    rows = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return {name: rows[name].astype(rows[name].dtype.newbyteorder('=')) for name in dtype.names}


def read_text_rows(
    lines: Iterable[str], path: Path, dtype: np.dtype, count: int | None = None, delimiter: str | None = None
) -> dict[str, np.ndarray]:
    """Read rows of text, a row a line; empty lines are passed over.

    Args:
        lines (Iterable[str]): The lines, the first row first.
        path (Path): Their file.
        dtype (np.dtype): Names and types of the columns.
        count (int, optional): Number of rows; None for all.
        delimiter (str, optional): What is between the numbers. Defaults to None, white space.

    Returns:
        dict[str, np.ndarray]: Each column by its name.

    Raises:
        ValueError: If there are fewer rows, or a number is none, or does not fit the type of its column.
    """
    rows = islice((line for line in lines if line.strip()), count)
    first = list(islice(rows, 1))
    try:
        # numpy would wrap numbers that do not fit the type of a column.
        table = np.loadtxt(chain(first, rows), ndmin=2, comments=None, delimiter=delimiter) if first else None
    except ValueError as error:
        raise ValueError(f'{path}: its points cannot be read ({str(error).partition(";")[0]})') from None
    if table is None:
        table = np.empty((0, len(dtype)))
    if count is not None and len(table) < count:
        raise ValueError(f'{path} is cut off: {len(table):,} of its {count:,} points are there')
    if table.shape[1] != len(dtype):
        names = ', '.join(dtype.names)
        raise ValueError(f'{path}: its points have {table.shape[1]} numbers, not {len(dtype)} ({names})')
    return {name: _fit(table[:, i], dtype[name], name, path) for i, name in enumerate(dtype.names)}


def _fit(values: np.ndarray, dtype: np.dtype, name: str, path: Path) -> np.ndarray:
    """Numbers in the type of their column, all of which have a place in it."""
    if dtype.kind in 'iu':
        limits = np.iinfo(dtype)
        # float64, as which they were read, tells whole numbers apart below 2**53.
        low, high = max(limits.min, 1 - 2**53), min(limits.max, 2**53 - 1)
        good = (values >= low) & (values <= high) & (values == np.floor(values))
        if not good.all():
            index = int(np.flatnonzero(~good)[0])
            raise ValueError(f'{path}: {name} of point {index} is {values[index]:g}, which is no {dtype.name}')
    with np.errstate(over='ignore'):
        return values.astype(dtype)
