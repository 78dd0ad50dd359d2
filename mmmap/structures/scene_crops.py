"""Voxels and crops of scenes, for training and testing alike."""

import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from scipy.spatial import cKDTree

from .islands import find_islands, island_boxes, number_rows, unique_rows

CROPS = ('block', 'sphere')
# Crops are this much larger, so that rounding loses no point on an edge.
_MARGIN = 1 + 1e-5


def voxel_ids(xyz: np.ndarray, size: float, islands: np.ndarray | None = None) -> np.ndarray:
    """Number the voxels that hold points.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        size (float): Side of a voxel.
        islands (np.ndarray, optional): Island of each point, shape (N,). Each island has its own grid, which starts at
            its lowest corner. Found by default.

    Returns:
        np.ndarray: Voxel of each point, from 0 without gaps, shape (N,), int64.
    """
    islands = find_islands(xyz) if islands is None else islands
    low, _ = island_boxes(xyz, islands)
    cells = [np.floor((xyz[:, axis] - low[islands, axis]) / size) for axis in range(3)]
    return number_rows([islands, *cells])


def draw_point_per_voxel(ids: np.ndarray, rng: np.random.Generator | ModuleType) -> np.ndarray:
    """Draw one point of each voxel.

    Args:
        ids (np.ndarray): Voxel of each point (:func:`voxel_ids`), shape (N,).
        rng (np.random.Generator | ModuleType): Random numbers, perhaps from ``np.random`` itself.

    Returns:
        np.ndarray: Index of the point of each voxel, shape (voxels,), int64.
    """
    drawn = np.empty(ids.max() + 1, np.int64)
    order = rng.permutation(len(ids))
    # The last point in the random order overwrites the others of its voxel.
    drawn[ids[order]] = order
    return drawn


def warn_unless_metres(xyz: np.ndarray, size: float, name: str) -> None:
    """Warn if a scene is so much smaller than a crop that its coordinates can hardly be in metres.

    Args:
        xyz (np.ndarray): Points of the scene, shape (N, 3).
        size (float): Side of the blocks or radius of the spheres.
        name (str): Name of the scene for the warning.
    """
    extent = np.ptp(xyz[:, :2], axis=0)
    if 0 < extent.max() < size / 100:
        warnings.warn(
            f'{name}: its x and y span {extent[0]:g} x {extent[1]:g}, and a crop is {size:g}: are they degrees? Give '
            'them in metres',
            stacklevel=2,
        )


def make_tree(xyz: np.ndarray, crop: str) -> cKDTree:
    """Build a search tree for :func:`points_around`: over x and y for blocks, over x, y and z for spheres."""
    return cKDTree(xyz[:, :2] if crop == 'block' else xyz)


def points_around(tree: cKDTree, centre: np.ndarray, crop: str, size: float) -> np.ndarray:
    """Find the points of a crop.

    Args:
        tree (cKDTree): The tree from :func:`make_tree`.
        centre (np.ndarray): Centre of the crop, shape (3,). z is ignored for a block.
        crop (str): ``'block'``, a column from floor to ceiling, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.

    Returns:
        np.ndarray: Indices of the points, ascending, int64.
    """
    if crop == 'block':
        found = tree.query_ball_point(centre[:2], size / 2 * _MARGIN, p=np.inf)
    else:
        found = tree.query_ball_point(centre, size * _MARGIN)
    return np.sort(np.asarray(found, np.int64))


def to_crop_frame(xyz: np.ndarray, centre: np.ndarray, crop: str, size: float, floor: float) -> np.ndarray:
    """Change coordinates to the frame of a crop: they count from its centre, in units of its size.

    Args:
        xyz (np.ndarray): Points of the crop, shape (N, 3).
        centre (np.ndarray): Its centre, shape (3,).
        crop (str): ``'block'``, where z counts from ``floor``, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.
        floor (float): z of the lowest point of the scene.

    Returns:
        np.ndarray: Coordinates, shape (N, 3), float32.
    """
    origin = np.array([centre[0], centre[1], floor if crop == 'block' else centre[2]], np.float64)
    return ((xyz - origin) / size).astype(np.float32)


