"""Scenes as files: reading and writing them, and the labels in them."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.made_from import Origin
from .ply import read_ply

#: Label of points that belong to no class.
IGNORED = 255


def write_scene(path: str | Path, made_from: bytes = b'', **arrays: np.ndarray) -> None:
    """Write a scene as an ``.npz`` file, whole or not at all.

    Args:
        path (str | Path): The file; its folder is made where needed.
        made_from (bytes): The mark of what it was made from, which :func:`is_scene` looks at. Defaults to none.
        **arrays (np.ndarray): ``xyz`` (N, 3), and ``label`` (N,), ``rgb`` (N, 3) or other features, with a row a point.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    with open(part, 'wb') as file:
        np.savez(file, **arrays)
    if made_from:
        with zipfile.ZipFile(part, 'a') as archive:
            archive.comment = made_from
    os.replace(part, path)


def read_scene(path: str | Path) -> dict[str, np.ndarray]:
    """Read a scene.

    Args:
        path (str | Path): An ``.npz`` file with ``xyz`` (N, 3) and more arrays with a row a point, or a ``.ply`` file.

    Returns:
        dict[str, np.ndarray]: Its arrays by name: of a PLY file ``xyz``, ``rgb`` if its vertices have colours, and
        their other properties.

    Raises:
        ValueError: If the file is damaged, has no points, or an array of it has not one row a point.
    """
    if Path(path).suffix == '.ply':
        return _read_ply_scene(path)
    try:
        with np.load(path) as content:
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError) as error:
        raise ValueError(f'{path} is cut off or no .npz file ({error})') from None
    xyz = arrays.get('xyz')
    if xyz is None or xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
        raise ValueError(f'{path} has no points: its array xyz is {None if xyz is None else xyz.shape}, not (N, 3)')
    for name, values in arrays.items():
        if values.shape[:1] != (len(xyz),):
            raise ValueError(f'{path}: its array {name} has the shape {values.shape}, of {len(xyz)} points')
    return arrays


def _read_ply_scene(path: str | Path) -> dict[str, np.ndarray]:
    vertices, arrays = read_ply(path), {}
    for name, properties in (('xyz', ('x', 'y', 'z')), ('rgb', ('red', 'green', 'blue'))):
        if vertices.keys() >= set(properties):
            arrays[name] = np.stack([vertices.pop(key) for key in properties], axis=1)
        elif name == 'xyz':
            raise ValueError(f'{path} has no points: its vertices have no x, y and z')
    return arrays | vertices


def count_points(path: str | Path) -> int:
    """Number of points of a scene, from the header of its ``xyz``.

    Args:
        path (str | Path): The ``.npz`` file.

    Raises:
        ValueError: If the file is damaged or has no ``xyz``.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open('xyz.npy') as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[0][0]
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f'{path} is cut off or no scene ({error})') from None


def class_indices(labels: np.ndarray, class_labels: Sequence[int]) -> np.ndarray:
    """Turn the labels of a data set into classes.

    Args:
        labels (np.ndarray): Labels from 0, shape (N,).
        class_labels (Sequence[int]): The label of each class.

    Returns:
        np.ndarray: The index in ``class_labels`` of each label, 255 for one that is not there, shape (N,), int64.
    """
    table = np.full(max(int(labels.max()), *class_labels) + 1, IGNORED)
    table[list(class_labels)] = np.arange(len(class_labels))
    return table[labels]


def is_scene(path: str | Path, origin: Origin | None = None) -> bool:
    """Whether a scene is there and whole, as far as its directory and its header tell.

    Args:
        path (str | Path): The ``.npz`` file.
        origin (Origin, optional): What it must have been made from. Defaults to None, anything.
    """
    try:
        if not Path(path).is_file() or count_points(path) == 0:
            return False
        with zipfile.ZipFile(path) as archive:
            return origin is None or origin.is_of(archive.comment)
    except ValueError:
        return False
