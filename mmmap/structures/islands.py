"""Islands: parts of a scene with empty ground between them. Each island is treated as a scene of its own."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

#: Smallest side of the cells that tell islands apart, in metres.
CELL = 20.0
# Cells along the longest side of a scene of more than 400 m. They are larger than CELL.
_CELLS = 20
# Cells from the middle of the scene. Points farther away are moved to this cell.
_FARTHEST = 2**19
# Distance from the corner below which float32 is exact enough, in metres.
_NEAR = 2**12


def find_islands(xyz: np.ndarray) -> np.ndarray:
    """Find the islands of a scene, so that a stray point far away changes nothing for the others.

    Points are sorted into cells. The side of a cell is 20 m, or a twentieth of the longest side of the scene (of its
    middle 98 %) if that is more. Cells that touch form one island. So a gap of less than one cell never separates
    points, and a gap of two cells always does.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).

    Returns:
        np.ndarray: Island of each point, shape (N,), int64. Island 0 has the most points.
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
    """List the indices of the points of each island, ascending. ``islands`` is from :func:`find_islands`."""
    order = np.argsort(islands, kind='stable')
    return np.split(order, np.flatnonzero(np.diff(islands[order])) + 1)


def island_boxes(xyz: np.ndarray, islands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates of each island, shape (islands, 3) each.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        islands (np.ndarray): Island of each point (:func:`find_islands`), shape (N,).
    """
    if not islands.any():
        return xyz.min(0, keepdims=True), xyz.max(0, keepdims=True)
    parts = split_islands(islands)
    return np.stack([xyz[part].min(0) for part in parts]), np.stack([xyz[part].max(0) for part in parts])


def shift_to_corner(xyz: np.ndarray) -> np.ndarray:
    """Shift a scene so that the corner of least x, y and z of its largest island is the origin.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).

    Returns:
        np.ndarray: Shape (N, 3), float64. Points nearer than 4 km are rounded to float32 (by at most 0.25 mm). So their
        values do not depend on points that lie far away.
    """
    xyz = np.asarray(xyz, np.float64)
    largest = find_islands(xyz) == 0
    xyz = xyz - xyz.min(0, where=largest[:, None], initial=np.inf)
    with np.errstate(over='ignore'):
        return np.where(np.abs(xyz).max(1, keepdims=True) < _NEAR, xyz.astype(np.float32), xyz)


def number_rows(columns: list[np.ndarray]) -> np.ndarray:
    """Number the distinct rows of a table, in sorted order.

    Args:
        columns (list[np.ndarray]): Whole numbers of any size, shape (N,) each.

    Returns:
        np.ndarray: Number of each row, from 0 without gaps, shape (N,), int64. Equal rows have equal numbers.
    """
    lows = [column.min() for column in columns]
    spans = [float(column.max()) - float(low) + 1 for column, low in zip(columns, lows, strict=True)]
    ids = np.zeros(len(columns[0]), np.int64)
    if np.prod(spans) < 2**62:
        for column, low, span in zip(columns, lows, spans, strict=True):
            ids = ids * int(span) + (column - low).astype(np.int64)
        return _number_values(ids, int(np.prod(spans)))
    for column in columns:
        ids = _number_values(ids * len(ids) + np.unique(column, return_inverse=True)[1].reshape(-1))
    return ids


def unique_rows(columns: list[np.ndarray], ids: np.ndarray | None = None) -> np.ndarray:
    """The distinct rows, sorted, shape (rows, columns). ``ids`` may give the result of :func:`number_rows`."""
    ids = number_rows(columns) if ids is None else ids
    rows = np.empty((ids.max() + 1, len(columns)), columns[0].dtype)
    for axis, column in enumerate(columns):
        rows[ids, axis] = column
    return rows


def _number_values(values: np.ndarray, span: int | None = None) -> np.ndarray:
    if span is None or span > 4 * len(values):
        return np.unique(values, return_inverse=True)[1].reshape(-1)
    # A table is about ten times as fast as sorting.
    there = np.zeros(span, bool)
    there[values] = True
    return (np.cumsum(there) - 1)[values]
