"""Scenes as files: reading and writing them, and the labels in them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.made_from import Origin
from ..utils.whole_files import written_whole
from .point_formats import read_columns
from .points import check_points, to_colours

#: Label of points that belong to no class.
IGNORED = 255
# A table is some twenty times as fast as a search.
_LONGEST_TABLE = 1 << 20


def write_scene(path: str | Path, made_from: bytes = b'', **arrays: np.ndarray) -> None:
    """Write a scene as an ``.npz`` file, whole or not at all.

    Args:
        path (str | Path): The file; its folder is made where needed.
        made_from (bytes): The mark of what it was made from, which :func:`is_scene` looks at. Defaults to none.
        **arrays (np.ndarray): ``xyz`` (N, 3), and ``label`` (N,), ``rgb`` (N, 3) or other features, with a row a point.
    """
    with written_whole(path) as part:
        with open(part, 'wb') as file:
            np.savez(file, **arrays)
        if made_from:
            with zipfile.ZipFile(part, 'a') as archive:
                archive.comment = made_from


def read_scene(path: str | Path, colours: bool = True, rgb_max: float | None = None) -> dict[str, np.ndarray]:
    """Read a scene.

    Args:
        path (str | Path): An ``.npz`` file with ``xyz`` (N, 3) and more arrays with a row a point, or a file of another
            format of :data:`~mmmap.structures.point_formats.READERS`, whose columns x, y, z are ``xyz`` and red, green,
            blue ``rgb``.
        colours (bool): Whether colours are needed; if not they are left out. Defaults to True.
        rgb_max (float, optional): Full brightness of the colours, see :func:`~mmmap.structures.points.to_colours`.

    Returns:
        dict[str, np.ndarray]: Its arrays by name, of which ``xyz`` is finite and ``rgb`` counts from 0 to 255.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the file is damaged, has no points, points that are not finite or colours that are none, or an
            array of it has not one row a point; one line that names it.
    """
    arrays = read_columns(path)
    if Path(path).suffix.lower() != '.npz':
        for name, columns in (('xyz', ('x', 'y', 'z')), ('rgb', ('red', 'green', 'blue'))):
            if arrays.keys() >= set(columns):
                arrays = {name: np.stack([arrays.pop(key) for key in columns], axis=1), **arrays}
    xyz = arrays.get('xyz')
    if xyz is None or xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
        raise ValueError(f'{path} has no points: its array xyz is {None if xyz is None else xyz.shape}, not (N, 3)')
    check_points(xyz, str(path))
    for name, values in arrays.items():
        if values.shape[:1] != (len(xyz),):
            raise ValueError(f'{path}: its array {name} has the shape {values.shape}, of {len(xyz)} points')
        if name.startswith('column '):
            raise ValueError(
                f"{path}: its columns have no names: begin it with a line such as 'x y z red green blue label'"
            )
    if 'rgb' in arrays:
        rgb = arrays.pop('rgb')
        arrays |= dict(rgb=to_colours(rgb, f'{path}: rgb', rgb_max)) if colours else {}
    return arrays


def count_points(path: str | Path) -> int:
    """Number of points of a scene, of an ``.npz`` file from the header of its ``xyz``.

    Args:
        path (str | Path): A file, see :func:`read_scene`.

    Raises:
        ValueError: If the file is damaged or has no points.
    """
    if Path(path).suffix.lower() != '.npz':
        return len(read_scene(path, colours=False)['xyz'])
    try:
        with zipfile.ZipFile(path) as archive, archive.open('xyz.npy') as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            (count, *_), *_ = read(file)
    except FileNotFoundError:
        raise ValueError(f'{path} is missing') from None
    # A damaged archive fails in a dozen ways, within zipfile, zlib and numpy.
    except Exception as error:
        raise ValueError(f'{path} is cut off or no scene ({error})') from None
    if not count:
        raise ValueError(f'{path} has no points')
    return count


def whole_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels as integers; nothing is rounded or cut.

    Args:
        labels (np.ndarray): Labels of any type.
        name (str): What to call them in the error, such as their file.

    Returns:
        np.ndarray: The same, int64; what is above its range becomes its largest number.

    Raises:
        ValueError: If one is not a whole number; one line with the first such, and how many there are.
    """
    labels = np.asarray(labels)
    if labels.dtype == np.uint64:
        labels = labels.clip(max=np.uint64(2**63 - 1))
    if labels.dtype.kind in 'iub':
        return labels.astype(np.int64)
    if labels.dtype.kind != 'f':
        raise ValueError(f'{name}: labels are of type {labels.dtype}, not whole numbers')
    # float64 tells whole numbers apart up to 2**53.
    wrong = ~((labels == np.floor(labels)) & (np.abs(labels) <= np.float64(2**53)))
    if wrong.any():
        raise ValueError(
            f'{name}: label {labels[wrong][0]} is no whole number ({np.count_nonzero(wrong):,} of {labels.size:,})'
        )
    return labels.astype(np.int64)


