"""Reading and writing of scenes, and checks of their labels."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.atomic_files import atomic_path
from ..utils.origin_mark import Origin
from .point_checks import check_points, to_colours
from .point_formats import read_columns

#: Label of points without a class.
IGNORED = 255
# Longest lookup table of labels. A lookup is about twenty times as fast as a search.
_LONGEST_TABLE = 1 << 20


def write_scene(path: str | Path, made_from: bytes = b'', **arrays: np.ndarray) -> None:
    """Write a scene as an ``.npz`` file, whole or not at all.

    Args:
        path (str | Path): The file. Its folder is created if needed.
        made_from (bytes): Mark of the source files, which :func:`is_scene` compares. Defaults to no mark.
        **arrays (np.ndarray): ``xyz`` (N, 3), and ``label`` (N,), ``rgb`` (N, 3) or other features with N rows.
    """
    with atomic_path(path) as part:
        with open(part, 'wb') as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        if made_from:
            with zipfile.ZipFile(part, 'a') as archive:
                archive.comment = made_from


def read_scene(path: str | Path, colours: bool = True, rgb_max: float | None = None) -> dict[str, np.ndarray]:
    """Read a scene.

    Args:
        path (str | Path): ``.npz`` file with ``xyz`` (N, 3) and other arrays with N rows, or a file in another format
            of :data:`~mmmap.structures.point_formats.READERS`. There the columns x, y, z become ``xyz``, and red,
            green, blue become ``rgb``.
        colours (bool): Whether to return colours. Defaults to True.
        rgb_max (float, optional): Full brightness of the colours
            (:func:`~mmmap.structures.point_checks.to_colours`). Defaults to None.

    Returns:
        dict[str, np.ndarray]: Its arrays by name: ``xyz``, finite; ``rgb``, from 0 to 255; and the others as stored.

    Raises:
        ImportError: If the format needs a package that is missing.
        ValueError: If the file is damaged, has no points, points that are not finite or invalid colours, or an array
            does not have N rows. One line that names the file.
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
            raise ValueError(f'{path}: its array {name} has the shape {values.shape}, but there are {len(xyz)} points')
        if name.startswith('column '):
            raise ValueError(
                f"{path}: its columns have no names: begin it with a line such as 'x y z red green blue label'"
            )
    if 'rgb' in arrays:
        rgb = arrays.pop('rgb')
        arrays |= dict(rgb=to_colours(rgb, f'{path}: rgb', rgb_max)) if colours else {}
    return arrays


def count_points(path: str | Path) -> int:
    """Count the points of a scene. Of an ``.npz`` file only the header of ``xyz`` is read.

    Args:
        path (str | Path): A file that :func:`read_scene` reads.

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
    # zipfile, zlib and numpy raise many kinds of errors for a damaged archive.
    except Exception as error:
        raise ValueError(f'{path} is cut off or not a scene ({error})') from None
    if not count:
        raise ValueError(f'{path} has no points')
    return count


def whole_numbers(labels: np.ndarray | Sequence[int], name: str) -> np.ndarray:
    """Convert labels to int64 without rounding. Values above its range become its largest value.

    Args:
        labels (np.ndarray | Sequence[int]): Labels of any type.
        name (str): Their name for the error, such as the file.

    Raises:
        ValueError: If one is not a whole number. One line with the first one and their number.
    """
    labels = np.asarray(labels)
    if labels.dtype == np.uint64:
        labels = labels.clip(max=np.uint64(2**63 - 1))
    if labels.dtype.kind in 'iub':
        return labels.astype(np.int64)
    if labels.dtype.kind != 'f':
        raise ValueError(f'{name}: labels are of type {labels.dtype}, not whole numbers')
    # float64 holds whole numbers exactly up to 2**53.
    wrong = ~((labels == np.floor(labels)) & (np.abs(labels) <= np.float64(2**53)))
    if wrong.any():
        raise ValueError(
            f'{name}: label {labels[wrong][0]} is not a whole number ({np.count_nonzero(wrong):,} of {labels.size:,})'
        )
    return labels.astype(np.int64)


def check_classes(labels: np.ndarray, count: int | None, name: str, ignored: int | None = None) -> np.ndarray:
    """Convert labels to int64, and check that they are classes.

    Args:
        labels (np.ndarray): Labels of any type.
        count (int, optional): Number of classes; None if it is unknown.
        name (str): Their name for the error, such as the file.
        ignored (int, optional): Another label that is allowed. Defaults to None.

    Raises:
        ValueError: If one is not a whole number or not a class. One line with the wrong values and how often they
            occur.
    """
    labels = whole_numbers(labels, name)
    wrong = labels < 0 if count is None else (labels < 0) | (labels >= count)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        expected = 'negative' if count is None else f'none of the classes 0 to {count - 1}'
        raise ValueError(f'{name}: {_count_values(labels, wrong)} {expected}')
    return labels


def _count_values(labels: np.ndarray, wrong: np.ndarray) -> str:
    """Describe the wrong labels, such as '3 of 900 labels, -1 (2), 7 (1), are'."""
    values, counts = np.unique(labels[wrong], return_counts=True)
    listed = ', '.join(f'{value} ({times:,})' for value, times in zip(values[:5], counts[:5], strict=True))
    more = f' and {len(values) - 5} more values' if len(values) > 5 else ''
    return f'{counts.sum():,} of {labels.size:,} labels, {listed}{more}, are'


def class_indices(
    labels: np.ndarray, class_labels: Sequence[int], unknown: str = 'ignore', name: str = 'labels'
) -> np.ndarray:
    """Convert the labels of a data set to class indices.

    Args:
        labels (np.ndarray): Labels, whole numbers of any type.
        class_labels (Sequence[int]): The label of each class.
        unknown (str): For labels of no class: 'ignore' converts them to 255, 'error' raises an error unless they are
            255.
        name (str): Name of the labels for errors, such as the file.

    Returns:
        np.ndarray: For each label its index in ``class_labels``, or 255, int64.

    Raises:
        ValueError: If a label is not a whole number, or is of no class with 'error'. One line that names it.
    """
    labels, known = whole_numbers(labels, name), whole_numbers(class_labels, 'class_labels')
    if not known.size:
        raise ValueError(f'{name}: there are no classes for its labels')
    low, high = int(known.min()) - 1, int(known.max()) + 1
    if high - low < _LONGEST_TABLE:
        table = np.full(high - low + 1, IGNORED)
        table[known - low] = np.arange(len(known))
        # The first and the last entry stand for all labels below and above.
        indices = table[labels.clip(low, high) - low]
    else:
        order = np.argsort(known)
        places = np.searchsorted(known, labels, sorter=order).clip(max=len(known) - 1)
        indices = np.where(known[order][places] == labels, order[places], IGNORED)
    if unknown == 'error' and (wrong := (indices == IGNORED) & (labels != IGNORED)).any():
        listed = known.tolist() if len(known) <= 100 else f'{len(known)} labels from {known.min()} to {known.max()}'
        raise ValueError(f'{name}: {_count_values(labels, wrong)} none of {listed}, the labels of the classes')
    return indices


def is_scene(path: str | Path, origin: Origin | None = None) -> bool:
    """Whether an ``.npz`` file exists and is whole, judged by its directory and the header of ``xyz``.

    Args:
        path (str | Path): The file.
        origin (Origin, optional): The source files that it must have been made from. Defaults to None, any.
    """
    try:
        if not Path(path).is_file():
            return False
        count_points(path)
        with zipfile.ZipFile(path) as archive:
            return origin is None or origin.is_of(archive.comment)
    except ValueError:
        return False
