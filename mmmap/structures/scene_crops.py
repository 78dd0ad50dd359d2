"""Voxels and crops of scenes, and the frames of the crops: what training and testing on scenes must do alike."""

import warnings
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from .islands import find_islands, island_boxes, number_rows, unique_rows

CROPS = ('block', 'sphere')
# Points on the edge of a crop may not be lost to rounding.
_EDGE = 1 + 1e-5


def voxel_ids(xyz: np.ndarray, size: float, islands: np.ndarray | None = None) -> np.ndarray:
    """Number the voxels that hold points.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        size (float): Side of a voxel.
        islands (np.ndarray, optional): Their islands, each with its own grid from its corner on; found by default.

    Returns:
        np.ndarray: For each point its voxel, from 0 without a gap, shape (N,), int64.
    """
    islands = find_islands(xyz) if islands is None else islands
    low, _ = island_boxes(xyz, islands)
    cells = [np.floor((xyz[:, axis] - low[islands, axis]) / size) for axis in range(3)]
    return number_rows([islands, *cells])


def draw_of_voxels(ids: np.ndarray, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    """Draw one point of each voxel.

    Args:
        ids (np.ndarray): The points' voxels, see :func:`voxel_ids`.
        rng (np.random.Generator | np.random.RandomState): Draws.

    Returns:
        np.ndarray: Indices of the points, by voxel, shape (V,), int64.
    """
    drawn = np.empty(ids.max() + 1, np.int64)
    order = rng.permutation(len(ids))
    # Of several points of a voxel the last one in the order stays.
    drawn[ids[order]] = order
    return drawn


def warn_if_tiny(xyz: np.ndarray, size: float, name: str) -> None:
    """Warn of a scene whose plan is so far below a crop that its coordinates can hardly be in metres.

    Args:
        xyz (np.ndarray): Points of the scene, shape (N, 3).
        size (float): Side of the blocks or radius of the spheres.
        name (str): What to call the scene.
    """
    extent = np.ptp(xyz[:, :2], axis=0)
    if 0 < extent.max() < size / 100:
        warnings.warn(
            f'{name}: its x and y span {extent[0]:g} x {extent[1]:g}, and a crop is {size:g}: are they degrees? Give '
            'them in metres',
            stacklevel=2,
        )


def make_tree(xyz: np.ndarray, crop: str) -> cKDTree:
    """A search tree for :func:`points_around`: over the plan of a scene for blocks, over space for spheres."""
    return cKDTree(xyz[:, :2] if crop == 'block' else xyz)


def points_around(tree: cKDTree, centre: np.ndarray, crop: str, size: float) -> np.ndarray:
    """The points of a crop.

    Args:
        tree (cKDTree): Of :func:`make_tree`.
        centre (np.ndarray): Centre of the crop, shape (3,); a block needs only x and y.
        crop (str): ``'block'``, a column from floor to ceiling, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.

    Returns:
        np.ndarray: Indices of the points, ascending, int64.
    """
    if crop == 'block':
        found = tree.query_ball_point(centre[:2], size / 2 * _EDGE, p=np.inf)
    else:
        found = tree.query_ball_point(centre, size * _EDGE)
    return np.sort(np.asarray(found, np.int64))


def to_crop_frame(xyz: np.ndarray, centre: np.ndarray, crop: str, size: float, floor: float) -> np.ndarray:
    """Coordinates as the model sees them: from the centre of the crop, in units of its size.

    Args:
        xyz (np.ndarray): Points of the crop, shape (N, 3).
        centre (np.ndarray): Its centre, shape (3,).
        crop (str): ``'block'``, whose z counts from the floor of the scene, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.
        floor (float): z of the scene's lowest point.

    Returns:
        np.ndarray: Coordinates, shape (N, 3), float32.
    """
    origin = np.array([centre[0], centre[1], floor if crop == 'block' else centre[2]], np.float64)
    return ((xyz - origin) / size).astype(np.float32)


def draw_points(indices: np.ndarray, count: int, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    """Draw a number of points: some of more, all of fewer and some of them again.

    Args:
        indices (np.ndarray): What is drawn from, shape (N,).
        count (int): How many are needed.
        rng (np.random.Generator | np.random.RandomState): Draws.

    Returns:
        np.ndarray: Drawn indices, shape (count,).
    """
    if len(indices) >= count:
        return rng.choice(indices, count, replace=False)
    return np.concatenate([indices, rng.choice(indices, count - len(indices))])


def split_points(indices: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Split the points of a crop at random into parts of a number of points, the last one filled up from the others.

    Args:
        indices (np.ndarray): The points, shape (N,).
        count (int): Points of a part.
        rng (np.random.Generator): Draws.

    Yields:
        np.ndarray: Indices of a part, shape (count,). Every point is in one at least.
    """
    order = rng.permutation(indices)
    for start in range(0, len(order), count):
        part = order[start : start + count]
        if len(part) < count and len(order) > count:
            # Points that the model has seen in another part make this one as dense.
            part = np.concatenate([part, rng.choice(order[:start], count - len(part), replace=False)])
        yield draw_points(part, count, rng)


def _blocks(
    xy: np.ndarray, size: float, stride: float, shift: np.ndarray, clamped: bool
) -> Iterator[tuple[float, float]]:
    """Centres of blocks on a grid, row by row, of those that may hold points.

    The grid starts at the least coordinates less ``shift``. The last block of a row ends at the greatest ones if
    ``clamped``.
    """
    low, high = xy.min(0), xy.max(0)
    last = np.maximum(0, np.ceil((high - low + shift - size) / stride))
    # The blocks of a cell of the grid are those that start in it or before; a clamped one may start a cell earlier.
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
    xyz: np.ndarray,
    crop: str,
    size: float,
    stride: float,
    rng: np.random.Generator,
    shifted: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cover a scene with overlapping crops.

    Blocks lie on a grid; those over empty ground are not visited. Spheres lie around points drawn from those that no
    sphere so far has within ``stride`` of its centre, so that every point is well inside one of them.

    Args:
        xyz (np.ndarray): Points of the scene, shape (N, 3).
        crop (str): ``'block'`` or ``'sphere'``.
        size (float): Side of the blocks or radius of the spheres.
        stride (float): Distance of the blocks, or see above; at most ``size``.
        rng (np.random.Generator): Draws the spheres, and the shift of the blocks.
        shifted (bool): Whether the grid of blocks is shifted by a random part of ``stride``, for another vote.

    Yields:
        tuple[np.ndarray, np.ndarray]: Centre (3,) and indices of the points of a crop. Every point is in one at least.
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
    # Of blocks none is left but for rounding.
    order = rng.permutation(len(xyz))
    for index in order[left[order]]:
        if left[index]:
            found = points_around(tree, xyz[index], crop, size)
            near = found if crop == 'block' else points_around(tree, xyz[index], crop, stride)
            left[near] = False
            yield xyz[index], found
