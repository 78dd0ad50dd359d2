"""Files of clouds: tables in text, read once and kept as arrays."""

import os
from pathlib import Path

import numpy as np

from .scene_files import read_scene


def read_table(path: str | Path, columns: int, delimiter: str | None = None) -> np.ndarray:
    """Read numbers from text, a row a line.

    The first reading leaves ``NAME.npy`` beside ``NAME.txt``, written whole or not at all, which is what is read from
    then on. Where the folder cannot be written, the text is read each time.

    Args:
        path (str | Path): The text.
        columns (int): Numbers of a line.
        delimiter (str, optional): What is between them. Defaults to None, white space.

    Returns:
        np.ndarray: Shape (N, columns), float32.

    Raises:
        ValueError: If the file is missing or is no such table.
    """
    path = Path(path)
    kept = path.with_suffix('.npy')
    if kept.is_file():
        table = read_array(kept)
        if table.ndim == 2 and table.shape[1] == columns:
            return table
        raise ValueError(f'{kept} has the shape {table.shape}, not (N, {columns}): remove it')
    if not path.is_file():
        raise ValueError(f'{path} is missing')
    try:
        table = np.loadtxt(path, np.float32, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path} is no table of numbers: {error}') from None
    if not len(table) or table.shape[1] != columns:
        raise ValueError(f'{path} has the shape {table.shape}, not (N, {columns})')
    # Several workers may read the same text.
    part = path.with_name(f'{kept.name}.{os.getpid()}.part')
    try:
        with open(part, 'wb') as file:
            np.save(file, table)
        os.replace(part, kept)
    except OSError:
        part.unlink(missing_ok=True)
    return table


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
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{path} is cut off or no .npy file ({error})') from None


def read_cloud(path: str | Path) -> np.ndarray:
    """Read a single cloud.

    Args:
        path (str | Path): An ``.npy`` file with an array (N, 3 + F), coordinates first; an ``.npz`` file with ``xyz``
            (N, 3), or a ``.ply`` file, of which the coordinates are taken.

    Returns:
        np.ndarray: Shape (N, 3 + F), float32.

    Raises:
        ValueError: If the file is missing or damaged, of another kind, or no cloud; one line that names it.
    """
    path = Path(path)
    if path.suffix not in ('.npy', '.npz', '.ply'):
        raise ValueError(f'{path} is no cloud: give an .npy, .npz or .ply file')
    if not path.is_file():
        raise ValueError(f'{path} is missing')
    points = read_array(path) if path.suffix == '.npy' else read_scene(path)['xyz']
    if points.ndim != 2 or points.shape[1] < 3 or not len(points) or points.dtype.kind not in 'fiu':
        raise ValueError(f'{path} is no cloud: its array is {points.dtype} {points.shape}, not numbers (N, 3 + F)')
    return points.astype(np.float32)