def check_classes(labels: np.ndarray, count: int | None, name: str, ignored: int | None = None) -> np.ndarray:
    """Labels that must be classes.

    Args:
        labels (np.ndarray): Labels of any type.
        count (int, optional): Number of classes, None if it is not known.
        name (str): What to call them in the error.
        ignored (int, optional): A label beside them that is allowed. Defaults to None.

    Returns:
        np.ndarray: The same, int64.

    Raises:
        ValueError: If one is not a whole number or none of the classes; one line with the values and their numbers.
    """
    labels = whole_numbers(labels, name)
    wrong = labels < 0 if count is None else (labels < 0) | (labels >= count)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        expected = 'negative' if count is None else f'none of the classes 0 to {count - 1}'
        raise ValueError(f'{name}: {_tell(labels, wrong)} {expected}')
    return labels


def _tell(labels: np.ndarray, wrong: np.ndarray) -> str:
    """Such as '3 of 900 labels, -1 (2) and 7 (1), are'."""
    values, counts = np.unique(labels[wrong], return_counts=True)
    told = ', '.join(f'{value} ({times:,})' for value, times in zip(values[:5], counts[:5], strict=True))
    more = f' and {len(values) - 5} more values' if len(values) > 5 else ''
    return f'{counts.sum():,} of {labels.size:,} labels, {told}{more}, are'


def class_indices(
    labels: np.ndarray, class_labels: Sequence[int], unknown: str = 'ignore', name: str = 'labels'
) -> np.ndarray:
    """Turn the labels of a data set into classes.

    Args:
        labels (np.ndarray): Labels, whole numbers of any type.
        class_labels (Sequence[int]): The label of each class.
        unknown (str): What becomes of a label that is not there: 'ignore' makes it 255, 'error' refuses it. 255 itself
            stays what it is.
        name (str): What to call the labels in errors, such as their file.

    Returns:
        np.ndarray: The index in ``class_labels`` of each label, 255 for one that is not there, int64.

    Raises:
        ValueError: If a label is no whole number, or unknown and refused; one line that names it.
    """
    labels, known = whole_numbers(labels, name), whole_numbers(class_labels, 'class_labels')
    if not known.size:
        raise ValueError(f'{name}: there are no classes that its labels could be')
    low, high = int(known.min()) - 1, int(known.max()) + 1
    if high - low < _LONGEST_TABLE:
        table = np.full(high - low + 1, IGNORED)
        table[known - low] = np.arange(len(known))
        # What is below or above all of them has a place of its own at either end.
        indices = table[labels.clip(low, high) - low]
    else:
        order = np.argsort(known)
        places = np.searchsorted(known, labels, sorter=order).clip(max=len(known) - 1)
        indices = np.where(known[order][places] == labels, order[places], IGNORED)
    if unknown == 'error' and (wrong := (indices == IGNORED) & (labels != IGNORED)).any():
        told = known.tolist() if len(known) <= 100 else f'{len(known)} labels from {known.min()} to {known.max()}'
        raise ValueError(f'{name}: {_tell(labels, wrong)} none of {told}, those of the classes')
    return indices


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
