"""Parts of a scene with empty ground between them. Each of these islands counts as a scene of its own."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

#: Least side of the cells that tell islands apart, in metres.
CELL = 20.0
# A scene that is longer than 400 m has larger ones, so many along its longest side.
_CELLS = 20
# Cells from the middle on; what is farther counts as being there.
_FARTHEST = 2**19
# In metres.
_NEAR = 2**12


def find_islands(xyz: np.ndarray) -> np.ndarray:
    """Tell which points hang together, so that a stray point far away changes nothing for the others.

    Points lie in cells of 20 m, or of a twentieth of the longest side of the scene (of its middle 98 %) where that is
    more. Cells that touch are of one island: empty ground of less than a cell never parts points, of two cells always.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).

    Returns:
        np.ndarray: The island of each point, from 0 for the one with most points, shape (N,), int64.
    """
    low, middle, high = np.quantile(xyz[:: len(xyz) // 10_000 + 1].astype(np.float64), (0.01, 0.5, 0.99), axis=0)
    side = max(CELL, (high - low).max() / _CELLS)
    if (xyz.max(0).astype(np.float64) - xyz.min(0) <= side).all():
        return np.zeros(len(xyz), np.int64)
    cells = [
        np.floor((xyz[:, axis] - middle[axis]) / side).clip(-_FARTHEST, _FARTHEST - 1).astype(np.int64)
        for axis in range(3)
    ]
    ids = number_rows(cells)
    places = unique_rows(cells, ids)
    pairs = cKDTree(places).query_pairs(1.5, p=np.inf, output_type='ndarray')
    touching = coo_matrix((np.ones(len(pairs)), pairs.T), (len(places), len(places)))
    parts = connected_components(touching, directed=False)[1][ids]
    numbers = np.empty(parts.max() + 1, np.int64)
    numbers[np.argsort(-np.bincount(parts), kind='stable')] = np.arange(len(numbers))
    return numbers[parts]


def split_islands(islands: np.ndarray) -> list[np.ndarray]:
    """Indices of the points of each island, ascending."""
    order = np.argsort(islands, kind='stable')
    return np.split(order, np.flatnonzero(np.diff(islands[order])) + 1)


def island_boxes(xyz: np.ndarray, islands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest coordinates of the islands.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        islands (np.ndarray): Their islands, see :func:`find_islands`.

    Returns:
        tuple[np.ndarray, np.ndarray]: Shape (islands, 3) each.
    """
    if not islands.any():
        return xyz.min(0, keepdims=True), xyz.max(0, keepdims=True)
    parts = split_islands(islands)
    return np.stack([xyz[part].min(0) for part in parts]), np.stack([xyz[part].max(0) for part in parts])


def from_corner(xyz: np.ndarray) -> np.ndarray:
    """Count coordinates from the corner of least x, y and z of the scene's largest island.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).

    Returns:
        np.ndarray: Shape (N, 3), float64. Points nearer than 4 km are rounded to float32, by a quarter of a millimetre
        at most, so that they are the same whatever there is far from them.
    """
    xyz = np.asarray(xyz, np.float64)
    largest = find_islands(xyz) == 0
    xyz = xyz - xyz.min(0, where=largest[:, None], initial=np.inf)
    with np.errstate(over='ignore'):
        return np.where(np.abs(xyz).max(1, keepdims=True) < _NEAR, xyz.astype(np.float32), xyz)


def number_rows(columns: list[np.ndarray]) -> np.ndarray:
    """Number the rows that differ, in their order.

    Args:
        columns (list[np.ndarray]): Whole numbers, of whatever size, shape (N,) each.

    Returns:
        np.ndarray: The number of each row, from 0 without a gap, shape (N,), int64.
    """
    lows = [column.min() for column in columns]
    spans = [float(column.max()) - float(low) + 1 for column, low in zip(columns, lows, strict=True)]
    ids = np.zeros(len(columns[0]), np.int64)
    if np.prod(spans) < 2**62:
        for column, low, span in zip(columns, lows, spans, strict=True):
            ids = ids * int(span) + (column - low).astype(np.int64)
        return _number(ids, int(np.prod(spans)))
    for column in columns:
        ids = _number(ids * len(ids) + np.unique(column, return_inverse=True)[1].reshape(-1))
    return ids


def unique_rows(columns: list[np.ndarray], ids: np.ndarray | None = None) -> np.ndarray:
    """The rows that differ, in their order, shape (R, columns); ``ids`` are those of :func:`number_rows`."""
    ids = number_rows(columns) if ids is None else ids
    rows = np.empty((ids.max() + 1, len(columns)), columns[0].dtype)
    for axis, column in enumerate(columns):
        rows[ids, axis] = column
    return rows


def _number(values: np.ndarray, span: int | None = None) -> np.ndarray:
    if span is None or span > 4 * len(values):
        return np.unique(values, return_inverse=True)[1].reshape(-1)
    # A table is some ten times as fast as sorting.
    there = np.zeros(span, bool)
    there[values] = True
    return (np.cumsum(there) - 1)[values]