def draw_points(indices: np.ndarray, count: int, rng: np.random.Generator | ModuleType) -> np.ndarray:
    """Draw ``count`` points. If there are fewer, all are taken and some are drawn again.

    Args:
        indices (np.ndarray): The points, shape (N,).
        count (int): Points to draw.
        rng (np.random.Generator | ModuleType): Random numbers, perhaps from ``np.random`` itself.

    Returns:
        np.ndarray: Indices of the drawn points, shape (count,).
    """
    if len(indices) >= count:
        return rng.choice(indices, count, replace=False)
    return np.concatenate([indices, rng.choice(indices, count - len(indices))])


def split_points(indices: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Split the points of a crop at random into parts of ``count`` points. The last part is filled up from the others.

    Args:
        indices (np.ndarray): The points, shape (N,).
        count (int): Points of a part.
        rng (np.random.Generator): Random numbers.

    Yields:
        np.ndarray: Indices of a part, shape (count,). Every point is in at least one part.
    """
    order = rng.permutation(indices)
    for start in range(0, len(order), count):
        part = order[start : start + count]
        if len(part) < count and len(order) > count:
            # Points of the other parts make the last one as dense as they are.
            part = np.concatenate([part, rng.choice(order[:start], count - len(part), replace=False)])
        yield draw_points(part, count, rng)


def _blocks(
    xy: np.ndarray, size: float, stride: float, shift: np.ndarray, clamped: bool
) -> Iterator[tuple[float, float]]:
    """Centres of the blocks of a grid that may hold points, row by row.

    The grid starts ``shift`` before the lowest coordinates. If ``clamped``, the last block of a row ends at the highest
    coordinate.
    """
    low, high = xy.min(0), xy.max(0)
    last = np.maximum(0, np.ceil((high - low + shift - size) / stride))
    # Blocks over a cell of the grid start in it or before it. A clamped block may start one cell earlier.
    blocks = unique_rows(list(np.floor((xy - low + shift).T / stride)))
    before = np.arange(-1, int(np.ceil(size / stride)) + 1)
    for axis in range(2):
        spread = np.repeat(blocks[None], len(before), axis=0)
        spread[..., axis] = (spread[..., axis] - before[:, None]).clip(0, last[axis])
        blocks = unique_rows(list(spread.reshape(-1, 2).T))
    starts = low - shift + stride * blocks
    if clamped:
        starts = np.where(high - low <= size, (low + high - size) / 2, np.minimum(starts, high - size))
    yield from starts + size / 2


def cover_scene(
    xyz: np.ndarray, crop: str, size: float, stride: float, rng: np.random.Generator, shifted: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cover a scene with overlapping crops.

    Blocks lie on a grid. Blocks without points are skipped. The centre of each sphere is a random point that lies more
    than ``stride`` from all centres before, so that in the end every point lies well inside a sphere.

    Args:
        xyz (np.ndarray): Points of the scene, shape (N, 3).
        crop (str): ``'block'`` or ``'sphere'``.
        size (float): Side of the blocks or radius of the spheres.
        stride (float): Distance between blocks, or least distance between centres of spheres. At most ``size``.
        rng (np.random.Generator): Random numbers.
        shifted (bool): Whether to shift the grid of blocks by a random part of ``stride``, for another vote.

    Yields:
        tuple[np.ndarray, np.ndarray]: Centre (3,) and indices of the points of a crop. Every point is in at least one
        crop.
    """
    tree = make_tree(xyz, crop)
    left = np.ones(len(xyz), bool)
    if crop == 'block':
        shift = rng.uniform(0, stride, 2) if shifted else np.zeros(2)
        for x, y in _blocks(xyz[:, :2], size, stride, shift, not shifted):
            centre = np.array([x, y, 0])
            found = points_around(tree, centre, crop, size)
            if len(found):
                left[found] = False
                yield centre, found
    # Blocks cover all points, except for rounding errors.
    order = rng.permutation(len(xyz))
    for index in order[left[order]]:
        if left[index]:
            found = points_around(tree, xyz[index], crop, size)
            near = found if crop == 'block' else points_around(tree, xyz[index], crop, stride)
            left[near] = False
            yield xyz[index], found
